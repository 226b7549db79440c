"""The bytes and files that wait until a client takes them: in memory up to a bound, then in
temporary files.

Not locked: the connection's ``output_lock`` protects it.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from typing import IO, Any, Protocol

from ..exchange.file_wrapper import is_plain
from ..spool import Spool

IN_MEMORY = 1 << 20
"""Bytes that are kept in memory for one client. If there are more, all of them go into a file: a
thousand clients would fill the memory.
"""

SEND_BYTES = 1 << 20
"""Sent at a time from a file, so that a fast client does not keep the event loop for itself."""

SPOOL_BYTES = 1 << 24
"""Size at which a temporary file is followed by another. What has been sent of a file takes space
until the file is closed.
"""


class Sink(Protocol):
    """What output is sent through."""

    @property
    def at_a_time(self) -> int:
        """Bytes to read at a time from a file that the system cannot send."""

    def send_bytes(self, data: bytes | bytearray, total: int) -> int:
        """Send what goes without waiting, and return how many bytes that was. *total* bytes wait,
        with these. Raises OSError.
        """

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """Send *count* bytes of a file in the same way. None if that cannot be done."""


class OutputQueue:
    """In bytes: ``size`` is what waits, ``backlog`` the same without the app's files, ``sent`` what
    has been sent so far, also past the queue, and ``kept`` what the queue takes of memory and disk.
    *spool* counts ``kept`` for all clients.
    """

    __slots__ = ("_memory", "_pieces", "_spool", "backlog", "kept", "sent", "size")

    def __init__(self, spool: Spool) -> None:
        self.size = self.backlog = self.sent = self.kept = 0
        self._spool = spool
        self._memory = 0
        self._pieces: deque[bytearray | _File] = deque()

    def append(self, data: bytes | memoryview) -> None:
        """Keep *data*. Raises OSError if the disk is full."""
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
        """Keep *size* bytes from the current position of *file*, which is closed when they are
        sent.
        """
        self._pieces.append(_File(file, size))
        self.size += size

    def send(self, sink: Sink) -> None:
        """Send until *sink* takes no more, or a file has had its turn. Raises OSError; also if a
        file has become shorter.
        """
        pieces = self._pieces
        while pieces:
            piece = pieces[0]
            if isinstance(piece, _File):
                sent = piece.send(sink, self.size)
                remaining = piece.size
            else:
                sent = sink.send_bytes(piece, self.size)
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
        """Discard everything."""
        self._forget(self.kept)
        for piece in self._pieces:
            if isinstance(piece, _File):
                piece.close()
        self._pieces.clear()
        self.size = self.backlog = self._memory = 0


class _File:
    """A part of a file: *size* bytes from its position on. A *spool* is a temporary file of our
    own, which may grow while it is sent.
    """

    __slots__ = ("_descriptor", "_file", "_offset", "size", "spool")

    def __init__(self, file: IO[bytes], size: int, *, spool: bool = False) -> None:
        self._file = file
        self._descriptor = _descriptor(file)
        self._offset = file.tell()
        self.spool = spool
        self.size = size

    @property
    def kept(self) -> int:
        """Bytes on disk that exist for this piece only, including those that have been sent."""
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

    def send(self, sink: Sink, total: int) -> int:
        count = min(self.size, SEND_BYTES)
        sent = None
        if self._descriptor is not None:
            sent = sink.send_file(self._descriptor, self._offset, count)
        if sent is None:
            self._file.seek(self._offset)
            data = self._file.read(min(count, sink.at_a_time))
            if not data:
                raise OSError("a file became shorter while it was sent")
            sent = sink.send_bytes(data, total)
        self._offset += sent
        self.size -= sent
        return sent

    def close(self) -> None:
        self._file.close()


def _descriptor(file: Any) -> int | None:
    """Return the descriptor that the system can send *file* from; None if there is none."""
    return getattr(file, "raw", file).fileno() if is_plain(file) and hasattr(os, "sendfile") else None
