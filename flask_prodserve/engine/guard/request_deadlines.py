"""Requests that run for long: SLOW_REQUEST, REQUEST_TIMEOUT, and streams with their own budget."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum

from ...errors import RequestTimedOut
from ...observe.cuts import Cuts
from ...observe.printable import printable_ascii
from ...observe.stacks import stack_of
from ...protocol.request_head import RequestHead
from ...settings.endpoint_limits import Endpoint
from ..channel import Channel
from ..loop import Loop
from ..reply import Reply
from ..task import Task

logger = logging.getLogger("flask_prodserve.engine")

STREAM_SECONDS = 1.0
"""How long the app may send a response before it is a stream."""

STUCK_PER_THREAD = 4
"""Threads that may be stuck, for each of THREADS. No more are replaced: that would not help."""


class Action(Enum):
    """What is due for a request."""

    MOVE_TO_STREAM_BUDGET = "count it against MAX_STREAMS, and no longer against THREADS"
    GIVE_UP = "answer 504 and replace its thread"
    LOG = "log its stack, once"


def due_action(
    age: float, *, streaming: float | None, begun: bool, timeout: float, slow_request: float, logged: bool
) -> Action | None:
    """Return what is due for a request that has been running for *age* seconds.

    *streaming*: for how many seconds the app has been sending the response, if it has. *begun*:
    the client has some of it. *timeout* and *slow_request* are in seconds; 0 is none. *logged*:
    whether LOG was done.
    """
    if streaming is not None:
        return Action.MOVE_TO_STREAM_BUDGET if streaming > STREAM_SECONDS else None
    if begun:
        return None
    if timeout and age > timeout:
        return Action.GIVE_UP
    if slow_request and age > slow_request and not logged:
        return Action.LOG
    return None


class RequestDeadlines:
    """Checks running requests. *describe* names a kind of request for the log.

    *timeout* is REQUEST_TIMEOUT, for endpoints without one of their own. *discard_orphan* removes
    a connection from those that are closed while their request runs.
    """

    def __init__(
        self,
        loop: Loop,
        threads: int,
        *,
        timeout: float,
        slow_request: float,
        endpoint_of: Callable[[RequestHead], Endpoint],
        describe: Callable[[RequestHead], str],
        discard_orphan: Callable[[Channel], None],
        cuts: Cuts,
    ) -> None:
        self._loop = loop
        self._most_stuck = STUCK_PER_THREAD * threads
        self._timeout = timeout
        self._slow_request = slow_request
        self._endpoint_of = endpoint_of
        self._describe = describe
        self._discard_orphan = discard_orphan
        self._cuts = cuts

    def check(self, channel: Channel, now: float) -> None:
        """Do what is due for the request that runs on *channel*, if one does."""
        task = channel.task
        if not isinstance(task, Task):
            return
        age = now - task.began
        streaming = None if task.streaming_since is None else now - task.streaming_since
        begun = streaming is not None or task.response.begun
        action = due_action(
            age,
            streaming=streaming,
            begun=begun,
            timeout=0.0 if begun else self._timeout_of(task.head),
            slow_request=self._slow_request,
            logged=task.slow,
        )
        if action is Action.MOVE_TO_STREAM_BUDGET:
            self._loop.lend(channel)
        elif action is Action.GIVE_UP:
            self._give_up(channel, task, age)
        elif action is Action.LOG:
            task.slow = True
            logger.warning(
                "SLOW_REQUEST: %s has been running for %.1fs. Its stack:\n%s",
                self._identify(task),
                age,
                stack_of(task.thread),
            )

    def _timeout_of(self, head: RequestHead) -> float:
        timeout = self._endpoint_of(head).limits.timeout
        return self._timeout if timeout is None else timeout

    def _give_up(self, channel: Channel, task: Task, age: float) -> None:
        if self._loop.stuck >= self._most_stuck:
            self._cuts.count(
                "REQUEST_TIMEOUT",
                f"{self._loop.stuck} threads are stuck; no more requests are timed out until some of these end. "
                "Restart the server",
                logging.CRITICAL,
            )
            return
        stack = stack_of(task.thread)
        if not channel.abandon(task, Reply(504, "The app took too long.")):
            return
        self._discard_orphan(channel)
        if task.interruptible is not None:
            task.interruptible.interrupt(RequestTimedOut)
        self._loop.abandoned(channel)
        self._cuts.counts["REQUEST_TIMEOUT"] += 1
        logger.error(
            "REQUEST_TIMEOUT: %s has been running for %.1fs; the client %s. Another thread replaces its thread%s, "
            "which is stuck here:\n%s",
            self._identify(task),
            age,
            "got 504" if channel.connected else "had left",
            " (the request counts for max_concurrency until it ends)" if channel.share is not None else "",
            stack,
        )

    def _identify(self, task: Task) -> str:
        request_id = task.head.fields.get("HTTP_X_REQUEST_ID")
        kind = printable_ascii(self._describe(task.head))
        return f"{kind} (X-Request-ID {printable_ascii(request_id)})" if request_id else kind
