"""``wsgi.file_wrapper`` (PEP 3333): a file as the body of a response.

To Flask, Werkzeug and middleware it looks like any stream. It has no length: a body with a length
is one that is held in memory (``response.is_streamed``), and extensions then read all of it at
once. The task recognises it and has the system send the file.
"""

from __future__ import annotations

import io
from typing import Any

BLOCK_BYTES = 1 << 15
"""Read at a time where the file is iterated."""


class FileWrapper:
    """Iterates over *file*, which has ``read``, in blocks of *block_size* bytes.

    ``seekable``, ``seek`` and ``tell`` exist only if the file can seek: Werkzeug checks for them to
    send a range.
    """

    def __init__(self, file: Any, block_size: int = BLOCK_BYTES) -> None:
        self.file = file
        self.block_size = block_size
        self.read = file.read
        if _is_seekable(file):
            self.seek = file.seek
            self.tell = file.tell

            def seekable() -> bool:
                return True

            self.seekable = seekable

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.file.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        if hasattr(self.file, "close"):
            self.file.close()

    def bytes_left(self, most: int | None) -> int:
        """Return how many bytes follow the file's position, at most *most*. 0 if the file cannot
        seek.
        """
        if not _is_seekable(self.file):
            return 0
        position = self.file.tell()
        left: int = max(self.file.seek(0, 2) - position, 0)
        self.file.seek(position)
        return left if most is None else min(left, most)


def _is_seekable(file: Any) -> bool:
    if hasattr(file, "seekable"):
        return bool(file.seekable())
    return hasattr(file, "seek") and hasattr(file, "tell")


def is_at_hand(file: Any) -> bool:
    """Tell whether reading *file* never blocks: it is a plain file, or in memory. A subclass of
    io.BytesIO may do anything.
    """
    return is_plain(file) or type(file) is io.BytesIO


def is_plain(file: Any) -> bool:
    """Tell whether *file* reads the bytes of its descriptor. (A GzipFile has a descriptor, with
    other bytes.)
    """
    return isinstance(getattr(file, "raw", file), io.FileIO)
