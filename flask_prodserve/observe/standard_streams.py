"""Queues what the app prints: sys.stdout and sys.stderr of a serving process go through the queue
of log lines.

Flask's and Python's own handlers write there too, and ``wsgi.errors`` is sys.stderr. Handlers that
the app opens for itself, with files or connections, write directly: put a
``logging.handlers.QueueHandler`` before them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

from .line_writer import FLUSH_SECONDS, LineWriter, flush

_writers: dict[int, LineWriter] = {}


def text_descriptor(stream: TextIO) -> int | None:
    """Return the descriptor of *stream* if it is an ordinary text stream, else None."""
    # A wrapper may report the descriptor of the stream behind it. A Windows console takes text
    # only.
    if not isinstance(stream, io.TextIOWrapper) or os.name == "nt":
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def writer_to(descriptor: int) -> LineWriter:
    """Return the line writer for *descriptor*.

    Standard output (1) and standard error (2) have a queue, and one in common if they are the same
    file, so that lines keep their order. Any other descriptor may be closed and reused, so its
    writer has no queue.
    """
    writer = _writers.get(descriptor)
    if writer is not None:
        return writer
    name = _NAMES.get(descriptor)
    if name is None:
        return LineWriter(partial(os.write, descriptor), "the log", descriptor=descriptor, queue=False)
    other = _writers.get(3 - descriptor)
    if other is None or not _is_same(1, 2):
        other = LineWriter(partial(os.write, descriptor), name, descriptor=descriptor)
    return _writers.setdefault(descriptor, other)


_NAMES = {1: "standard output", 2: "standard error"}


def _is_same(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


def queue_streams() -> list[tuple[str, TextIO]]:
    """Replace sys.stdout and sys.stderr with streams that queue. Return the names and the replaced
    streams.

    Streams that are already replaced stay, and so do those that are not the process's own, as in
    test suites.
    """
    replaced = []
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        descriptor = None if stream is None else text_descriptor(stream)
        if descriptor not in _NAMES or isinstance(stream.buffer, _Queue):
            continue
        with contextlib.suppress(OSError):
            stream.flush()
        queue = io.TextIOWrapper(
            _Queue(stream, writer_to(descriptor)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=True,
        )
        setattr(sys, name, queue)
        replaced.append((name, stream))
    return replaced


@contextlib.contextmanager
def queued_streams() -> Iterator[None]:
    """Queue sys.stdout and sys.stderr inside the block."""
    replaced = queue_streams()
    try:
        yield
    finally:
        if replaced:
            flush(FLUSH_SECONDS)
        for name, stream in replaced:
            setattr(sys, name, stream)


class _Queue(io.RawIOBase):
    """The binary stream behind such a text stream. Each write has one or more lines."""

    def __init__(self, replaced: TextIO, writer: LineWriter) -> None:
        self.name = getattr(replaced, "name", "")
        self._replaced = replaced  # kept, because dropping the last reference closes its descriptor
        self._writer = writer

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._writer.put(bytes(data))
        return len(data)

    def fileno(self) -> int:
        return self._replaced.fileno()

    def isatty(self) -> bool:
        return self._replaced.isatty()
