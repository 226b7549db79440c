"""One process that serves: listeners in, responses out, until told to stop.

Threads: the thread that calls :meth:`Engine.run` is the steward; service threads run the app, and, where there is epoll, the loop.
``stop`` and ``abort`` may be called from any thread and from signal handlers: they leave word and wake the steward, nothing else.
"""

from __future__ import annotations

import logging
import math
import select
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..clock import Clock, Deadline, monotonic
from ..net import forked
from ..net.handshakes import HANDSHAKE_SECONDS, overlook_new
from ..net.listeners import Listener
from ..net.loads import Loads
from ..net.tls import Certificates
from ..observe.cuts import Cuts
from ..observe.events import Activity, RequestDone
from ..settings.endpoint_limits import UNLIMITED
from ..units import TCPAddress, format_duration
from .adjustments import EngineAdjustments
from .connections import Connections
from .dispatch.admission import Admission
from .dispatch.alarm import Alarm
from .dispatch.balancing import Balancer
from .dispatch.dispatcher import Dispatcher
from .dispatch.leadership import Leadership
from .dispatch.portable import PortableLoop
from .guard.guard import Guard
from .server import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..protocol.request_head import RequestHead
    from ..settings import Settings
    from ..settings.endpoint_limits import Endpoint
    from ..wsgi.forwarded import PeerTrust
    from .task import FileFor

logger = logging.getLogger("flask_prodserve.engine")

CHECK_SECONDS = 0.5
"""How often connections and requests are checked for deadlines. What a client has done, and that it is late, is each seen so late."""

CHECK_QUEUE_SECONDS = 0.25
"""The same for requests that wait for a thread."""

DRAIN_TURN_SECONDS = 0.1
"""How often connections are looked at while draining."""

THREAD_STOP_SECONDS = 1.0
"""How long idle service threads may take to end; they only have to wake up."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How it ended: requests that were *finished* after the stop began, those *cut* at the deadline, and those that had been *left* by
    their clients before their response was complete.
    """

    finished: int
    cut: int
    left: int = 0


def _https_port(listeners: Sequence[Listener], redirecting: Sequence[Listener]) -> int:
    """Where https is spoken; at its own port where only a Unix socket is there, which is behind something."""
    names = [listener.socket.getsockname() for listener in listeners if listener not in redirecting]
    return next((name[1] for name in names if isinstance(name, tuple)), 443)


