"""Balances new connections between the processes that listen together.

The system wakes one process for a connection, always the same if it can (EPOLLEXCLUSIVE), so each
process decides for itself whether it should be woken. A process that has more connections than
another, or no free thread, does not watch the listeners: it *defers accepting*.

Rules, by which no connection is left unaccepted:

1. A process that was woken accepts one connection at least: no other process was woken for it.
2. A process defers accepting only while another one has less to do. The process with the least to
   do never defers.
3. A process that defers checks again after a few milliseconds, and then sees all waiting
   connections, whichever process was woken.
4. If this goes on for DEFER_SECONDS, it accepts for a moment: another process may have died without
   a trace.
"""

from __future__ import annotations

from ...clock import Clock, monotonic
from ...net.loads import Loads
from ..connection.table import ConnectionTable

DEFER_SECONDS = 1.0
"""How long connections are left to other processes, which may not accept them."""

SHORTEST_PAUSE_SECONDS = 0.001
"""The first pause between two checks: in this time another process accepts a dozen connections."""

LONGEST_PAUSE_SECONDS = 0.016
"""The longest pause if nothing changes. A connection may have to wait so long; checking as often
costs a thousandth of a processor.
"""


class Balancer:
    """For the loop's thread only."""

    defers_accepting = False
    """Whether new connections are left to other processes."""

    def __init__(self, loads: Loads, table: ConnectionTable, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._loads = loads
        self._table = table
        self._deferred_at = 0.0
        self._next_check: float | None = None
        self._pause = 0.0

    def remaining(self) -> float | None:
        """Return the seconds until the next check, 0.0 if it is due, None if none is needed."""
        return None if self._next_check is None else max(0.0, self._next_check - self._clock())

    def check(self, *, busy: bool) -> None:
        """Decide whether to defer, and publish the load of this process. *busy*: no thread is free.

        To be called after every change and at least every half second.
        """
        connections = len(self._table)
        # A client would rather wait for a thread than be turned away.
        strain = busy + 2 * self._table.full
        self._loads.publish(connections, strain)
        if not self._loads.crowded(connections, strain):
            self.defers_accepting = False
            self._next_check = None
            return
        now = self._clock()
        if self._next_check is None:
            self._deferred_at = now
            self._defer(now, SHORTEST_PAUSE_SECONDS)
        elif now >= self._next_check:
            if self.defers_accepting and now - self._deferred_at >= DEFER_SECONDS:
                self._deferred_at = now
                self.defers_accepting = False
                self._next_check = now + SHORTEST_PAUSE_SECONDS
            else:
                self._defer(now, min(2 * self._pause, LONGEST_PAUSE_SECONDS))

    def _defer(self, now: float, pause: float) -> None:
        self.defers_accepting = True
        self._pause = pause
        self._next_check = now + pause
