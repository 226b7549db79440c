"""The exit of a process: what the app has left running may delay it, but not prevent it.

When the main thread has ended, Python waits without limit for threads that are no daemons and for
processes of multiprocessing. A guard logs what it waits for, and ends the process at a deadline,
with the exit code that it would have had.

It has two threads, because a log handler of the app may block: one watches and ends the process,
the other one logs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ..clock import Deadline
from ..observe import line_writer
from .signals import SignalInbox

logger = logging.getLogger("flask_prodserve.exit")

TURN_SECONDS = 0.05

SETTLE_SECONDS = 0.2
"""What ends within this time is not logged: idle threads of executors, daemon processes."""

COMMAND_SECONDS = 1.0
"""How long the app's threads and processes may delay the exit of a command that does not serve, or
has failed.
"""

WRITE_SECONDS = 1.0
"""How long writing the last log lines and buffers may take."""

_AT_ONCE = (2, 3)  # SIGINT and SIGQUIT, everywhere


class ExitGuard:
    """Ends this process with *code* if it still runs at *deadline*.

    Before :meth:`leave` this bounds the app's hooks, which run in the main thread. After
    :meth:`leave` it waits for the end of the main thread first. *limit* is the setting that the
    deadline comes from, or ``""``. If no thread can be started, there is no guard.
    """

    def __init__(self, deadline: Deadline, code: int, limit: str = "GRACEFUL_TIMEOUT") -> None:
        self._deadline = deadline
        self._code = code
        self._limit = limit
        self._inbox = SignalInbox()
        self._leaving = False
        self._to_write = threading.Semaphore(0)
        self._written = threading.Event()
        self._job: Callable[[], object] = _nothing
        for target in (self._write, self._watch):
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=target, name="prodserve-exit", daemon=True).start()

    def take_signals(self) -> None:
        """From now on, end the process at once on SIGINT and SIGQUIT, and ignore other signals.

        From the main thread.
        """
        self._inbox.open()

    def leave(self) -> None:
        """Tell the guard that the main thread only has to end now."""
        self._leaving = True

    def end_now(self, number: int = _AT_ONCE[1]) -> None:
        """Act as on signal *number*, SIGQUIT or SIGINT. From any thread and signal handler."""
        self._inbox.post(number)

    def _watch(self) -> None:
        named: Deadline | None = None
        while True:
            running = threading.main_thread().is_alive()
            if not running and named is None:
                named = Deadline(SETTLE_SECONDS)
            elif named is not None and named.passed():
                named = Deadline(float("inf"))
                self._have_done(self._name)
            select.select([self._inbox.socket], [], [], TURN_SECONDS)
            at_once = [number for number in self._inbox.received() if number in _AT_ONCE]
            if at_once:
                self._end(128 + at_once[0])
            if self._deadline.passed() and not (running and self._leaving):
                self._end(self._code)

    def _have_done(self, job: Callable[[], object]) -> None:
        self._written.clear()
        self._job = job
        self._to_write.release()

    def _write(self) -> None:
        while True:
            self._to_write.acquire()
            self._job()
            self._written.set()

    def _name(self) -> None:
        # Python has ended daemon processes by now, but not those with which a Pool has replaced
        # them meanwhile.
        end_daemons()
        if left := left_running():
            logger.info(
                "waiting for %s, started by the app; the process exits in %.0fs%s",
                ", ".join(left),
                self._deadline.remaining(),
                f" ({self._limit})" if self._limit else "",
            )

    def _end(self, code: int) -> None:
        """End the process, after the last log lines if they can be written within WRITE_SECONDS."""
        at_deadline = code == self._code

        def last() -> None:
            if (left := left_running()) and at_deadline:
                logger.warning(
                    "%sended the process although the app still runs %s. Stop it in a worker_stopping hook, or make it a daemon",
                    f"{self._limit} is over; " if self._limit else "",
                    ", ".join(left),
                )
            _end(_processes())
            flush()

        self._have_done(last)
        self._written.wait(WRITE_SECONDS)
        os._exit(code)


def left_running() -> list[str]:
    """Describe what keeps this process alive: threads that are no daemons, and processes of
    multiprocessing.
    """
    main = threading.main_thread()
    threads = [thread for thread in threading.enumerate() if not thread.daemon and thread is not main]
    found = [_described(thread) for thread in threads]
    if main.is_alive():
        found.insert(0, "the main thread (a hook of the app?)")
    processes = _processes()
    # Python ends daemon processes at exit: they keep the process alive only if they ignore that.
    named = [process for process in processes if not process.daemon] or ([] if found else processes)
    return found + [f"process {process.name} (pid {process.pid})" for process in named]


def flush() -> None:
    """Write what log handlers and the standard streams have buffered."""
    loggers = [
        logging.root,
        *(one for one in list(logging.root.manager.loggerDict.values()) if isinstance(one, logging.Logger)),
    ]
    handlers = {handler for one in loggers for handler in one.handlers}
    for flushable in (*handlers, sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, replaced, or None
            flushable.flush()
    line_writer.flush()


def _described(thread: threading.Thread) -> str:
    target = getattr(getattr(thread, "_target", None), "__name__", type(thread).__name__)
    return f"thread {thread.name}" if target in thread.name else f"thread {thread.name} ({target})"


def _processes() -> list[Any]:
    """Return the running processes of multiprocessing that this process has started.

    Unlike :func:`multiprocessing.active_children` this does not reap them: the main thread waits
    for them at the same time.
    """
    started = getattr(sys.modules.get("multiprocessing.process"), "_children", None) or ()
    return [process for process in list(started) if process.pid is not None and _lives(process.pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def end_daemons() -> None:
    """End daemon processes of multiprocessing, as Python does at exit.

    For a process that is about to become another program.
    """
    _end([process for process in _processes() if process.daemon])


def _end(processes: list[Any]) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGTERM)


def _nothing() -> None:
    pass
