"""One process that serves: listeners in, responses out, until it is told to stop.

Threads: the thread that calls :meth:`Engine.run` is the steward; service threads run the app and,
if there is epoll, the event loop. ``stop`` and ``abort`` may be called from any thread and from
signal handlers: they set flags and wake the steward.
"""

from __future__ import annotations

import logging
import math
import select
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING

from ..clock import Clock, Deadline, monotonic
from ..net import forked
from ..net.handshakes import HANDSHAKE_SECONDS, ignore_new_handshakes
from ..net.listeners import Listener
from ..net.loads import Loads
from ..net.tls import Certificates
from ..observe.events import Activity, Drained, RequestDone
from ..observe.limit_events import LimitEvents
from ..units import TCPAddress, format_duration
from .acceptor import Acceptor
from .connection.table import ConnectionTable
from .context import EngineContext, FileFor
from .dispatch.admission import Admission
from .dispatch.alarm import Alarm
from .dispatch.balancing import Balancer
from .dispatch.dispatcher import Dispatcher
from .dispatch.leadership import Leadership
from .dispatch.portable import PortableLoop
from .exchange.reply import Reply
from .exchange.responders import HealthChecks, HTTPSRedirect, Responder
from .guard.guard import Guard

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..protocol.request_head import RequestHead
    from ..settings import Settings
    from ..settings.endpoint_limits import Route
    from ..wsgi.forwarded import PeerTrust

logger = logging.getLogger("flask_prodserve.engine")

CHECK_SECONDS = 0.5
"""How often connections and requests are checked for deadlines. Progress and lateness of a client
are each noticed so late.
"""

CHECK_QUEUE_SECONDS = 0.25
"""How often the requests that wait for a thread are checked."""

DRAIN_TURN_SECONDS = 0.1
"""How often connections are checked while draining."""

THREAD_STOP_SECONDS = 1.0
"""How long idle service threads may take to end. They only have to wake up."""


