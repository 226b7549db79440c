"""Clients that are late in their phase: sending a request, taking a response, idle.

Lives here: what happens to them. When a client is late is decided by ``protocol.deadlines``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ...protocol.deadlines import Phase, overdue
from ..connection.connection import Connection
from ..context import EngineContext
from ..exchange.reply import Reply
from . import clients

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

    def __init__(self, context: EngineContext, later: Callable[[Callable[[], object]], object]) -> None:
        self._timeouts = context.timeouts
        self._limit_events = context.limit_events
        self._clock = context.clock
        self._later = later

    def check(self, connection: Connection, now: float) -> None:
        """Measure the progress of an open connection, and cut its client later if it is late."""
        waiting = clients.waiting(connection, now)
        connection.stop_lingering()
        if waiting is not None and overdue(waiting, self._timeouts, now) is not None:
            self._later(partial(self._cut, connection))

    def _cut(self, connection: Connection) -> None:
        """Cut the client, unless it turns out that the server was late to read what it had sent."""
        if connection.connected:
            _catch_up(connection)
        now = self._clock()
        waiting = clients.waiting(connection, now) if connection.connected else None
        setting = overdue(waiting, self._timeouts, now) if waiting is not None else None
        if waiting is None or setting is None:
            return
        level, line = _LINES[waiting.phase]
        self._limit_events.count(setting, line, level)
        if waiting.phase in (Phase.HEAD, Phase.BODY):
            connection.refuse(Reply(408, f"The client took too long ({setting})."))
        elif waiting.phase in (Phase.SENDING, Phase.FLUSHING):
            connection.reset()
        else:
            connection.end()


def _catch_up(connection: Connection) -> None:
    """Use the socket before the client is called late: the event loop may be late itself."""
    if connection.progress.takes or connection.transport.waits:
        connection.handle_write()
    else:
        connection.handle_read()
