"""What time brings: looks at all connections and requests every half second, and cuts what goes beyond a limit.

All of it runs in the loop's thread, never in one that runs the app. Times are those of the server's clock, which tests replace.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..clock import Clock, Deadline
from ..errors import RequestTimedOut
from ..observe.cuts import Cuts
from ..observe.events import Activity
from ..observe.stacks import stack_of
from ..protocol.deadlines import Phase, overdue
from .adjustments import EngineAdjustments
from .channel import Channel
from .connections import Connections
from .dispatch.admission import Admission
from .dispatch.dispatcher import Dispatcher
from .reply import RETRY_AFTER_SECONDS, SPOOL_FULL, Reply
from .task import Task

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from ..settings import Settings

logger = logging.getLogger("flask_prodserve.engine")

STREAM_SECONDS = 1.0
"""How long a response may go on before it is a stream."""

GONE_SECONDS = 1.0
"""How long a request waits before it is dropped when its client has shut down its sending side: most who do that have closed."""

SATURATED_SECONDS = 1.0
"""How long requests wait for a thread before it is worth a warning."""

UNSEEN_SECONDS = 2.0
"""How long requests wait before none is said to run: all threads may be between two of them when they are looked at."""

SUPPOSED_SPEED = 1 << 16
"""Bytes a second that a client is supposed to take or send as long as nothing is known of it."""

SHED_SECONDS = 2.0
"""How long the server is not ready after it has shed a request."""

STANDING_SHARE = 0.1
"""The part of QUEUE_TIMEOUT that requests may wait where the queue has not been empty for all of it (CoDel, RFC 8289, for requests)."""

STUCK_PER_THREAD = 4
"""Threads that may be given up, for each of THREADS. Beyond, stuck requests keep their places: more threads would be no help."""

WORK_SECONDS = 0.001
"""How long connections are looked at and cut, and requests answered, before others get their turn: thousands together stall nobody."""

_TOO_SLOW = {
    Phase.CONNECTED: "connections on which nothing came are closed",
    Phase.HEAD: "connections are closed whose request head does not arrive",
    Phase.BODY: "connections are closed whose request body arrives too slowly",
    Phase.SENDING: "connections are reset whose client takes the response too slowly",
    Phase.FLUSHING: "connections are reset whose client does not take the end of the response",
    Phase.IDLE: "idle connections are closed",
}

_SHED = {
    "QUEUE_TIMEOUT": "requests get 503 that waited for too long for a thread",
    "max_concurrency": "requests get 503 that waited for too long for others of their endpoint",
}


class Watchdog:
    """*describe* tells what kind of request a head is, for people. *draining* is set when the server begins to stop."""

    draining = False

    def __init__(
        self,
        connections: Connections,
        loop: Dispatcher,
        admission: Admission | None,
        settings: Settings,
        adjustments: EngineAdjustments,
        describe: Callable[[RequestHead], str],
    ) -> None:
        self._connections = connections
        self._loop = loop
        self._admission = admission
        self._threads = settings.workers.threads
        self._timeouts = settings.timeouts
        self._slow_request = settings.observe.slow_request
        self._endpoint_of = adjustments.endpoint_of
        self._spool = adjustments.spool
        self._cuts: Cuts = adjustments.cuts
        self._clock: Clock = adjustments.clock
        self._describe = describe
        self._queue_empty_at = self._clock()
        self._shed_at = self._queue_empty_at - SHED_SECONDS
        self._unseen: deque[Channel] = deque()
        self._due: deque[Callable[[], object]] = deque()
        self._spool.make_room = lambda: loop.soon(self.relieve_spool)

    def check(self) -> None:
        """Every half second."""
        if not self._unseen:
            self._unseen.extend([*self._connections.channels.values(), *self._connections.left])
        if self._spool.pressed:
            self.relieve_spool()
        self.check_queues()

    def _work(self) -> None:
        """Do some of what there is to do, and leave the rest for later."""
        enough = Deadline(WORK_SECONDS)
        while self.at_work and not enough.passed():
            if self._due:
                self._due.popleft()()
            else:
                self._look_at(self._unseen.popleft())
        if self.at_work:
            self._loop.soon(self._work)

    @property
    def at_work(self) -> bool:
        """Whether something is left for later."""
        return bool(self._due or self._unseen)

    def _look_at(self, channel: Channel) -> None:
        now = self._clock()
        if channel.connected:
            waiting = channel.waiting(now)
            channel.stop_lingering()
            if waiting is not None and overdue(waiting, self._timeouts, now) is not None:
                self._due.append(partial(self._cut, channel))
        self._check_request(channel, now)

    def _cut(self, channel: Channel) -> None:
        """Cut a connection whose client is late, unless it turns out that it is not."""
        if channel.connected:
            channel.catch_up()
        now = self._clock()
        waiting = channel.waiting(now) if channel.connected else None
        setting = overdue(waiting, self._timeouts, now) if waiting is not None else None
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
                self._loop.move_to_stream_budget(channel)
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
            "REQUEST_TIMEOUT: %s has been running for %s; its client %s. Another thread takes the place of this one%s, which is here:\n%s",
            self._identify(task),
            format_age(age),
            "got 504" if channel.connected else "has gone",
            " (it counts for max_concurrency until it ends)"
            if self._admission is not None and self._admission.counts(channel)
            else "",
            stack,
        )

    def _identify(self, task: Task) -> str:
        request_id = task.head.fields.get("HTTP_X_REQUEST_ID")
        kind = printable(self._describe(task.head))
        return f"{kind} (X-Request-ID {printable(request_id)})" if request_id else kind

    # The queues.

    @property
    def queued(self) -> int:
        """How many requests wait for a thread, or for others of their endpoint."""
        return self._loop.queued + (0 if self._admission is None else self._admission.queued)

    def check_queues(self) -> None:
        """More often than every half second, while requests wait."""
        now = self._clock()
        if self._admission is not None:
            for channel in self._admission.withdraw(lambda channel: self._waits_in_vain(channel, now)):
                self._due.append(partial(self._shed, channel, "max_concurrency"))
        self._check_queue(now)
        self._work()

    def _check_queue(self, now: float) -> None:
        waiting: list[float] = []
        behind = self._loop.queued
        standing = now - self._queue_empty_at > self._timeouts.queue_timeout

        def is_overdue(channel: Channel) -> bool:
            nonlocal behind
            behind -= 1
            waited = channel.queued_for(now)
            waiting.append(waited)
            # As many are left as keep the threads busy.
            share = STANDING_SHARE if standing and behind >= self._threads else 1.0
            return self._waits_in_vain(channel, now, share)

        withdrawn = self._loop.withdraw(is_overdue)
        for channel in withdrawn:
            self._due.append(partial(self._shed, channel, "QUEUE_TIMEOUT"))
        if not waiting:
            self._queue_empty_at = now
        elif withdrawn or max(waiting) > SATURATED_SECONDS:
            self._warn(now, waiting)
            self._free_threads(now, len(waiting))

    def _waits_in_vain(self, channel: Channel, now: float, share: float = 1.0) -> bool:
        """Whether a queued request has waited for longer than a *share* of what it may, or its client has gone."""
        if not channel.connected:
            return True
        if channel.requests[0].reply is not None:
            return False  # it waits for nothing, and where it ends may not be known: a 503 that keeps the connection would not do
        waited = channel.queued_for(now)
        head = channel.requests[0].head
        limit = self._endpoint_of(head).limits.queue_timeout if head is not None else None
        if limit is None:
            limit = self._timeouts.queue_timeout
        return waited > limit * share or (waited > GONE_SECONDS and channel.check_client_disconnected())

    def _shed(self, channel: Channel, reason: str) -> None:
        """Answer a request that nobody will run, if its client is still there."""
        if channel.connected and channel.check_client_disconnected():
            channel.handle_close()
        if not channel.connected:
            self._cuts.counts["client left"] += 1
            channel.forget_request()
            return
        if reason == "QUEUE_TIMEOUT":
            self._shed_at = self._clock()
        self._cuts.count(reason, _SHED[reason])
        text = "The server has more to do than it can."
        channel.refuse(Reply(503, text, closes=False, retry_after=RETRY_AFTER_SECONDS))

    def _warn(self, now: float, waiting: list[float]) -> None:
        """Say who holds the threads."""
        shed = self._cuts.counts["QUEUE_TIMEOUT"]
        ages: dict[str, list[float]] = {}
        for channel in [*self._connections.channels.values(), *self._connections.left]:
            if isinstance(task := channel.task, Task):
                ages.setdefault(self._describe(task.head), []).append(now - task.began)
        if not ages and now - self._queue_empty_at < UNSEEN_SECONDS:
            return  # the next look sees more
        holders = sorted(ages.items(), key=lambda entry: -len(entry[1]))
        if holders:
            running = "Running: " + ", ".join(
                f"{len(of_one)} x {printable(kind)} (oldest {format_age(max(of_one))})" for kind, of_one in holders
            )
            advice = "Make these faster, bound them with limits(max_concurrency=), or raise THREADS"
        else:
            running = "None is running at this moment, so it is the processor that they wait for"
            advice = "Make views compute less, or run more processes"
        self._cuts.count(
            "THREADS",
            f"{len(waiting)} requests wait for one of {self._threads} threads, the longest for {format_age(max(waiting))}; "
            f"some have for {format_age(now - self._queue_empty_at)}, and QUEUE_TIMEOUT has sent {shed} away. {running}. {advice}",
        )

    def _free_threads(self, now: float, wanted: int) -> None:
        """Requests wait for threads, and threads for clients: reset the slowest of these, one for each stream that MAX_STREAMS has no
        place for.
        """
        streams = [channel for channel in self._connections.channels.values() if _streams(channel, now)]
        excess = min(wanted, sum(not self._loop.is_stream(channel) for channel in streams))
        waiting_for = [channel for channel in streams if channel.holds_thread]
        waiting_for.sort(key=lambda channel: channel.speed(now) or 0.0)
        for channel in waiting_for[:excess]:
            self._cuts.count(
                "MAX_STREAMS", "slow takers of long responses are reset, since they hold the threads that others need"
            )
            channel.reset()

    # What is kept.

    def relieve_spool(self) -> None:
        """Cut the clients that would hold their bytes longest, by size and speed, in either direction. Clients with an unknown speed are
        cut only when MAX_SPOOL is reached.
        """
        now = self._clock()
        holders = [
            channel
            for channel in self._connections.channels.values()
            if channel.kept and (self._spool.full or channel.speed(now) is not None)
        ]
        holders.sort(key=lambda channel: -_seconds_kept(channel, now))
        excess = self._spool.excess
        for channel in holders:
            if excess <= 0:
                break
            excess -= channel.kept
            self._due.append(partial(self._cut_holder, channel))
        self._work()

    def _cut_holder(self, channel: Channel) -> None:
        if not (channel.connected and channel.kept and self._spool.excess):
            return
        self._cuts.count(
            "MAX_SPOOL",
            "cut the slowest clients with the most bytes: reset responses, answered uploads with 503. Raise MAX_SPOOL if there is room",
        )
        if channel.output.kept:
            channel.reset()
        else:
            channel.refuse(SPOOL_FULL)

    # What others want to know.

    @property
    def healthy(self) -> bool:
        """Whether a new process would do no better: not too many threads are stuck, and no endpoint is blocked by such requests."""
        return not self._too_many_stuck and not (self._admission is not None and self._admission.blocked)

    @property
    def _too_many_stuck(self) -> bool:
        return self._loop.stuck > self._threads / 2

    def activity(self) -> Activity:
        channels = [*self._connections.channels.values(), *self._connections.left]
        return Activity(
            served=self._connections.answered,
            connections=len(self._connections),
            busy=sum(isinstance(channel.task, Task) for channel in channels),
            queued=self.queued,
            stuck=self._loop.stuck,
            healthy=self.healthy,
        )

    def liveness(self) -> Reply:
        return Reply(200, "This server is alive.", closes=False)

    def readiness(self) -> Reply:
        if self.draining:
            return Reply(503, "This server is stopping.", closes=False)
        if self._clock() - self._shed_at < SHED_SECONDS:
            return Reply(503, "This server has more to do than it can.", closes=False)
        if self._too_many_stuck:
            return Reply(503, "Too many requests are stuck in this server.", closes=False)
        return Reply(200, "This server is ready.", closes=False)


def _seconds_kept(channel: Channel, now: float) -> float:
    """How long it would take the client, at its speed, to move as much as is kept for it."""
    speed = channel.speed(now)
    return channel.kept / max(SUPPOSED_SPEED if speed is None else speed, 1.0)


def _streams(channel: Channel, now: float) -> bool:
    """Whether *channel* has been streaming for long enough to have had its chance to be lent."""
    task = channel.task
    since = task.streaming_since if isinstance(task, Task) else None
    return since is not None and now - since > 2 * STREAM_SECONDS


def format_age(seconds: float) -> str:
    return f"{seconds:.1f}s"


def printable(text: str) -> str:
    """*text* of a client's for one line of a log."""
    return text.encode("unicode_escape").decode("ascii")
