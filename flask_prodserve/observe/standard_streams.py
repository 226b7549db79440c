"""sys.stdout and sys.stderr of a process that serves: what the app prints goes through the queue of log lines and waits for no reader.

Flask's and Python's own handlers write there, too, and it is what ``wsgi.errors`` is. Handlers with files or connections that the app has
opened for itself write as they always did: put a ``logging.handlers.QueueHandler`` before them.
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
    """The descriptor of *stream* if it is an ordinary text stream."""
    # A wrapper that passes its text on may have the descriptor of what is behind it. A console of Windows takes text only.
    if not isinstance(stream, io.TextIOWrapper) or os.name == "nt":
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def writer_to(descriptor: int) -> LineWriter:
    """The writer of lines to *descriptor*: with a queue for standard output (1) and standard error (2), and one for both if they are the
    same file, so that lines keep their order. Any other descriptor may be closed and taken by another file: the calling thread writes.
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
    """Replace sys.stdout and sys.stderr by streams that queue. Returns the names and the streams that have been replaced.

    Streams that are already replaced are left alone, and so are those that are not the process's own, as in test suites.
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
    """Do what :func:`queue_streams` does inside the block."""
    replaced = queue_streams()
    try:
        yield
    finally:
        if replaced:
            flush(FLUSH_SECONDS)
        for name, stream in replaced:
            setattr(sys, name, stream)


class _Queue(io.RawIOBase):
    """What is behind such a stream. It gets a line, or several, at a time."""

    def __init__(self, replaced: TextIO, writer: LineWriter) -> None:
        self.name = getattr(replaced, "name", "")
        self._replaced = replaced  # closed with its last reference, and then its descriptor, too
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
