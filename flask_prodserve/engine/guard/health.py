"""How the process is: for load balancers, for the supervisor, and for metrics."""

from __future__ import annotations

from ...clock import Clock
from ...observe.events import Activity
from ..admission import Admission
from ..connections import Connections
from ..loop import Loop
from ..reply import Reply
from ..task import Task
from .shedding import Shedding

SHED_SECONDS = 2.0
"""How long the server is not ready after QUEUE_TIMEOUT has shed a request."""


class Health:
    draining = False
    """Set when the server begins to stop."""

    def __init__(
        self,
        loop: Loop,
        admission: Admission | None,
        threads: int,
        connections: Connections,
        shedding: Shedding,
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._admission = admission
        self._threads = threads
        self._connections = connections
        self._shedding = shedding
        self._clock = clock

    @property
    def healthy(self) -> bool:
        """Whether the process should go on.

        If not, too many threads are stuck, or stuck requests block an endpoint. A restart helps.
        """
        return not (self._too_many_stuck or (self._admission is not None and self._admission.blocked))

    @property
    def _too_many_stuck(self) -> bool:
        return self._loop.stuck > self._threads / 2

    def activity(self) -> Activity:
        """Return what goes on at this moment. From the event loop's thread."""
        channels = [*self._connections.channels.values(), *self._connections.left]
        return Activity(
            served=self._connections.answered,
            connections=len(self._connections),
            busy=sum(isinstance(channel.task, Task) for channel in channels),
            queued=self._shedding.queued,
            stuck=self._loop.stuck,
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
