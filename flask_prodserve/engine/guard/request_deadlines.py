"""Requests that run for long: SLOW_REQUEST, REQUEST_TIMEOUT, and streams with their own budget."""

from __future__ import annotations

import logging
from enum import Enum

from ...errors import RequestTimedOut
from ...observe.printable import printable_ascii
from ...observe.stacks import stack_of
from ..connection.connection import Connection
from ..connection.table import ConnectionTable
from ..context import EngineContext
from ..dispatch.admission import Admission
from ..dispatch.dispatcher import Dispatcher
from ..exchange.reply import Reply
from ..exchange.task import Task

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
    """Checks running requests. *slow_request* is SLOW_REQUEST."""

    def __init__(
        self,
        context: EngineContext,
        table: ConnectionTable,
        dispatcher: Dispatcher,
        admission: Admission | None,
        *,
        slow_request: float,
    ) -> None:
        self._most_stuck = STUCK_PER_THREAD * context.threads
        self._timeout = context.timeouts.request_timeout
        self._limit_events = context.limit_events
        self._table = table
        self._dispatcher = dispatcher
        self._admission = admission
        self._slow_request = slow_request

    def check(self, connection: Connection, now: float) -> None:
        """Do what is due for the request that runs on *connection*, if one does."""
        task = connection.task
        if not isinstance(task, Task):
            return
        age = now - task.began
        streaming = None if task.streaming_since is None else now - task.streaming_since
        begun = streaming is not None or task.response.begun
        action = due_action(
            age,
            streaming=streaming,
            begun=begun,
            timeout=0.0 if begun else self._timeout_of(task),
            slow_request=self._slow_request,
            logged=task.slow,
        )
        if action is Action.MOVE_TO_STREAM_BUDGET:
            self._dispatcher.move_to_stream_budget(connection)
        elif action is Action.GIVE_UP:
            self._give_up(connection, task, age)
        elif action is Action.LOG:
            task.slow = True
            logger.warning(
                "SLOW_REQUEST: %s has been running for %.1fs. Its stack:\n%s",
                self._identify(task),
                age,
                stack_of(task.thread),
            )

    def _timeout_of(self, task: Task) -> float:
        timeout = task.request.limits.timeout
        return self._timeout if timeout is None else timeout

    def _give_up(self, connection: Connection, task: Task, age: float) -> None:
        if self._dispatcher.stuck >= self._most_stuck:
            self._limit_events.count(
                "REQUEST_TIMEOUT",
                f"{self._dispatcher.stuck} threads are stuck; no more requests are timed out until some of these end. "
                "Restart the server",
                logging.CRITICAL,
            )
            return
        stack = stack_of(task.thread)
        counts = self._admission is not None and self._admission.counts(connection)
        if not connection.abandon(task, Reply(504, "The app took too long.")):
            return
        self._table.orphaned.discard(connection)
        if task.interruptible is not None:
            task.interruptible.interrupt(RequestTimedOut)
        self._dispatcher.abandoned(connection)
        self._limit_events.counts["REQUEST_TIMEOUT"] += 1
        logger.error(
            "REQUEST_TIMEOUT: %s has been running for %.1fs; the client %s. Another thread replaces its thread%s, "
            "which is stuck here:\n%s",
            self._identify(task),
            age,
            "got 504" if connection.connected else "had left",
            " (the request counts for max_concurrency until it ends)" if counts else "",
            stack,
        )

    def _identify(self, task: Task) -> str:
        request_id = task.head.fields.get("HTTP_X_REQUEST_ID")
        kind = printable_ascii(task.request.route.kind)
        return f"{kind} (X-Request-ID {printable_ascii(request_id)})" if request_id else kind
