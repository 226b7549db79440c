"""The supervisor's loop: whatever wakes it appends a *step*, and the steps run one after the other.

A step is a generator of events. Each event is executed before its step goes on, so a step always
sees the state after its own events. Callbacks only append steps, so the code that executes the
events, and forks, is called by nothing but the supervisor's ``run``.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterator

from .events import Event

Step = Iterator[Event]


class StepLoop:
    """Waits for sockets, and yields events. One thread."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        """What is registered has a function without arguments as its data, which is called when the
        socket is ready.
        """
        self._steps: deque[Step] = deque()

    def append(self, step: Step) -> None:
        """Run *step* after all those before it."""
        self._steps.append(step)

    def watch(self, sock: socket.socket, step: Callable[[], Step]) -> None:
        """Run *step* whenever *sock* can be read."""
        self.selector.register(sock, selectors.EVENT_READ, lambda: self.append(step()))

    def unwatch(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)

    def events(self) -> Iterator[Event]:
        """Run all steps, and yield their events."""
        while self._steps:
            yield from self._steps.popleft()

    def wait(self, timeout: float | None) -> None:
        """Wait until something is ready, or for *timeout* seconds, and append its steps."""
        for key, _ in self.selector.select(timeout):
            key.data()
