"""What time brings: looks at all connections and requests every second, and cuts what goes beyond a limit.

All of it runs in the loop's thread, never in one that runs the app. Times are those of the server's clock, which tests replace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..clock import Clock
from ..errors import RequestTimedOut
from ..observe.cuts import Cuts
from ..observe.stacks import stack_of
from ..protocol.deadlines import ClientLimits, Phase, overdue
from .adjustments import EngineAdjustments
from .channel import Channel
from .connections import Connections
from .loop import Loop
from .reply import RETRY_AFTER_SECONDS, Reply
from .task import Task

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from ..settings import Settings

logger = logging.getLogger("flask_prodserve.engine")

STREAM_SECONDS = 1.0
"""How long a response may go on before it is a stream."""

SATURATED_SECONDS = 1.0
"""How long requests wait for a thread before it is worth a warning."""

SHED_SECONDS = 2.0
"""How long the server is not ready after it has shed a request."""

STANDING_SHARE = 0.1
"""The part of QUEUE_TIMEOUT that requests may wait where the queue has not been empty for all of it (CoDel, RFC 8289, for requests)."""

STUCK_PER_THREAD = 4
"""Threads that may be given up, for each of THREADS. Beyond, stuck requests keep their places: more threads would be no help."""

_TOO_SLOW = {
    Phase.CONNECTED: "connections on which nothing came are closed",
    Phase.HEAD: "connections are closed whose request head does not arrive",
    Phase.BODY: "connections are closed whose request body arrives too slowly",
    Phase.SENDING: "connections are reset whose client takes the response too slowly",
    Phase.IDLE: "idle connections are closed",
}


class Watchdog:
    """*describe* tells what kind of request a head is, for people. *draining* is set when the server begins to stop."""

    draining = False

    def __init__(
        self,
        connections: Connections,
        loop: Loop,
        settings: Settings,
        adjustments: EngineAdjustments,
        describe: Callable[[RequestHead], str],
    ) -> None:
        self._connections = connections
        self._loop = loop
        self._threads = settings.workers.threads
        self._timeouts = settings.timeouts
        self._slow_request = settings.observe.slow_request
        self._endpoint_of = adjustments.endpoint_of
        self._spool = adjustments.spool
        self._cuts: Cuts = adjustments.cuts
        self._clock: Clock = adjustments.clock
        self._describe = describe
        times = settings.timeouts
        self._limits = ClientLimits(
            header_timeout=times.header_timeout,
            body_timeout=times.body_timeout,
            min_body_rate=times.min_body_rate,
            send_timeout=times.send_timeout,
            min_send_rate=times.min_send_rate,
            keepalive_timeout=times.keepalive_timeout,
        )
        self._queue_empty_at = self._clock()
        self._shed_at = -SHED_SECONDS
        self._shed_at += self._clock()
        self._spool.make_room = lambda: loop.soon(self.relieve_spool)

    def check(self) -> None:
        """Every second."""
        now = self._clock()
        for channel in list(self._connections.channels.values()):
            channel.stop_lingering()
            waiting = channel.waiting(now)
            if waiting is not None and overdue(waiting, self._limits, now) is not None:
                self._cut(channel, now)
            self._check_request(channel, now)
        for channel in list(self._connections.left):
            self._check_request(channel, now)
        self.check_queue()

    def _cut(self, channel: Channel, now: float) -> None:
        """Cut a connection whose client is late, unless it turns out that it is not."""
        channel.catch_up()
        waiting = channel.waiting(now) if channel.connected else None
        setting = overdue(waiting, self._limits, now) if waiting is not None else None
        if waiting is None or setting is None:
            return
        level = {Phase.IDLE: logging.DEBUG, Phase.CONNECTED: logging.INFO}.get(waiting.phase, logging.WARNING)
        self._cuts.count(setting, _TOO_SLOW[waiting.phase], level)
        channel.give_up_waiting(waiting.phase, Reply(408, f"The client took too long ({setting})."))

    # Requests.

    def _check_request(self, channel: Channel, now: float) -> None:
        task = channel.task
        if not isinstance(task, Task):
            return
        if task.streaming_since is not None:
            if now - task.streaming_since > STREAM_SECONDS:
                self._loop.lend(channel)
            return
        if task.response.begun:
            return
        age = now - task.began
        timeout = self._endpoint_of(task.head).limits.timeout
        if timeout is None:
            timeout = self._timeouts.request_timeout
        if timeout and age > timeout:
            self._give_up(channel, task, age)
        elif self._slow_request and age > self._slow_request and not task.slow:
            task.slow = True
            logger.warning(
                "SLOW_REQUEST: %s has been running for %s. It is here:\n%s",
                self._identify(task),
                format_age(age),
                stack_of(task.thread),
            )

    def _give_up(self, channel: Channel, task: Task, age: float) -> None:
        if self._loop.stuck >= STUCK_PER_THREAD * self._threads:
            self._cuts.count(
                "REQUEST_TIMEOUT",
                f"{self._loop.stuck} threads are stuck, and no more are given up; restart the server",
                logging.CRITICAL,
            )
            return
        stack = stack_of(task.thread)
        if not channel.abandon(task, Reply(504, "The app took too long.")):
            return
        self._connections.left.discard(channel)
        if task.interruptible is not None:
            task.interruptible.interrupt(RequestTimedOut)
        self._loop.abandoned(channel)
        self._cuts.counts["REQUEST_TIMEOUT"] += 1
        logger.error(
            "REQUEST_TIMEOUT: %s has been running for %s, and got 504. Another thread takes the place of this one, which is here:\n%s",
            self._identify(task),
            format_age(age),
            stack,
        )

    def _identify(self, task: Task) -> str:
        request_id = task.head.fields.get("HTTP_X_REQUEST_ID")
        kind = printable(self._describe(task.head))
        return f"{kind} (X-Request-ID {printable(request_id)})" if request_id else kind

    # The queue.

    def check_queue(self) -> None:
        """More often than every second, while requests wait."""
        now = self._clock()
        waiting: list[float] = []
        standing = now - self._queue_empty_at > self._timeouts.queue_timeout
        # A standing queue is cut down to what keeps the threads busy.
        spared = self._threads
        behind = self._loop.queued

        def is_overdue(channel: Channel) -> bool:
            nonlocal behind
            behind -= 1
            waited = now - channel.queued_at
            waiting.append(waited)
            if not channel.connected or (waited > SATURATED_SECONDS and channel.check_client_disconnected()):
                return True
            limit = self._queue_timeout(channel)
            return waited > limit or (standing and behind >= spared and waited > limit * STANDING_SHARE)

        withdrawn = self._loop.withdraw(is_overdue)
        if not waiting:
            self._queue_empty_at = now
            return
        if max(waiting) > SATURATED_SECONDS:
            self._warn(now, waiting)
        for channel in withdrawn:
            self._shed(channel, now)

    def _queue_timeout(self, channel: Channel) -> float:
        head = channel.requests[0].head
        own = self._endpoint_of(head).limits.queue_timeout if head is not None else None
        return self._timeouts.queue_timeout if own is None else own

    def _shed(self, channel: Channel, now: float) -> None:
        if not channel.connected:
            channel.forget_request()
        elif channel.check_client_disconnected():
            channel.handle_close()
            channel.forget_request()
        else:
            self._shed_at = now
            self._cuts.counts["QUEUE_TIMEOUT"] += 1
            text = "The server has more to do than it can."
            channel.refuse(Reply(503, text, closes=False, retry_after=RETRY_AFTER_SECONDS))

    def _warn(self, now: float, waiting: list[float]) -> None:
        """Say who holds the threads."""
        shed = self._cuts.counts["QUEUE_TIMEOUT"]
        ages: dict[str, list[float]] = {}
        for channel in [*self._connections.channels.values(), *self._connections.left]:
            if isinstance(task := channel.task, Task):
                ages.setdefault(self._describe(task.head), []).append(now - task.began)
        holders = sorted(ages.items(), key=lambda entry: -len(entry[1]))
        self._cuts.count(
            "THREADS",
            f"all {self._threads} are busy: for {format_age(now - self._queue_empty_at)} requests have been waiting, "
            f"now {len(waiting)} of them, the longest for {format_age(max(waiting))} "
            f"({shed} got 503 by QUEUE_TIMEOUT so far). Running: "
            + ", ".join(
                f"{len(of_one)} x {printable(kind)} (oldest {format_age(max(of_one))})" for kind, of_one in holders
            )
            + ". Make these faster, bound them with limits(max_concurrency=), or raise THREADS",
        )

    # What is kept.

    def relieve_spool(self) -> None:
        """Much is kept for clients: cut those that take it most slowly."""
        now = self._clock()
        for channel in self._slowest(now):
            excess = self._spool.excess
            if not excess:
                break
            self._cuts.count("MAX_SPOOL", "much is kept for slow clients; the slowest takers of responses are reset")
            channel.reset()
        self._spool.relieved()

    def _slowest(self, now: float) -> list[Channel]:
        """Those for which something is kept, the slowest first; where nothing is known of their speed, those with most."""

        def slowness(channel: Channel) -> tuple[float, int]:
            waiting = channel.waiting(now)
            assert waiting is not None
            measured = now - waiting.began >= 1
            return (waiting.rate(now) if measured else 0.0, -channel.output.kept)

        return sorted((channel for channel in self._connections.channels.values() if channel.output.kept), key=slowness)

    # What others want to know.

    @property
    def healthy(self) -> bool:
        """Whether at most half as many threads are stuck as there should be."""
        return self._loop.stuck <= self._threads / 2

    def liveness(self) -> Reply:
        return Reply(200, "This server is alive.", closes=False)

    def readiness(self) -> Reply:
        if self.draining:
            return Reply(503, "This server is stopping.", closes=False)
        if self._clock() - self._shed_at < SHED_SECONDS:
            return Reply(503, "This server has more to do than it can.", closes=False)
        if not self.healthy:
            return Reply(503, "Too many requests are stuck in this server.", closes=False)
        return Reply(200, "This server is ready.", closes=False)


def format_age(seconds: float) -> str:
    return f"{seconds:.1f}s"


def printable(text: str) -> str:
    """*text* of a client's for one line of a log."""
    return text.encode("unicode_escape").decode("ascii")
