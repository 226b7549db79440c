"""Clients that are late in their phase: sending a request, taking a response, idle.

Lives here: what happens to them. When a client is late is decided by ``protocol.deadlines``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ...clock import Clock
from ...observe.cuts import Cuts
from ...protocol.deadlines import Phase, overdue
from ...settings.table import Timeouts
from ..channel import Channel
from ..reply import Reply

_LINES = {
    Phase.CONNECTED: (logging.INFO, "closed connections that sent nothing in time"),
    Phase.HEAD: (logging.WARNING, "closed connections that sent no complete request head in time"),
    Phase.BODY: (logging.WARNING, "closed connections that sent their request body too slowly"),
    Phase.SENDING: (logging.WARNING, "reset connections that took their response too slowly"),
    Phase.FLUSHING: (
        logging.WARNING,
        "reset connections that did not acknowledge the end of their response",
    ),
    Phase.IDLE: (logging.DEBUG, "closed idle connections"),
}


class ClientDeadlines:
    """Calls *later* with the work of cutting a late client."""

    def __init__(
        self, timeouts: Timeouts, cuts: Cuts, clock: Clock, later: Callable[[Callable[[], object]], object]
    ) -> None:
        self._timeouts = timeouts
        self._cuts = cuts
        self._clock = clock
        self._later = later

    def check(self, channel: Channel, now: float) -> None:
        """Measure the progress of an open connection, and cut its client later if it is late."""
        waiting = channel.waiting(now)
        channel.stop_lingering()
        if waiting is not None and overdue(waiting, self._timeouts, now) is not None:
            self._later(partial(self._cut, channel))

    def _cut(self, channel: Channel) -> None:
        """Cut the client, unless it turns out that the server was late to read what it had sent."""
        if channel.connected:
            channel.catch_up()
        now = self._clock()
        waiting = channel.waiting(now) if channel.connected else None
        setting = overdue(waiting, self._timeouts, now) if waiting is not None else None
        if waiting is None or setting is None:
            return
        level, line = _LINES[waiting.phase]
        self._cuts.count(setting, line, level)
        channel.give_up_waiting(waiting.phase, Reply(408, f"The client took too long ({setting})."))
