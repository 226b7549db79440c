"""The event loop without epoll: waitress's.

The thread that calls :meth:`PortableLoop.turn` runs it; service threads run the requests. Its cost
grows with the number of connections. It behaves as :class:`~.leadership.Leadership` does.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

from ..connection.connection import Connection
from ..connection.event_loop import Watched
from ..waitress_parts import loop
from .admission import Admission
from .dispatcher import Dispatcher, ServiceThread

_USE_POLL = hasattr(select, "poll")
"""select() cannot watch descriptors above 1023."""


class PortableLoop(Dispatcher):
    """The dispatcher without epoll.

    *shared*: other processes accept from the same listeners. The system wakes all of them, so idle
    ones are quicker, and each accepts one connection at a time.
    """

    def __init__(
        self,
        threads: int,
        max_streams: int,
        admission: Admission | None,
        *,
        shared: bool,
    ) -> None:
        super().__init__(threads, max_streams, admission)
        self._shared = shared
        self._map: dict[int, _Entry] = {}
        self._thread: int | None = None

    @property
    def defers_accepting(self) -> bool:
        return self._shared

    def start(self) -> None:
        self.watch(self._trigger)
        with self._lock:
            self._start_thread(None)  # one at least

    def watch(self, entry: Watched) -> None:
        self._map[entry.descriptor] = _Entry(entry)

    def forget(self, entry: Watched) -> None:
        del self._map[entry.descriptor]

    def update_interest(self, entry: Watched) -> None:
        if threading.get_ident() != self._thread:
            self.wake()

    def submit(self, connection: Connection) -> None:
        assert connection.current is not None
        if connection.current.reply is not None:
            # Later: it submits the request behind it, and that may be any number of such requests.
            self.soon(connection.answer_here)
        elif self._admission is None or self._admission.admit(connection):
            with self._lock:
                self._queue.add(connection)
                self._assign_next()

    def give_way(self) -> None:
        """Nothing: the loop has a thread of its own."""

    def _lead(self, thread: ServiceThread) -> None:
        """Nothing: :meth:`turn` runs the loop."""

    def turn(self, seconds: float) -> None:
        self._thread = threading.get_ident()
        loop(timeout=seconds, use_poll=_USE_POLL, map=self._map, count=1)

    def wake(self) -> None:
        self._trigger.pull_trigger()

    def call(self, function: Callable[[], object]) -> None:
        function()


class _Entry:
    """A watched entry in the form that waitress's loop expects."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self.readable = watched.readable
        self.writable = watched.writable
        self.handle_read_event = watched.handle_read
        self.handle_write_event = watched.handle_write
        self.handle_close = watched.close
        self.handle_error = watched.handle_error

    @property
    def accepting(self) -> bool:
        return self._watched.accepting

    def handle_expt_event(self) -> None:
        """Nothing: urgent data is read with the rest, and errors are reported otherwise."""
