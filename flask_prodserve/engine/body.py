"""The body of a request while it is received: in memory up to a bound, then in a temporary file."""

from __future__ import annotations

import io
import tempfile
from typing import IO

IN_MEMORY = 1 << 19
"""Bytes of a body that are kept in memory."""


class Body:
    """*expected* is the size that was announced, in bytes, 0 for one that was not."""

    def __init__(self, expected: int) -> None:
        self._file: IO[bytes] = _temporary() if expected > IN_MEMORY else io.BytesIO()
        self._spooled = expected > IN_MEMORY
        self._size = 0

    def append(self, data: bytes) -> None:
        """Raises OSError where the disk is full."""
        self._size += len(data)
        if self._size > IN_MEMORY and not self._spooled:
            spool = _temporary()
            with self._file as memory:
                memory.seek(0)
                spool.write(memory.read())
            self._file = spool
            self._spooled = True
        self._file.write(data)

    def stream(self) -> IO[bytes]:
        """The whole body, to be read from its start."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._file.close()


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile()
