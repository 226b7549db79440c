"""The body of a request while it is received: in memory up to a bound, then in a temporary file."""

from __future__ import annotations

import contextlib
import io
import tempfile
from typing import IO

from ..spool import Spool, SpoolFull

IN_MEMORY = 1 << 19
"""Bytes of a body that are kept in memory, as long as the spool has room for them in memory."""

SMALL = 1 << 12
"""Parts below this size, in bytes, are joined to the part before. Each one by itself would take
several times its size.
"""


class Body:
    """*expected* is the announced size in bytes, 0 if none was announced. *spool* counts the bytes.

    All methods but ``close`` raise OSError if the disk is full, and SpoolFull if the spool is.
    """

    def __init__(self, expected: int, spool: Spool) -> None:
        if spool.full:
            raise SpoolFull
        self._in_memory = 0
        self._parts: list[bytes | bytearray] = []
        self._spool = spool
        self._file: IO[bytes] | None = _temporary_file() if expected > IN_MEMORY else None
        self.size = 0

    def append(self, data: bytes) -> None:
        if self._spool.full:
            raise SpoolFull
        self.size += len(data)
        self._spool.add(len(data))
        if self._file is not None:
            self._file.write(data)
            return
        if self.size > IN_MEMORY or not self._spool.take_memory(len(data)):
            self._file = _temporary_file()
            self._file.writelines([*self._parts, data])
            self._leave_memory()
            return
        self._in_memory += len(data)
        if len(data) >= SMALL:
            self._parts.append(data)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1] += data
        else:
            self._parts.append(bytearray(data))

    def finish(self) -> None:
        """Prepare for reading: the body is complete."""
        if self._file is not None:
            self._file.seek(0)

    def stream(self) -> IO[bytes]:
        """Return the whole body, at its start."""
        if self._file is None:
            return io.BytesIO(b"".join(self._parts))
        return self._file

    def _leave_memory(self) -> None:
        self._parts.clear()
        self._spool.return_memory(self._in_memory)
        self._in_memory = 0

    def close(self) -> None:
        self._spool.remove(self.size)
        self.size = 0
        self._leave_memory()
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk the buffered bytes cannot be written, and need not be
                self._file.close()


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()
