"""Room in the spool: near MAX_SPOOL, clients are cut that would hold their bytes longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from ..connection.connection import Connection
from ..connection.table import ConnectionTable
from ..context import EngineContext
from ..exchange.reply import SPOOL_FULL
from . import clients

SUPPOSED_SPEED = 1 << 16
"""Bytes a second that a client is supposed to take or send while its speed is unknown."""


class Holder(NamedTuple):
    """A connection with bytes in the spool, of a response or of a request body."""

    connection: Connection
    kept: int
    speed: float | None
    """Bytes a second at which the client moves them, if known."""


def to_cut(holders: Iterable[Holder], excess: int, *, full: bool) -> list[Connection]:
    """Choose the connections to cut, until *excess* bytes are free.

    The first is the one that would hold its bytes longest at its speed, in either direction.
    Clients of unknown speed are cut only if the spool is *full*.
    """
    chosen = []
    candidates = [holder for holder in holders if full or holder.speed is not None]
    for holder in sorted(candidates, key=_seconds_kept, reverse=True):
        if excess <= 0:
            break
        excess -= holder.kept
        chosen.append(holder.connection)
    return chosen


def _seconds_kept(holder: Holder) -> float:
    return holder.kept / max(SUPPOSED_SPEED if holder.speed is None else holder.speed, 1.0)


class MemoryPressure:
    """Frees room in the spool. Calls *later* with the work of cutting a client."""

    def __init__(
        self, context: EngineContext, table: ConnectionTable, later: Callable[[Callable[[], object]], object]
    ) -> None:
        self._spool = context.spool
        self._table = table
        self._limit_events = context.limit_events
        self._clock = context.clock
        self._later = later

    def check(self) -> None:
        """Relieve the spool if it is under pressure."""
        if self._spool.pressed:
            self.relieve()

    def relieve(self) -> None:
        """Choose clients, and have them cut later."""
        now = self._clock()
        holders = [
            Holder(connection, kept, clients.speed(connection, now))
            for connection in self._table.connections.values()
            if (kept := clients.kept(connection))
        ]
        for connection in to_cut(holders, self._spool.excess, full=self._spool.full):
            self._later(partial(self._cut, connection))

    def _cut(self, connection: Connection) -> None:
        """Cut the client, unless room was made meanwhile."""
        if not (connection.connected and clients.kept(connection) and self._spool.excess):
            return
        self._limit_events.count(
            "MAX_SPOOL",
            "cut the slowest clients with the most buffered bytes: reset their responses, rejected their uploads "
            "with 503. Raise MAX_SPOOL if memory and disk allow it",
        )
        if connection.output.kept:
            connection.reset()
        else:
            connection.refuse(SPOOL_FULL)