class Engine:
    """Serves *application* on *listeners*, which it closes in the end.

    *request_done*, if there is one, is called once for every request, from the thread that ran it, and must not raise. *checked* is
    called every CHECK_SECONDS from the steward's thread with what goes on, when the loop's thread has told it: so each call proves that
    both are alive. It must not raise, either.
    *error_logger* gets the exceptions that the application let through. *kind* tells what kind of request a head is,
    in words for people, so that what is learnt of one serves the next of its kind. *endpoint_of* tells its endpoint, where any has
    limits. *exempt* says of which addresses MAX_CONNECTIONS_PER_CLIENT does not hold, *announcers* whose connections begin with
    a PROXY header, if any do. *own_paths* are those that the app answers by itself, so that no question after the server's health is
    answered there. *file_for* has what is answered to a request from a peer, and to which client, where that is a file, which goes out past
    *application*. *loads* is there where other processes accept from the same listeners: a new connection is left to them while they would
    do better with it.
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
        kind: Callable[[RequestHead], str] = lambda head: f"{head.method} {head.path}",
        endpoint_of: Callable[[RequestHead], Endpoint] | None = None,
        exempt: Callable[[str], bool] = lambda address: not address,
        announcers: PeerTrust | None = None,
        own_paths: Container[str] = (),
        file_for: FileFor | None = None,
        loads: Loads | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._timeouts = settings.timeouts
        self._clock = clock
        self._checked = checked
        self._loads = loads
        self._last = loads is None
        self._stop_times: list[float] = []
        self._interrupted = False
        self._aborted = False
        self._next_check = Deadline(CHECK_SECONDS)
        self._end_of_drain: Deadline | None = None
        self.cuts = Cuts(clock)
        adjustments = EngineAdjustments(
            settings,
            endpoint_of=endpoint_of or (lambda head: UNLIMITED),
            multiprocess=loads is not None,
            cuts=self.cuts,
            clock=clock,
        )
        limits, threads = settings.limits, settings.workers.threads
        self._connections = Connections(
            limits.max_connections, limits.max_connections_per_client, exempt, self.cuts, clock
        )
        entries: dict[int, Any] = {}
        admission = None if endpoint_of is None else Admission(endpoint_of)
        self._loop: Dispatcher
        if hasattr(select, "epoll") and Alarm.available():
            balancer = None if loads is None else Balancer(loads, self._connections)
            leadership = self._loop = Leadership(threads, limits.max_streams, entries, kind, admission, balancer)
            if balancer is not None:
                self._connections.changed = leadership.update_accepting
        else:
            self._loop = PortableLoop(
                threads,
                limits.max_streams,
                entries,
                admission,
                shared=loads is not None,
                use_poll=adjustments.asyncore_use_poll,
            )
        self._guard = Guard(
            self._connections,
            self._loop,
            admission,
            adjustments.spool,
            threads=threads,
            timeouts=settings.timeouts,
            slow_request=settings.observe.slow_request,
            endpoint_of=adjustments.endpoint_of,
            describe=kind,
            cuts=self.cuts,
            clock=clock,
        )
        self._activity = self._guard.health.activity()
        asked = {
            settings.health.liveness_path: self._guard.health.liveness,
            settings.health.readiness_path: self._guard.health.readiness,
        }
        health = {path: answer for path, answer in asked.items() if path != "off" and path not in own_paths}
        redirecting = [listener for listener in listeners if settings.scheme(listener.address) == "http"] if tls else []
        self._servers = [
            Server(
                application,
                listener,
                entries,
                self._connections,
                self._loop,
                adjustments,
                tls=None if listener in redirecting else tls,
                https_port=_https_port(listeners, redirecting) if listener in redirecting else None,
                request_done=request_done,
                error_logger=error_logger,
                health=health,
                announcers=announcers,
                file_for=file_for,
            )
            for listener in listeners
        ]

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError where threads cannot be started."""
        forked.call_in_child(self._abandon)
        try:
            self._loop.start()
        except RuntimeError:
            forked.forget(self._abandon)
            raise

    def run(self) -> Drained:
        """Serve until :meth:`stop`; then stop accepting, let running requests finish within GRACEFUL_TIMEOUT, and return.

        Keep-alive clients learn from ``Connection: close`` in their next response that it is over.
        """
        while (accepts_for := self._accepts_for()) > 0:
            seconds = min(self._next_check.remaining(), accepts_for)
            self._loop.turn(min(seconds, CHECK_QUEUE_SECONDS) if self._guard.queued else seconds)
            self._look()
        return self._drain()

    @property
    def healthy(self) -> bool:
        """Whether this process should go on. If not, requests are stuck, and a new process would do better."""
        return self._guard.health.healthy

    @property
    def end_of_drain(self) -> Deadline | None:
        """When GRACEFUL_TIMEOUT is over; None before it has begun."""
        return self._end_of_drain

    @property
    def aborted(self) -> bool:
        return self._aborted

    def stop(self, *, delay: float = 0.0, last: bool = False, interrupted: bool = False) -> None:
        """Begin to stop: be not ready from now on, and accept connections for *delay* more seconds. Of several calls, that counts which
        ends this first. *last*: all other processes that listen stop, too. *interrupted*: it was CTRL+C, and another one is an
        :meth:`abort`.
        """
        self._guard.health.draining = True
        if last:
            self._last = True
        if interrupted:
            self._interrupted = True
        self._stop_times.append(self._clock() + delay)
        self._loop.wake()

    def abort(self) -> None:
        """Stop now; what is running is cut."""
        self._aborted = True
        self.stop()

    def _accepts_for(self) -> float:
        """For how many seconds connections are still accepted, as far as is known."""
        return min(self._stop_times, default=math.inf) - self._clock()

    def _look(self) -> None:
        """Have deadlines or queues checked, if it is time to."""
        if self._next_check.passed():
            self._next_check = Deadline(CHECK_SECONDS)
            self._loop.call(self._check)
            if self._checked is not None:
                self._checked(self._activity)
        elif self._guard.queued:
            self._loop.call(self._guard.check_queues)

    def _check(self) -> None:
        self._guard.check()
        self._loop.check()
        self._activity = self._guard.health.activity()

    def _drain(self) -> Drained:
        deadline = self._end_of_drain = Deadline(self._timeouts.graceful_timeout)
        self._end_handshakes()
        self._loop.call(self._stop_accepting)
        self._loop.turn(0)  # what has arrived by now is a request, and its connection is not idle
        if (running := self._pending()) and not self._aborted:
            logger.info(
                "stopping; %d request%s to finish within %s%s",
                running,
                "s" if running > 1 else "",
                format_duration(self._timeouts.graceful_timeout),
                "; CTRL+C again stops at once" if self._interrupted else "",
            )
        while (self._connections or self._connections.left_views()) and not self._aborted and not deadline.passed():
            self._loop.call(self._drain_connections)
            self._loop.turn(min(DRAIN_TURN_SECONDS, deadline.remaining()))
            self._look()
        left = len(self._connections.left) - self._connections.left_views()
        drained = Drained(
            sum(server.finished for server in self._servers),
            self._pending(),
            sum(server.left for server in self._servers) + left,
        )
        self._loop.call(self._close_connections)
        self._loop.stop(Deadline(0 if self._aborted else THREAD_STOP_SECONDS))
        forked.forget(self._abandon)
        return drained

    def _abandon(self) -> None:
        """In a child that the app has forked: close every descriptor, and say nothing to clients. See ``net.forked``."""
        for server in self._servers:
            server.abandon()
        for channel in list(self._connections.channels.values()):
            if (sock := channel.socket) is not None:
                sock.close()
        self._loop.abandon()
        if self._loads is not None:
            self._loads.close()

    def _end_handshakes(self) -> None:
        """Accept those who are connecting at this moment, and nobody else, unless other processes go on listening."""
        if not self._last:
            return
        overlooking = [
            overlook_new(server.listener.socket)
            for server in self._servers
            if isinstance(server.listener.address, TCPAddress)
        ]
        deadline = Deadline(HANDSHAKE_SECONDS if any(overlooking) else 0.0)
        while not (deadline.passed() or self._aborted):
            self._loop.turn(deadline.remaining())

    def _stop_accepting(self) -> None:
        # Of several processes that stop at the same time, the one that sees no other has been told last.
        if self._loads is not None:
            self._loads.withdraw()
        last = self._loads is None or not self._loads.others
        for server in self._servers:
            server.stop_accepting(last=last)

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
        channels = list(self._connections.channels.values())
        return sum(channel.pending() for channel in channels) + self._connections.left_views()
