"""Which of the processes that listen together takes a new connection.

The system wakes one process for a connection, always the same if it can (EPOLLEXCLUSIVE), so that each decides for itself whether it
should be woken. One that has more connections than another, or whose threads are all busy, does not watch the listeners.

Rules, by which no connection is left lying:

1. A process that has been woken takes one connection at least: nobody else has been woken for it.
2. Connections are left to others only while one of these has less to do. The one with the least leaves none.
3. A process that leaves connections looks again after a few milliseconds, and then sees all that are waiting, whoever was woken.
4. If this goes on for LEAVE_SECONDS, it takes what is waiting for a moment: somebody may have stopped without a word.
"""

from __future__ import annotations

from ...clock import Clock, monotonic
from ...net.loads import Loads
from ..connections import Connections

LEAVE_SECONDS = 1.0
"""How long connections are left to others, who may not take them."""

SHORTEST_PAUSE_SECONDS = 0.001
"""After how long it looks again: in this time another process accepts a dozen connections."""

LONGEST_PAUSE_SECONDS = 0.016
"""The same where nothing changes. What a connection may have to wait; looking as often costs a thousandth of a processor."""


class Balancer:
    """For the loop's thread only."""

    defers_accepting = False
    """Whether new connections are left to others."""

    def __init__(self, loads: Loads, connections: Connections, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._loads = loads
        self._connections = connections
        self._left_at = 0.0
        self._look_at: float | None = None
        self._pause = 0.0

    def remaining(self) -> float | None:
        """Seconds until it is time to look again, 0.0 if it is; None where nothing has to be looked for."""
        return None if self._look_at is None else max(0.0, self._look_at - self._clock())

    def check(self, *, busy: bool) -> None:
        """Decide, and tell the others what there is here. *busy*: no thread is free.

        To be called after every change and at least every half second.
        """
        connections = len(self._connections)
        strain = busy + 2 * self._connections.full  # to wait for a thread is better than to be turned away
        self._loads.publish(connections, strain)
        if not self._loads.crowded(connections, strain):
            self.defers_accepting = False
            self._look_at = None
            return
        now = self._clock()
        if self._look_at is None:
            self._left_at = now
            self._leave(now, SHORTEST_PAUSE_SECONDS)
        elif now >= self._look_at:
            if self.defers_accepting and now - self._left_at >= LEAVE_SECONDS:
                self._left_at = now
                self.defers_accepting = False
                self._look_at = now + SHORTEST_PAUSE_SECONDS
            else:
                self._leave(now, min(2 * self._pause, LONGEST_PAUSE_SECONDS))

    def _leave(self, now: float, pause: float) -> None:
        self.defers_accepting = True
        self._pause = pause
        self._look_at = now + pause
