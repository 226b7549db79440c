"""More requests than threads: QUEUE_TIMEOUT, ``queue_timeout``, and log lines about the threads.

Lives here: which queued requests are shed, and which slow readers are reset to free their threads.
A shed request gets 503 and never reaches the app. A queue that has not been empty for QUEUE_TIMEOUT
is *standing*: requests may then wait for a tenth of that, so that the rest are served soon, instead
of all of them late (CoDel, RFC 8289, for requests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ...observe.printable import printable_ascii
from ..connection.connection import Connection
from ..connection.table import ConnectionTable
from ..context import EngineContext
from ..dispatch.admission import Admission
from ..dispatch.dispatcher import Dispatcher
from ..exchange.reply import RETRY_AFTER_SECONDS, Reply
from ..exchange.task import Task
from . import clients
from .request_deadlines import STREAM_SECONDS

GONE_SECONDS = 1.0
"""A request that has waited for this long is dropped if its client has shut down its sending side:
most clients that do so have closed.
"""

SATURATED_SECONDS = 1.0
"""How long a request waits for a thread before the log has a warning."""

UNSEEN_SECONDS = 2.0
"""How long the queue has not been empty before the log says that no request is running: at a single
check all threads may be between two requests.
"""

STANDING_SHARE = 0.1
"""The part of its timeout that a request may wait in a standing queue."""

_LINES = {
    "QUEUE_TIMEOUT": "answered 503 to requests that waited too long for a thread",
    "max_concurrency": "answered 503 to requests that waited too long for others of their endpoint",
}


class Stream(NamedTuple):
    """A response that has been streaming for long enough to have been moved to MAX_STREAMS."""

    connection: Connection
    is_moved: bool
    """Whether it was."""
    holds_thread: bool
    """Whether its thread waits until the client takes something."""
    speed: float
    """Bytes a second that the client takes."""


def share_of_timeout(*, standing: bool, behind: int, threads: int) -> float:
    """Return the part of its timeout that a request may wait with *behind* others queued behind it.

    In a standing queue, as many requests stay as keep the *threads* busy.
    """
    return STANDING_SHARE if standing and behind >= threads else 1.0


def to_reset(streams: Sequence[Stream], waiting: int) -> list[Connection]:
    """Choose the slowest readers that hold threads: one for each stream beyond MAX_STREAMS.

    Chooses no more than there are requests *waiting* for a thread.
    """
    excess = min(waiting, sum(not stream.is_moved for stream in streams))
    holders = sorted((stream for stream in streams if stream.holds_thread), key=lambda stream: stream.speed)
    return [stream.connection for stream in holders[:excess]]


def describe_load(
    waiting: Sequence[float],
    running: Mapping[str, Sequence[float]],
    *,
    threads: int,
    not_empty: float,
    shed: int,
) -> str:
    """Return the log line on requests that have been *waiting* for so many seconds each.

    *running*: the ages in seconds of running requests, by kind. *not_empty*: seconds since the
    queue was last empty. *shed*: how many requests QUEUE_TIMEOUT has shed since the start.
    """
    if running:
        kinds = ", ".join(
            f"{len(ages)} x {printable_ascii(kind)} (oldest {max(ages):.1f}s)"
            for kind, ages in sorted(running.items(), key=lambda entry: -len(entry[1]))
        )
        cause = f"Running: {kinds}. Make these faster, limit them with limits(max_concurrency=), or raise THREADS"
    else:
        cause = (
            "No request is running at this moment, so they wait for CPU time. Make views compute less, or raise WORKERS"
        )
    requests = "1 request is" if len(waiting) == 1 else f"{len(waiting)} requests are"
    return (
        f"{requests} waiting for one of {threads} threads, the longest for {max(waiting):.1f}s. "
        f"The queue has not been empty for {not_empty:.1f}s; QUEUE_TIMEOUT has rejected {shed} requests. {cause}"
    )


class Shedding:
    """Checks the queues. Calls *later* with the work of answering a request that is shed."""

    shed_at: float | None = None
    """When QUEUE_TIMEOUT last shed a request."""

    def __init__(
        self,
        context: EngineContext,
        table: ConnectionTable,
        dispatcher: Dispatcher,
        admission: Admission | None,
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self._threads = context.threads
        self._queue_timeout = context.timeouts.queue_timeout
        self._limit_events = context.limit_events
        self._clock = context.clock
        self._table = table
        self._dispatcher = dispatcher
        self._admission = admission
        self._later = later
        self._empty_at = context.clock()

    @property
    def queued(self) -> int:
        """How many requests wait for a thread, or for others of their endpoint."""
        return self._dispatcher.queued + (0 if self._admission is None else self._admission.queued)

    def check(self) -> None:
        """Take requests that waited too long out of the queues, and have them answered later."""
        now = self._clock()
        if self._admission is not None:
            for connection in self._admission.withdraw(lambda connection: self._waits_in_vain(connection, now)):
                self._later(partial(self._shed, connection, "max_concurrency"))
        self._check_queue(now)

    def _check_queue(self, now: float) -> None:
        waiting: list[float] = []
        behind = self._dispatcher.queued
        standing = now - self._empty_at > self._queue_timeout

        def is_overdue(connection: Connection) -> bool:
            nonlocal behind
            behind -= 1
            waiting.append(clients.queued_for(connection, now))
            share = share_of_timeout(standing=standing, behind=behind, threads=self._threads)
            return self._waits_in_vain(connection, now, share)

        withdrawn = self._dispatcher.withdraw(is_overdue)
        for connection in withdrawn:
            self._later(partial(self._shed, connection, "QUEUE_TIMEOUT"))
        if not waiting:
            self._empty_at = now
        elif withdrawn or max(waiting) > SATURATED_SECONDS:
            self._warn(now, waiting)
            self._free_threads(now, len(waiting))

    def _waits_in_vain(self, connection: Connection, now: float, share: float = 1.0) -> bool:
        """Tell whether a request has waited for *share* of its timeout, or its client has gone."""
        if not connection.connected:
            return True
        request = connection.current
        assert request is not None
        if request.reply is not None:
            # It is refused already, and waits for nothing. The end of its body may be unknown, so
            # a 503 that keeps the connection open would be wrong.
            return False
        waited = clients.queued_for(connection, now)
        limit = request.limits.queue_timeout
        if limit is None:
            limit = self._queue_timeout
        return waited > limit * share or (waited > GONE_SECONDS and connection.check_client_disconnected())

    def _shed(self, connection: Connection, reason: str) -> None:
        """Answer 503 to a request that was taken out of its queue, if its client is still there."""
        if connection.connected and connection.check_client_disconnected():
            connection.close()
        if not connection.connected:
            self._limit_events.counts["client left"] += 1
            connection.forget_request()
            return
        if reason == "QUEUE_TIMEOUT":
            self.shed_at = self._clock()
        self._limit_events.count(reason, _LINES[reason])
        connection.refuse(Reply(503, "The server is overloaded.", closes=False, retry_after=RETRY_AFTER_SECONDS))

    def _warn(self, now: float, waiting: Sequence[float]) -> None:
        running: dict[str, list[float]] = {}
        for connection in [*self._table.connections.values(), *self._table.orphaned]:
            if isinstance(task := connection.task, Task):
                running.setdefault(task.request.route.kind, []).append(now - task.began)
        not_empty = now - self._empty_at
        if not running and not_empty < UNSEEN_SECONDS:
            return  # the next check sees more
        shed = self._limit_events.counts["QUEUE_TIMEOUT"]
        line = describe_load(waiting, running, threads=self._threads, not_empty=not_empty, shed=shed)
        self._limit_events.count("THREADS", line)

    def _free_threads(self, now: float, waiting: int) -> None:
        """Reset slow readers: requests are *waiting* for threads that wait for these clients."""
        streams = [
            Stream(
                connection,
                self._dispatcher.is_stream(connection),
                clients.holds_thread(connection),
                clients.speed(connection, now) or 0.0,
            )
            for connection in self._table.connections.values()
            if _has_streamed(connection, now)
        ]
        for connection in to_reset(streams, waiting):
            self._limit_events.count(
                "MAX_STREAMS", "reset the slowest readers of long responses, to free threads for waiting requests"
            )
            connection.reset()


def _has_streamed(connection: Connection, now: float) -> bool:
    """Tell whether *connection* has streamed for long enough to have been moved to MAX_STREAMS."""
    task = connection.task
    since = task.streaming_since if isinstance(task, Task) else None
    return since is not None and now - since > 2 * STREAM_SECONDS
