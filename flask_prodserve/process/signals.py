"""Signals of a process with one thread: none is missed, and each is dealt with in the loop, not inside a handler.

Handlers do nothing; the interpreter writes the number of each signal into a socket (``signal.set_wakeup_fd``), which the loop reads.

Handlers are set by :func:`install`, so that a child that the app forks gets those back that were there before (see ``net.forked``). Signals
wait while a thread forks: one that reached the child before it has its handlers back would be lost.
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
"""Those that end a process."""


def nothing(number: int, frame: object) -> None:
    """A handler that does nothing. Unlike SIG_IGN it is not passed on to the programs that a process starts."""


_installed: dict[int, tuple[Any, Any]] = {}
"""By signal: our handler, and the one that was there before."""


def install(number: int, handler: Callable[[int, Any], object]) -> None:
    """Have *handler* called for the signal *number*. Only in a main thread."""
    if not _installed and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
    before = signal.signal(number, handler)
    ours, original = _installed.get(number, (None, None))
    _installed[number] = handler, original if ours is not None and before is ours else before
    forked.call_in_child(_give_back)


def _give_back() -> None:
    """In a child of the app: handle signals as before :func:`install`."""
    for number, (ours, before) in _installed.items():
        if signal.getsignal(number) is ours:  # or the app has set its own since
            signal.signal(number, signal.SIG_DFL if before is None else before)
    signal.set_wakeup_fd(-1)
    _held.mask = getattr(_held, "mask", set()) - HANDLED


_held = threading.local()
"""Of a thread that forks: the signals that were blocked before."""


def _hold() -> None:
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def _release() -> None:
    # In a child this comes after :func:`_give_back`: what ``net.forked`` has registered with the system, it has registered first.
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


class SignalInbox:
    """Collects HANDLED. Only in a main thread."""

    def __init__(self) -> None:
        self.socket, self._entrance = socket.socketpair()
        self.socket.setblocking(False)
        self._entrance.setblocking(False)
        self.ignored = {number for number in HANDLED if signal.getsignal(number) is signal.SIG_IGN}
        """What was ignored when this process was started: SIGHUP under ``nohup``."""

    def open(self, numbers: Iterable[signal.Signals] = HANDLED) -> None:
        """Collect *numbers* from now on. Signals that were blocked until now arrive."""
        for number in numbers:
            install(number, nothing)
        signal.set_wakeup_fd(self._entrance.fileno(), warn_on_full_buffer=False)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def post(self, number: int) -> None:
        """Act as if the signal *number* had come. From any thread."""
        with contextlib.suppress(OSError):  # full, or closed
            self._entrance.send(bytes([number]))

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
