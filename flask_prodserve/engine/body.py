"""The body of a request while it is received: in memory up to a bound, then in a temporary file."""

from __future__ import annotations

import io
import tempfile
from typing import IO

IN_MEMORY = 1 << 19
"""Bytes of a body that are kept in memory."""

SMALL = 1 << 12
"""Bytes below which a part is joined to the one before: each by itself would take several times its size."""


class Body:
    """*expected* is the size that was announced, in bytes, 0 for one that was not."""

    def __init__(self, expected: int) -> None:
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._file: IO[bytes] | None = _temporary_file() if expected > IN_MEMORY else None

    def append(self, data: bytes) -> None:
        """Raises OSError where the disk is full."""
        if self._file is not None:
            self._file.write(data)
            return
        self._size += len(data)
        if self._size > IN_MEMORY:
            self._file = _temporary_file()
            self._file.writelines([*self._parts, data])
            self._parts.clear()
        elif len(data) >= SMALL:
            self._parts.append(data)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1] += data
        else:
            self._parts.append(bytearray(data))

    def stream(self) -> IO[bytes]:
        """The whole body, to be read from its start."""
        if self._file is None:
            return io.BytesIO(b"".join(self._parts))
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()
