"""Checks all connections and requests every half second, and acts on limits that have passed.

Lives here: what is checked when, and for how long at a time. The parts beside this file decide.

All of it runs in the event loop's thread, never in one that runs the app. Times are those of the
server's clock, which tests replace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...clock import Clock, Deadline
from ...observe.cuts import Cuts
from ...protocol.request_head import RequestHead
from ...settings.endpoint_limits import Endpoint
from ...settings.table import Timeouts
from ..admission import Admission
from ..channel import Channel
from ..connections import Connections
from ..loop import Loop
from ..spool import Spool
from .client_deadlines import ClientDeadlines
from .health import Health
from .memory_pressure import MemoryPressure
from .request_deadlines import RequestDeadlines
from .shedding import Shedding

WORK_SECONDS = 0.001
"""How long connections are checked, and clients cut or answered, before the event loop goes on.

So thousands of them together delay no one else.
"""


class Guard:
    """Made once per engine. *slow_request* is SLOW_REQUEST.

    *endpoint_of* tells the endpoint of a request, *describe* names its kind for the log.
    """

    def __init__(
        self,
        connections: Connections,
        loop: Loop,
        admission: Admission | None,
        spool: Spool,
        *,
        threads: int,
        timeouts: Timeouts,
        slow_request: float,
        endpoint_of: Callable[[RequestHead], Endpoint],
        describe: Callable[[RequestHead], str],
        cuts: Cuts,
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._loop = loop
        self._clock = clock
        self._unchecked: deque[Channel] = deque()
        self._due: deque[Callable[[], object]] = deque()
        later = self._due.append
        channels = connections.channels.values
        self._client_deadlines = ClientDeadlines(timeouts, cuts, clock, later)
        self._request_deadlines = RequestDeadlines(
            loop,
            threads,
            timeout=timeouts.request_timeout,
            slow_request=slow_request,
            endpoint_of=endpoint_of,
            describe=describe,
            discard_orphan=connections.left.discard,
            cuts=cuts,
        )
        self._shedding = Shedding(
            loop,
            admission,
            threads,
            queue_timeout=timeouts.queue_timeout,
            endpoint_of=endpoint_of,
            describe=describe,
            channels=channels,
            orphans=connections.left,
            cuts=cuts,
            clock=clock,
            later=later,
        )
        self._memory_pressure = MemoryPressure(spool, channels, cuts, clock, later)
        self.health = Health(loop, admission, threads, connections, self._shedding, clock)
        spool.make_room = lambda: loop.soon(self.relieve_spool)

    @property
    def queued(self) -> int:
        """How many requests wait for a thread, or for others of their endpoint."""
        return self._shedding.queued

    @property
    def has_work(self) -> bool:
        """Whether a check has left work for later."""
        return bool(self._due or self._unchecked)

    def check(self) -> None:
        """Check everything. Every half second."""
        if not self._unchecked:
            self._unchecked.extend([*self._connections.channels.values(), *self._connections.left])
        self._memory_pressure.check()
        self.check_queues()

    def check_queues(self) -> None:
        """Check the queues. More often than every half second while requests wait."""
        self._shedding.check()
        self._work()

    def relieve_spool(self) -> None:
        """Free room in the spool, which has reached its limit or nears it."""
        self._memory_pressure.relieve()
        self._work()

    def _work(self) -> None:
        """Work for WORK_SECONDS, and leave the rest for later."""
        enough = Deadline(WORK_SECONDS)
        while self.has_work and not enough.passed():
            if self._due:
                self._due.popleft()()
            else:
                self._check_one(self._unchecked.popleft())
        if self.has_work:
            self._loop.soon(self._work)

    def _check_one(self, channel: Channel) -> None:
        now = self._clock()
        if channel.connected:
            self._client_deadlines.check(channel, now)
        self._request_deadlines.check(channel, now)
