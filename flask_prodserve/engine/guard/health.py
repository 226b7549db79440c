"""How the process is: for load balancers, for the supervisor, and for metrics."""

from __future__ import annotations

from ...observe.events import Activity
from ..connection.table import ConnectionTable
from ..context import EngineContext
from ..dispatch.admission import Admission
from ..dispatch.dispatcher import Dispatcher
from ..exchange.reply import Reply
from ..exchange.task import Task
from .shedding import Shedding

SHED_SECONDS = 2.0
"""How long the server is not ready after QUEUE_TIMEOUT has shed a request."""


class Health:
    draining = False
    """Set when the server begins to stop."""

    def __init__(
        self,
        context: EngineContext,
        table: ConnectionTable,
        dispatcher: Dispatcher,
        admission: Admission | None,
        shedding: Shedding,
    ) -> None:
        self._threads = context.threads
        self._clock = context.clock
        self._table = table
        self._dispatcher = dispatcher
        self._admission = admission
        self._shedding = shedding

    @property
    def healthy(self) -> bool:
        """Whether the process should go on.

        If not, too many threads are stuck, or stuck requests block an endpoint. A restart helps.
        """
        return not (self._too_many_stuck or (self._admission is not None and self._admission.blocked))

    @property
    def _too_many_stuck(self) -> bool:
        return self._dispatcher.stuck > self._threads / 2

    def activity(self) -> Activity:
        """Return what goes on at this moment. From the event loop's thread."""
        connections = [*self._table.connections.values(), *self._table.orphaned]
        return Activity(
            served=self._table.answered,
            connections=len(self._table),
            busy=sum(isinstance(connection.task, Task) for connection in connections),
            queued=self._shedding.queued,
            stuck=self._dispatcher.stuck,
            healthy=self.healthy,
        )

    def liveness(self) -> Reply:
        """Answer LIVENESS_PATH."""
        return Reply(200, "This server is alive.", closes=False)

    def readiness(self) -> Reply:
        """Answer READINESS_PATH: 503 if the server should get no requests."""
        shed_at = self._shedding.shed_at
        if self.draining:
            return Reply(503, "This server is stopping.", closes=False)
        if shed_at is not None and self._clock() - shed_at < SHED_SECONDS:
            return Reply(503, "This server is overloaded.", closes=False)
        if self._too_many_stuck:
            return Reply(503, "Too many requests are stuck in this server.", closes=False)
        return Reply(200, "This server is ready.", closes=False)
