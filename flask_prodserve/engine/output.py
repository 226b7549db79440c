"""What a client has not taken yet of its responses: in memory, or, where that is too much, in a temporary file; and files of the app.

Not locked: the channel does that.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections import deque
from typing import IO, Any, Protocol

from .spool import Spool

IN_MEMORY = 1 << 20
"""Bytes that are kept in memory for one client. More go into a file, and these as well: a thousand clients would fill the memory."""

SEND_BYTES = 1 << 20
"""Sent at a time from a file, so that a fast client does not keep the loop to itself."""

SPOOL_BYTES = 1 << 24
"""Size at which a temporary file is followed by another: what has been sent of it takes its place until it is closed."""


class Transport(Protocol):
    """Where output goes. *at_a_time*: bytes to read from a file that cannot be sent by itself."""

    at_a_time: int

    def send_bytes(self, data: bytes | bytearray) -> int:
        """Send what goes without waiting, and return how much that was. Raises OSError."""

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """The same from a file. None where that cannot be done."""


class Output:
    """A queue of bytes and files. In bytes: ``size`` is how much is in it, ``backlog`` the same without files of the app, ``sent`` how much
    has been sent, past it as well, and ``kept`` what it takes of memory and disk. *spool* counts the last of these, for all.
    """

    __slots__ = ("_memory", "_pieces", "_spool", "backlog", "kept", "sent", "size")

    def __init__(self, spool: Spool) -> None:
        self.size = self.backlog = self.sent = self.kept = 0
        self._spool = spool
        self._memory = 0
        self._pieces: deque[bytearray | _File] = deque()

    def append(self, data: bytes | memoryview) -> None:
        """Keep *data*. Raises OSError where the disk is full."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, _File) and last.grows:
            last.append(data)
        elif self._memory + len(data) > IN_MEMORY:
            file = _File(tempfile.TemporaryFile(buffering=0), 0, spool=True)  # noqa: SIM115  # closed with the piece
            try:
                if isinstance(last, bytearray):
                    file.append(last)
                file.append(data)
            except OSError:
                file.close()
                raise
            if isinstance(last, bytearray):
                self._memory -= len(last)
                self._pieces.pop()
            self._pieces.append(file)
        elif isinstance(last, bytearray):
            last += data
            self._memory += len(data)
        else:
            self._pieces.append(bytearray(data))
            self._memory += len(data)
        self.size += len(data)
        self.backlog += len(data)
        self.kept += len(data)
        self._spool.add(len(data))

    def append_file(self, file: IO[bytes], size: int) -> None:
        """Keep *size* bytes from the current position of *file*, which is closed when they are sent."""
        self._pieces.append(_File(file, size))
        self.size += size

    def send(self, transport: Transport) -> None:
        """Send until *transport* takes no more, or a file has had its share. Raises OSError; also where a file is shorter than it was."""
        pieces = self._pieces
        while pieces:
            piece = pieces[0]
            if isinstance(piece, _File):
                sent = piece.send(transport)
                remaining = piece.size
            else:
                sent = transport.send_bytes(piece)
                remaining = len(piece) - sent
                self._memory -= sent
                del piece[:sent]
                self._forget(sent)
            self.size -= sent
            self.sent += sent
            if not isinstance(piece, _File) or piece.spool:
                self.backlog -= sent
            if remaining:
                return
            pieces.popleft()
            if isinstance(piece, _File):
                self._forget(piece.kept)
                piece.close()

    def _forget(self, count: int) -> None:
        self.kept -= count
        self._spool.remove(count)

    def close(self) -> None:
        """Forget everything."""
        self._forget(self.kept)
        for piece in self._pieces:
            if isinstance(piece, _File):
                piece.close()
        self._pieces.clear()
        self.size = self.backlog = self._memory = 0


class _File:
    """A part of a file: *size* bytes from its position on. A *spool* is our own, and more may come while it is sent."""

    __slots__ = ("_descriptor", "_file", "_offset", "size", "spool")

    def __init__(self, file: IO[bytes], size: int, *, spool: bool = False) -> None:
        self._file = file
        self._descriptor = _descriptor(file)
        self._offset = file.tell()
        self.spool = spool
        self.size = size

    @property
    def kept(self) -> int:
        """Bytes on disk that are there for this piece only: also those that have been sent."""
        return self._offset + self.size if self.spool else 0

    @property
    def grows(self) -> bool:
        return self.spool and self._offset + self.size < SPOOL_BYTES

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self._file.seek(self._offset + self.size)
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self.size += written
            view = view[written:]

    def send(self, transport: Transport) -> int:
        count = min(self.size, SEND_BYTES)
        sent = None
        if self._descriptor is not None:
            sent = transport.send_file(self._descriptor, self._offset, count)
        if sent is None:
            self._file.seek(self._offset)
            data = self._file.read(min(count, transport.at_a_time))
            if not data:
                raise OSError("a file became shorter while it was sent")
            sent = transport.send_bytes(data)
        self._offset += sent
        self.size -= sent
        return sent

    def close(self) -> None:
        self._file.close()


def is_at_hand(file: Any) -> bool:
    """Whether to read *file* keeps nobody waiting: it is a plain one, or in memory. What is derived from io.BytesIO may ask somebody."""
    return _is_plain(file) or type(file) is io.BytesIO


def _is_plain(file: Any) -> bool:
    """Whether a descriptor holds the bytes that *file* reads (GzipFile has one, of other bytes)."""
    return isinstance(getattr(file, "raw", file), io.FileIO)


def _descriptor(file: Any) -> int | None:
    """What the system sends *file* from; None where it cannot."""
    return getattr(file, "raw", file).fileno() if _is_plain(file) and hasattr(os, "sendfile") else None