class Engine:
    """Serves *application* on *listeners*, which it closes in the end.

    - *request_done* is called once for every request, from the thread that ran it. It must not
      raise.
    - *checked* is called every CHECK_SECONDS from the steward's thread with the activity that the
      event loop's thread has reported. So each call proves that both are alive. It must not raise.
    - *error_logger* gets the exceptions of the application.
    - *route_of* finds where a request leads. The engine learns which kinds keep a thread waiting.
      *has_limits*: some endpoint has limits.
    - *exempt* tells for which addresses MAX_CONNECTIONS_PER_CLIENT does not hold.
    - *announcers* are the peers whose connections begin with a PROXY header, if there are any.
    - *own_paths* are paths that the app answers by itself, so that no health check is answered
      there.
    - *file_for* finds the static file that answers a request, without *application*.
    - *loads*: other processes accept from the same listeners. New connections are left to those
      that have less to do.
    """

    def __init__(
        self,
        application: WSGIApplication,
        listeners: Sequence[Listener],
        settings: Settings,
        *,
        tls: Certificates | None = None,
        request_done: Callable[[RequestDone], None] | None,
        checked: Callable[[Activity], None] | None = None,
        error_logger: logging.Logger,
        route_of: Callable[[RequestHead], Route] | None = None,
        has_limits: bool = False,
        exempt: Callable[[str], bool] = lambda address: not address,
        announcers: PeerTrust | None = None,
        own_paths: Container[str] = (),
        file_for: FileFor | None = None,
        loads: Loads | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._clock = clock
        self._checked = checked
        self._loads = loads
        self._last = loads is None
        self._stop_times: list[float] = []
        self._interrupted = False
        self._aborted = False
        self._next_check = Deadline(CHECK_SECONDS)
        self._end_of_drain: Deadline | None = None
        self.limit_events = LimitEvents(clock)
        self._context = EngineContext.of(
            application,
            settings,
            error_logger=error_logger,
            request_done=request_done,
            route_of=route_of,
            has_limits=has_limits,
            file_for=file_for,
            multiprocess=loads is not None,
            limit_events=self.limit_events,
            clock=clock,
        )
        limits = settings.limits
        self._table = ConnectionTable(
            limits.max_connections, limits.max_connections_per_client, exempt, self.limit_events, clock
        )
        admission = Admission() if has_limits else None
        self._dispatcher = self._make_dispatcher(limits.max_streams, admission)
        self._guard = Guard(
            self._context,
            self._table,
            self._dispatcher,
            admission,
            slow_request=settings.observe.slow_request,
        )
        self._activity = self._guard.health.activity()
        checks = {
            settings.health.liveness_path: self._guard.health.liveness,
            settings.health.readiness_path: self._guard.health.readiness,
        }
        self._acceptors = self._make_acceptors(
            listeners,
            settings,
            tls,
            announcers,
            {path: check for path, check in checks.items() if path != "off" and path not in own_paths},
        )

    def _make_dispatcher(self, max_streams: int, admission: Admission | None) -> Dispatcher:
        threads = self._context.threads
        if not (hasattr(select, "epoll") and Alarm.available()):
            return PortableLoop(threads, max_streams, admission, shared=self._loads is not None)
        balancer = None if self._loads is None else Balancer(self._loads, self._table)
        leadership = Leadership(threads, max_streams, admission, balancer)
        if balancer is not None:
            self._table.changed = leadership.update_accepting
        return leadership

    def _make_acceptors(
        self,
        listeners: Sequence[Listener],
        settings: Settings,
        tls: Certificates | None,
        announcers: PeerTrust | None,
        checks: Mapping[str, Callable[[], Reply]],
    ) -> list[Acceptor]:
        """With TLS, listeners that speak plain HTTP answer health checks and redirect everything
        else to https.
        """
        redirecting = [listener for listener in listeners if settings.scheme(listener.address) == "http"] if tls else []
        acceptors = []
        for listener in listeners:
            responders: list[Responder] = [HealthChecks(checks)] if checks else []
            if listener in redirecting:
                responders.append(HTTPSRedirect(_https_port(listeners, redirecting)))
            acceptors.append(
                Acceptor(
                    listener,
                    self._context,
                    self._dispatcher,
                    self._table,
                    responders,
                    tls=None if listener in redirecting else tls,
                    announcers=announcers,
                )
            )
        return acceptors

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError if threads cannot be started."""
        forked.call_in_child(self._abandon)
        try:
            for acceptor in self._acceptors:
                self._dispatcher.watch(acceptor)
            self._dispatcher.start()
        except RuntimeError:
            forked.forget(self._abandon)
            raise

    def run(self) -> Drained:
        """Serve until :meth:`stop`. Then stop accepting, let running requests finish within
        GRACEFUL_TIMEOUT, and return.

        Keep-alive clients learn from ``Connection: close`` in their next response that the server
        stops.
        """
        while (accepts_for := self._accepts_for()) > 0:
            seconds = min(self._next_check.remaining(), accepts_for)
            self._dispatcher.turn(min(seconds, CHECK_QUEUE_SECONDS) if self._guard.queued else seconds)
            self._check_if_due()
        return self._drain()

    @property
    def healthy(self) -> bool:
        """Whether this process should go on. If not, requests are stuck, and a new process would do
        better.
        """
        return self._guard.health.healthy

    @property
    def end_of_drain(self) -> Deadline | None:
        """When GRACEFUL_TIMEOUT is over; None before the drain has begun."""
        return self._end_of_drain

    @property
    def aborted(self) -> bool:
        return self._aborted

    def stop(self, *, delay: float = 0.0, last: bool = False, interrupted: bool = False) -> None:
        """Be not ready from now on, and stop accepting after *delay* seconds. Of several calls, the
        one that stops first counts.

        *last*: all other processes that listen stop, too. *interrupted*: by CTRL+C; another CTRL+C
        is an :meth:`abort`.
        """
        self._guard.health.draining = True
        if last:
            self._last = True
        if interrupted:
            self._interrupted = True
        self._stop_times.append(self._clock() + delay)
        self._dispatcher.wake()

    def abort(self) -> None:
        """Stop now, and cut what is running."""
        self._aborted = True
        self.stop()

    def _accepts_for(self) -> float:
        """Return for how many seconds connections will still be accepted, as far as known."""
        return min(self._stop_times, default=math.inf) - self._clock()

    def _check_if_due(self) -> None:
        """Have deadlines or queues checked, if it is time to."""
        if self._next_check.passed():
            self._next_check = Deadline(CHECK_SECONDS)
            self._dispatcher.call(self._check)
            if self._checked is not None:
                self._checked(self._activity)
        elif self._guard.queued:
            self._dispatcher.call(self._guard.check_queues)

    def _check(self) -> None:
        self._guard.check()
        self._dispatcher.check()
        self._activity = self._guard.health.activity()

    def _drain(self) -> Drained:
        graceful_timeout = self._context.timeouts.graceful_timeout
        deadline = self._end_of_drain = Deadline(graceful_timeout)
        self._end_handshakes()
        self._dispatcher.call(self._stop_accepting)
        self._dispatcher.turn(0)  # bytes that have arrived by now are a request, and their connection is not idle
        if (running := self._pending()) and not self._aborted:
            logger.info(
                "stopping; %d request%s to finish within %s%s",
                running,
                "s" if running > 1 else "",
                format_duration(graceful_timeout),
                "; CTRL+C again stops at once" if self._interrupted else "",
            )
        table = self._table
        while (table or table.orphaned_views()) and not self._aborted and not deadline.passed():
            self._dispatcher.call(self._drain_connections)
            self._dispatcher.turn(min(DRAIN_TURN_SECONDS, deadline.remaining()))
            self._check_if_due()
        count = self._context.drain
        left = count.left + len(table.orphaned) - table.orphaned_views()
        drained = Drained(count.finished, self._pending(), left)
        self._dispatcher.call(self._close_connections)
        self._dispatcher.stop(Deadline(0 if self._aborted else THREAD_STOP_SECONDS))
        forked.forget(self._abandon)
        return drained

    def _abandon(self) -> None:
        """Close every descriptor in a child that the app has forked, without a word to clients. See
        ``net.forked``.
        """
        for acceptor in self._acceptors:
            acceptor.abandon()
        for connection in list(self._table.connections.values()):
            connection.transport.abandon()
        self._dispatcher.abandon()
        if self._loads is not None:
            self._loads.close()

    def _end_handshakes(self) -> None:
        """Accept clients whose handshake with the kernel has begun, and no others, unless other
        processes go on listening.
        """
        if not self._last:
            return
        overlooking = [
            ignore_new_handshakes(acceptor.listener.socket)
            for acceptor in self._acceptors
            if isinstance(acceptor.listener.address, TCPAddress)
        ]
        deadline = Deadline(HANDSHAKE_SECONDS if any(overlooking) else 0.0)
        while not (deadline.passed() or self._aborted):
            self._dispatcher.turn(deadline.remaining())

    def _stop_accepting(self) -> None:
        # Of several processes that stop at the same time, the last one sees no other.
        if self._loads is not None:
            self._loads.withdraw()
        last = self._loads is None or not self._loads.others
        for acceptor in self._acceptors:
            acceptor.stop_accepting(last=last)
        self._context.drain.active = True

    def _drain_connections(self) -> None:
        now = self._clock()
        for connection in list(self._table.connections.values()):
            connection.drain(now)

    def _close_connections(self) -> None:
        # First the queue: closing wakes threads that wait for a client, and they would take the
        # next request from it.
        self._dispatcher.drop_queue()
        for connection in list(self._table.connections.values()):
            connection.close()

    def _pending(self) -> int:
        connections = list(self._table.connections.values())
        return sum(connection.pending() for connection in connections) + self._table.orphaned_views()


def _https_port(listeners: Sequence[Listener], redirecting: Sequence[Listener]) -> int:
    """Return the port that speaks https; 443 if only a Unix socket does, which has a proxy in
    front.
    """
    names = [listener.socket.getsockname() for listener in listeners if listener not in redirecting]
    return next((name[1] for name in names if isinstance(name, tuple)), 443)
