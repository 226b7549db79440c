"""One process that serves: listeners in, responses out, until told to stop.

Threads: the thread that calls :meth:`Engine.run` is the steward; service threads run the app, and, where there is epoll, the loop.
``stop`` and ``abort`` may be called from any thread and from signal handlers: they set a flag and wake the steward, nothing else.
"""

from __future__ import annotations

import logging
import select
import ssl
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..clock import Clock, Deadline, monotonic
from ..net.listeners import Listener
from ..observe.cuts import Cuts
from ..observe.events import RequestDone
from ..settings.endpoint_limits import UNLIMITED
from ..units import format_duration
from .adjustments import EngineAdjustments
from .admission import Admission
from .connections import Connections
from .leadership import Leadership
from .loop import Loop
from .portable import PortableLoop
from .server import Server
from .watchdog import Watchdog

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..protocol.request_head import RequestHead
    from ..settings import Settings
    from ..settings.endpoint_limits import Endpoint

logger = logging.getLogger("flask_prodserve.engine")

CHECK_SECONDS = 1.0
"""How often connections and requests are checked for deadlines."""

CHECK_QUEUE_SECONDS = 0.25
"""The same for requests that wait for a thread."""

DRAIN_TURN_SECONDS = 0.1
"""How often connections are looked at while draining."""

THREAD_STOP_SECONDS = 1.0
"""How long idle service threads may take to end; they only have to wake up."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How it ended: requests that were *finished* after the stop began, and those *cut* at the deadline."""

    finished: int
    cut: int


class Engine:
    """Serves *application* on *listeners*, which it closes in the end.

    *request_done*, if there is one, is called once for every request, from the thread that ran it, and must not raise.
    *error_logger* gets the exceptions that the application let through. *kind* tells what kind of request a head is,
    in words for people, so that what is learnt of one serves the next of its kind. *endpoint_of* tells its endpoint, where any has
    limits. *exempt* says of which addresses MAX_CONNECTIONS_PER_CLIENT does not hold. *own_paths* are those that the app answers by
    itself, so that no question after the server's health is answered there. *shared* says that other processes accept from the same
    listeners: while no thread is free here, new connections are left to them.
    """

    def __init__(
        self,
        application: WSGIApplication,
        listeners: Sequence[Listener],
        settings: Settings,
        *,
        tls: ssl.SSLContext | None = None,
        request_done: Callable[[RequestDone], None] | None,
        error_logger: logging.Logger,
        kind: Callable[[RequestHead], str] = lambda head: f"{head.method} {head.path}",
        endpoint_of: Callable[[RequestHead], Endpoint] | None = None,
        exempt: Callable[[str], bool] = lambda address: not address,
        own_paths: Container[str] = (),
        shared: bool = False,
        clock: Clock = monotonic,
    ) -> None:
        self._timeouts = settings.timeouts
        self._clock = clock
        self._stopping = False
        self._aborted = False
        self._next_check = Deadline(CHECK_SECONDS)
        self.cuts = Cuts(clock)
        adjustments = EngineAdjustments(
            settings, endpoint_of=endpoint_of or (lambda head: UNLIMITED), cuts=self.cuts, clock=clock
        )
        limits, threads = settings.limits, settings.workers.threads
        self._connections = Connections(
            limits.max_connections, limits.max_connections_per_client, exempt, self.cuts, clock
        )
        entries: dict[int, Any] = {}
        admission = None if endpoint_of is None else Admission(endpoint_of)
        self._loop: Loop
        if hasattr(select, "epoll"):
            self._loop = Leadership(threads, limits.max_streams, entries, kind, admission, shared=shared)
        else:
            use_poll = adjustments.asyncore_use_poll
            self._loop = PortableLoop(threads, limits.max_streams, entries, admission, use_poll=use_poll)
        self._watchdog = Watchdog(self._connections, self._loop, admission, settings, adjustments, kind)
        asked = {
            settings.health.liveness_path: self._watchdog.liveness,
            settings.health.readiness_path: self._watchdog.readiness,
        }
        health = {path: answer for path, answer in asked.items() if path != "off" and path not in own_paths}
        self._servers = [
            Server(
                application,
                listener,
                entries,
                self._connections,
                self._loop,
                adjustments,
                tls=tls,
                request_done=request_done,
                error_logger=error_logger,
                health=health,
            )
            for listener in listeners
        ]

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError where threads cannot be started."""
        self._loop.start()

    def run(self) -> Drained:
        """Serve until :meth:`stop`; then stop accepting, let running requests finish within GRACEFUL_TIMEOUT, and return.

        Keep-alive clients learn from ``Connection: close`` in their next response that it is over.
        """
        while not self._stopping:
            seconds = self._next_check.remaining()
            self._loop.turn(min(seconds, CHECK_QUEUE_SECONDS) if self._watchdog.queued else seconds)
            self._look()
        return self._drain()

    @property
    def healthy(self) -> bool:
        """Whether this process should go on. If not, requests are stuck, and a new process would do better."""
        return self._watchdog.healthy

    def stop(self) -> None:
        """Begin to stop. Calling it again changes nothing."""
        self._stopping = True
        self._loop.wake()

    def abort(self) -> None:
        """Stop now; what is running is cut."""
        self._aborted = True
        self.stop()

    def _look(self) -> None:
        """Have the watchdog look, if it is time to."""
        if self._next_check.passed():
            self._next_check = Deadline(CHECK_SECONDS)
            self._loop.call(self._check)
        elif self._watchdog.queued:
            self._loop.call(self._watchdog.check_queues)

    def _check(self) -> None:
        self._watchdog.check()
        self._loop.check()

    def _drain(self) -> Drained:
        deadline = Deadline(self._timeouts.graceful_timeout)
        self._watchdog.draining = True
        self._loop.call(self._stop_accepting)
        self._loop.turn(0)  # what has arrived by now is a request, and its connection is not idle
        if running := self._pending():
            logger.info(
                "stopping; %d request%s to finish within %s",
                running,
                "s" if running > 1 else "",
                format_duration(self._timeouts.graceful_timeout),
            )
        while self._connections and not self._aborted and not deadline.passed():
            self._loop.call(self._drain_connections)
            self._loop.turn(min(DRAIN_TURN_SECONDS, deadline.remaining()))
            self._look()
        drained = Drained(sum(server.finished for server in self._servers), self._pending())
        self._loop.call(self._close_connections)
        self._loop.stop(Deadline(0 if self._aborted else THREAD_STOP_SECONDS))
        return drained

    def _stop_accepting(self) -> None:
        for server in self._servers:
            server.stop_accepting()

    def _drain_connections(self) -> None:
        now = self._clock()
        for channel in list(self._connections.channels.values()):
            channel.drain(now)

    def _close_connections(self) -> None:
        # First the queue: closing wakes threads that wait for a client, and they would take the next request from it.
        self._loop.drop_queue()
        for channel in list(self._connections.channels.values()):
            channel.handle_close()

    def _pending(self) -> int:
        return sum(channel.pending() for channel in list(self._connections.channels.values()))
