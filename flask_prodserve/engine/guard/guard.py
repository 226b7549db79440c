"""Checks all connections and requests every half second, and acts on limits that have passed.

Lives here: what is checked when, and for how long at a time. The parts beside this file decide.

All of it runs in the event loop's thread, never in one that runs the app. Times are those of the
server's clock, which tests replace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...clock import Deadline
from ..connection.connection import Connection
from ..connection.table import ConnectionTable
from ..context import EngineContext
from ..dispatch.admission import Admission
from ..dispatch.dispatcher import Dispatcher
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
    """Made once per engine. *slow_request* is SLOW_REQUEST."""

    def __init__(
        self,
        context: EngineContext,
        table: ConnectionTable,
        dispatcher: Dispatcher,
        admission: Admission | None,
        *,
        slow_request: float,
    ) -> None:
        self._table = table
        self._dispatcher = dispatcher
        self._clock = context.clock
        self._unchecked: deque[Connection] = deque()
        self._due: deque[Callable[[], object]] = deque()
        later = self._due.append
        self._client_deadlines = ClientDeadlines(context, later)
        self._request_deadlines = RequestDeadlines(context, table, dispatcher, admission, slow_request=slow_request)
        self._shedding = Shedding(context, table, dispatcher, admission, later)
        self._memory_pressure = MemoryPressure(context, table, later)
        self.health = Health(context, table, dispatcher, admission, self._shedding)
        context.spool.make_room = lambda: dispatcher.soon(self.relieve_spool)

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
            self._unchecked.extend([*self._table.connections.values(), *self._table.orphaned])
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
            self._dispatcher.soon(self._work)

    def _check_one(self, connection: Connection) -> None:
        now = self._clock()
        if connection.connected:
            self._client_deadlines.check(connection, now)
        self._request_deadlines.check(connection, now)
