"""Signals of a process with one thread: none is missed, and each is dealt with in the loop, not inside a handler.

Handlers do nothing; the interpreter writes the number of each signal into a socket (``signal.set_wakeup_fd``), which the loop reads.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator

HANDLED = frozenset(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGCHLD")
    if hasattr(signal, name)
)


def nothing(number: int, frame: object) -> None:
    """A handler that does nothing. Unlike SIG_IGN it is not passed on to the programs that a process starts."""


class SignalInbox:
    """Collects HANDLED. Only in a main thread."""

    def __init__(self) -> None:
        self.socket, self._entrance = socket.socketpair()
        self.socket.setblocking(False)
        self._entrance.setblocking(False)
        self.ignored = {number for number in HANDLED if signal.getsignal(number) is signal.SIG_IGN}
        """What was ignored when this process was started: SIGHUP under ``nohup``."""

    def open(self) -> None:
        """Handle signals from now on, also those that were blocked until now."""
        for number in HANDLED:
            signal.signal(number, nothing)
        signal.set_wakeup_fd(self._entrance.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def received(self) -> list[signal.Signals]:
        """The signals that have come since the last time, in their order."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            while data := self.socket.recv(4096):
                numbers += data
        return [signal.Signals(number) for number in numbers]

    def ignore_again(self) -> None:
        """Ignore what was ignored at the start, which a program that replaces this one is to find as this one did."""
        for number in self.ignored:
            signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Let go of signals. To be called in a worker right after the fork, where they are blocked."""
        signal.set_wakeup_fd(-1)
        self.socket.close()
        self._entrance.close()


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Keep HANDLED waiting inside the block; a process forked or executed there starts with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
