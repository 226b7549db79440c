"""The event loop without epoll: waitress's.

The thread that calls :meth:`PortableLoop.turn` runs it; service threads run the requests. Its cost grows with the number of connections.
It behaves as :class:`~.leadership.Leadership` does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from waitress import wasyncore

from ..channel import Channel
from .admission import Admission
from .dispatcher import Dispatcher, ServiceThread


class PortableLoop(Dispatcher):
    """The dispatcher without epoll.

    *shared*: other processes accept from the same listeners. The system wakes all of them, so idle ones are quicker, and each accepts one
    connection at a time.
    """

    def __init__(
        self,
        threads: int,
        max_streams: int,
        map: dict[int, Any],
        admission: Admission | None,
        *,
        shared: bool,
        use_poll: bool,
    ) -> None:
        super().__init__(threads, max_streams, map, admission)
        self._shared = shared
        self._use_poll = use_poll
        self._thread: int | None = None

    @property
    def defers_accepting(self) -> bool:
        return self._shared

    def start(self) -> None:
        with self._lock:
            self._start_thread(None)  # one at least

    def watch(self, entry: Any) -> None:
        """Nothing: each turn looks through the whole map."""

    forget = watch

    def update_interest(self, entry: Any) -> None:
        if threading.get_ident() != self._thread:
            self.wake()

    def submit(self, channel: Channel) -> None:
        if channel.requests[0].reply is not None:
            # Later: it submits the request behind it, and that may be any number of such requests.
            self.soon(channel.answer_here)
        elif self._admission is None or self._admission.admit(channel):
            with self._lock:
                self._queue.add(channel)
                self._assign_next()

    def give_way(self) -> None:
        """Nothing: the loop has a thread of its own."""

    def _lead(self, thread: ServiceThread) -> None:
        """Nothing: :meth:`turn` runs the loop."""

    def turn(self, seconds: float) -> None:
        self._thread = threading.get_ident()
        wasyncore.loop(timeout=seconds, use_poll=self._use_poll, map=self._map, count=1)

    def wake(self) -> None:
        self._trigger.pull_trigger()

    def call(self, function: Callable[[], object]) -> None:
        function()
