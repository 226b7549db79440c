"""Signals of a process with one thread: none is lost, and each is handled in the loop, not inside a
signal handler.

Handlers do nothing. The interpreter writes the number of each signal into a socket
(``signal.set_wakeup_fd``), which the loop reads.

:func:`install` sets handlers, so that a child that the app forks gets the previous handlers back
(see ``net.forked``). Signals are blocked while a thread forks: a signal that reached the child
before it has its handlers back would be lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..net import forked

HANDLED = frozenset(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGCHLD")
    if hasattr(signal, name)
)


ENDING = frozenset(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name))
"""Signals that end a process."""


def nothing(number: int, frame: object) -> None:
    """Handle a signal by doing nothing.

    Unlike SIG_IGN, programs that the process starts do not inherit it.
    """


_installed: dict[int, tuple[Any, Any]] = {}
"""By signal: our handler and the previous one."""


def install(number: int, handler: Callable[[int, Any], object]) -> None:
    """Call *handler* for the signal *number*. Only in the main thread."""
    if not _installed and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
    before = signal.signal(number, handler)
    ours, original = _installed.get(number, (None, None))
    _installed[number] = handler, original if ours is not None and before is ours else before
    forked.call_in_child(_give_back)


def _give_back() -> None:
    """Set the previous handlers in a child that the app has forked. Undoes :func:`install`."""
    for number, (ours, before) in _installed.items():
        if signal.getsignal(number) is ours:  # otherwise the app has set its own since
            signal.signal(number, signal.SIG_DFL if before is None else before)
    signal.set_wakeup_fd(-1)
    _held.mask = getattr(_held, "mask", set()) - HANDLED


_held = threading.local()
"""Of a thread that forks: the signals that were blocked before the fork."""


def _hold() -> None:
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def _release() -> None:
    # In a child this runs after :func:`_give_back`: ``net.forked`` registers its at-fork function
    # before this module does.
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


class SignalInbox:
    """Collects the signals in HANDLED. Only in the main thread."""

    def __init__(self) -> None:
        self.socket, self._entrance = socket.socketpair()
        self.socket.setblocking(False)
        self._entrance.setblocking(False)
        self.ignored = {number for number in HANDLED if signal.getsignal(number) is signal.SIG_IGN}
        """The signals that were ignored when this process started: SIGHUP under ``nohup``."""

    def open(self, numbers: Iterable[signal.Signals] = HANDLED) -> None:
        """Collect *numbers* from now on, and unblock all of HANDLED: pending signals arrive."""
        for number in numbers:
            install(number, nothing)
        signal.set_wakeup_fd(self._entrance.fileno(), warn_on_full_buffer=False)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def post(self, number: int) -> None:
        """Act as if the signal *number* had arrived. From any thread."""
        with contextlib.suppress(OSError):  # full, or closed
            self._entrance.send(bytes([number]))

    def received(self) -> list[signal.Signals]:
        """Return the signals that have arrived since the last call, in order."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            while data := self.socket.recv(4096):
                numbers += data
        return [signal.Signals(number) for number in numbers]

    def ignore_again(self) -> None:
        """Ignore what was ignored at the start, so that a program that replaces this one starts
        with the same signals.
        """
        for number in self.ignored:
            signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Stop collecting signals.

        A worker calls this right after the fork, with signals blocked.
        """
        signal.set_wakeup_fd(-1)
        self.socket.close()
        self._entrance.close()


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Block the signals in HANDLED inside the block.

    A process that is forked or executed there starts with them blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
