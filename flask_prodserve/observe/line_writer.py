"""Writes log lines without waiting for the reader: each destination has a bounded queue and a
thread.

Rules:

- :meth:`LineWriter.put` never waits for the destination. It appends to the queue, and drops the
  line if the queue is full. New lines are dropped, not old ones, so written lines stay in order.
  The number of dropped lines is logged as soon as writing works again.
- A line is never split over two writes. Several lines go out in one write if the destination takes
  that whole (PIPE_BUF of a pipe).
- The thread starts with the first line and ends when it has been idle. It collects lines for some
  milliseconds before it writes them: one wake-up per line would cost more than the write.
- A forked child has neither the thread nor the queue of its parent. It writes directly, as other
  Python programs do, because it often ends with os._exit(). A child that serves calls
  :func:`use_queues`.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import errno
import logging
import os
import select
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial

from ..clock import Deadline, monotonic

logger = logging.getLogger("flask_prodserve.log")

QUEUE_BYTES = 1 << 20
"""Size of a queue in bytes; the thread may hold as much again.

About 10,000 requests, or 300 tracebacks: what accumulates while a container runtime rotates its
files, and little compared with the memory of a Python process.
"""

ACCESS_BYTES = QUEUE_BYTES * 3 // 4
"""How much of the queue access lines may use. The rest is for messages, which explain problems."""

PIECE_BYTES = 4096
"""Largest write in bytes: as much as a pipe takes whole (PIPE_BUF of Linux; POSIX requires at least
512).
"""

FILE_PIECE_BYTES = 1 << 16
"""Largest write to a file opened for appending, which takes any write whole."""

COLLECT_SECONDS = 0.015
"""How long lines are collected after a write. People do not notice it, and 60 wake-ups a second
cost nothing.
"""

IDLE_SECONDS = 2.0
"""After how long an idle thread ends."""

FLUSH_SECONDS = 1.0
"""How long a process waits at its end, for all destinations together."""

PAUSE_SECONDS = 0.1
"""How long a fork waits for lines to be written, so that the child's lines come later. If it is too
short, no line is lost.
"""

Write = Callable[[bytes], int]
"""Writes lines and returns how many bytes of them. Raises OSError or ValueError."""


class LineWriter:
    """Writes lines with *write*. *name* is the destination in messages.

    *descriptor* is the descriptor behind *write*, if any. Without a *queue*, the calling thread
    writes. All methods may be called from any thread, :meth:`put` and :meth:`call` also from signal
    handlers.
    """

    def __init__(
        self,
        write: Write,
        name: str,
        *,
        descriptor: int | None = None,
        queue: bool = True,
        log: logging.Logger = logger,
    ) -> None:
        self._write_to = write
        self._name = name
        self._log = log
        self._descriptor = descriptor
        self._is_file = descriptor is not None and _is_file(descriptor)
        self._together = FILE_PIECE_BYTES if self._is_file else PIECE_BYTES
        self._wants_queue = queue
        self._cut = False
        self._lost = 0
        self._lost_lock = threading.Lock()
        self.start_over(queue=_queues)
        if queue:
            _writers.add(self)

    def start_over(self, *, queue: bool) -> None:
        """Drop the queue, which the parent of this process writes."""
        self._queues = queue and self._wants_queue
        # Reentrant: a signal handler that logs may interrupt put() in the same thread.
        self._lock = threading.RLock()
        self._wake = threading.Lock()  # released to wake the thread; unlike a Condition, a signal handler may do so
        self._wake.acquire()
        self._items: list[bytes | Callable[[], object]] = []
        self._bytes = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._idle = False
        self._ends = False
        self._began_write = monotonic()
        self._gave_up: float | None = None

    def put(self, lines: bytes, room: int = QUEUE_BYTES) -> None:
        """Queue *lines*, which end with a newline, or drop them if the queue would exceed *room*
        bytes.

        A file gets them as one block, a pipe in pieces of whole lines.
        """
        if not self._queues:
            self._send(lines)
            return
        with self._lock:
            if self._items and self._bytes + len(lines) > room:
                self._dropped += lines.count(b"\n")
                return
            self._items.append(lines)
            self._bytes += len(lines)
            if self._thread is not None and not self._idle:
                return  # it checks the queue again soon
            self._idle = False
        self._rouse()

    def call(self, function: Callable[[], object]) -> None:
        """Call *function* after everything queued so far was written."""
        if not self._queues:
            function()
            return
        with self._lock:
            self._items.append(function)
            self._idle = False
        self._rouse()

    def flush(self, seconds: float) -> bool:
        """Wait until everything queued so far was written, for *seconds* at most. Return whether it
        was.

        A write that one call waited for in vain is not waited for again.
        """
        if not self._queues or (self._thread is None and not self._items):
            return True
        if self._gave_up == self._began_write:
            return False
        written = threading.Event()
        self.call(written.set)
        if written.wait(seconds):
            return True
        self._gave_up = self._began_write
        return False

    def pause(self, seconds: float) -> bool:
        """Flush, and end the thread. The next line starts another one. Return whether both
        succeeded.
        """
        deadline, thread = Deadline(seconds), self._thread
        if self.flush(seconds) and thread is not None:
            self.call(self._end_thread)
            thread.join(deadline.remaining())
        return self._thread is None and not self._items

    def write_directly(self) -> None:
        """Let the calling threads write from now on. If the destination is blocked, later lines are
        dropped instead.
        """
        self._queues = not self.pause(0)

    def _rouse(self) -> None:
        with contextlib.suppress(RuntimeError):  # already woken
            self._wake.release()
        with self._lock:
            if self._thread is not None:
                return
            thread = self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        try:
            # In an empty context: a free-threaded Python passes on the caller's, which holds the
            # request.
            contextvars.Context().run(thread.start)
        except RuntimeError:  # a limit of the system on threads, or the interpreter is ending
            self._thread = None
            self._write(self._take())

    # The thread.

    def _run(self) -> None:
        while True:
            items = self._take()
            self._write(items)
            with self._lock:
                if self._ends and not self._items:
                    self._ends, self._thread = False, None
                    return
                idle = self._idle = not items and not self._items
            if not self._wake.acquire(timeout=IDLE_SECONDS if idle else COLLECT_SECONDS) and idle:
                self._end_thread()

    def _end_thread(self) -> None:
        self._ends = True

    def _take(self) -> list[bytes | Callable[[], object]]:
        with self._lock:
            items, self._items, self._bytes = self._items, [], 0
            dropped, self._dropped = self._dropped, 0
        if dropped:
            # The queue is empty now, so this comes after the last line that was kept, and before
            # later ones.
            self._report_dropped(dropped, monotonic() - self._began_write)
        return items

    def _write(self, items: list[bytes | Callable[[], object]]) -> None:
        if items:
            self._began_write = monotonic()
        together: list[bytes] = []
        size = 0
        for item in [*items, None]:
            if together and (not isinstance(item, bytes) or size + len(item) > self._together):
                self._send(b"".join(together))
                together, size = [], 0
            if isinstance(item, bytes):
                together.append(item)
                size += len(item)
            elif item is not None:
                with contextlib.suppress(Exception):  # the thread must continue
                    item()

    # Writing, in the thread or in the calling one.

    def _send(self, lines: bytes) -> None:
        # After a partial line, start a new one, so that only one line is damaged.
        data = b"\n" + lines if self._cut else lines
        done = 0
        try:
            for piece in self._pieces(data):
                end = done + len(piece)
                while done < end:
                    done += self._write_some(data[done:end])
                    if done < end and self._is_file:
                        # The rest would follow the lines of other processes; a full disk would not
                        # take it anyway.
                        raise OSError(errno.EIO, "only a part of a line was written")
        except (OSError, ValueError) as error:  # ValueError: a closed stream
            if done:
                self._cut = self._is_file and data[done - 1 : done] != b"\n"
            self._lose(data.count(b"\n", max(done, len(data) - len(lines))), error)
        else:
            self._cut = False
            if self._lost:
                self._recover()

    def _write_some(self, data: bytes) -> int:
        while True:
            try:
                return self._write_to(data)
            except BlockingIOError:
                if self._descriptor is None:
                    raise
                select.select([], [self._descriptor], [])  # another process made the file non-blocking

    def _pieces(self, lines: bytes) -> Iterator[bytes]:
        if len(lines) <= self._together or self._is_file:
            yield lines
        else:
            yield from pieces(lines)

    def _lose(self, lines: int, error: Exception) -> None:
        with self._lost_lock:
            first = not self._lost
            self._lost += max(1, lines)
        if first:
            self._warn("could not write to %s, losing lines: %s", self._name, error)

    def _recover(self) -> None:
        with self._lost_lock:
            lost, self._lost = self._lost, 0
        if lost:
            self._warn("writing to %s again; lines lost: %d", self._name, lost)

    def _report_dropped(self, dropped: int, seconds: float) -> None:
        self._warn(
            "dropped %d log line%s: %s was %s",
            dropped,
            "s"[: dropped != 1],
            self._name,
            f"blocked for {seconds:.0f}s" if seconds >= 1 else "too slow",
        )

    def _warn(self, message: str, *arguments: object) -> None:
        with contextlib.suppress(Exception):  # from the app's filters or handlers; the thread must continue
            self._log.warning(message, *arguments)


THREAD_NAME = "prodserve-log"


def pieces(lines: bytes) -> Iterator[bytes]:
    """Cut *lines* at line ends; cut lines longer than PIECE_BYTES anywhere."""
    begin = 0
    while begin < len(lines):
        end = begin + PIECE_BYTES
        if end < len(lines):
            end = lines.rfind(b"\n", begin, end) + 1 or end
        yield lines[begin:end]
        begin = end


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


# The writers of this process.

_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()
_queues = True


def flush(seconds: float = FLUSH_SECONDS) -> bool:
    """Wait until all lines of this process are written, for *seconds* at most. Return whether they
    are.

    Call it before os._exit() and exec.
    """
    deadline = Deadline(seconds)
    waiting = [writer for writer in list(_writers) if not writer.flush(deadline.remaining())]
    return not waiting


def pause(seconds: float = PAUSE_SECONDS) -> None:
    """Flush, and end the threads. Call it before a fork in a process without other threads."""
    deadline = Deadline(seconds)
    for writer in list(_writers):
        writer.pause(deadline.remaining())


def use_queues() -> None:
    """Queue lines in this process, which is a forked child."""
    _start_over(queue=True)


def _start_over(*, queue: bool) -> None:
    global _queues
    _queues = queue
    for writer in list(_writers):
        writer.start_over(queue=queue)


def _end() -> None:
    pause(FLUSH_SECONDS)
    for writer in list(_writers):
        writer.write_directly()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=partial(flush, PAUSE_SECONDS), after_in_child=partial(_start_over, queue=False))
