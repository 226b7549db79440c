"""One process that serves: listeners in, responses out, until told to stop.

Threads: the thread that calls :meth:`Engine.run` is the steward; service threads run the app, and, where there is epoll, the loop.
``stop`` and ``abort`` may be called from any thread and from signal handlers: they set a flag and wake the steward, nothing else.
"""

from __future__ import annotations

import logging
import select
import ssl
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..clock import Deadline, monotonic
from ..net.listeners import Listener
from ..observe.events import RequestDone
from ..units import format_duration
from .adjustments import EngineAdjustments
from .channel import Channel
from .leadership import Leadership
from .loop import Loop
from .portable import PortableLoop
from .server import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings import Settings

logger = logging.getLogger("flask_prodserve.engine")

CHECK_SECONDS = 1.0
"""How often connections are checked for deadlines."""

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
    *error_logger* gets the exceptions that the application let through. *kind* tells of a method and a path what kind of request that
    is, so that what is learnt of one serves the next of its kind. *shared* says that other processes accept from the same listeners:
    while no thread is free here, new connections are left to them.
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
        kind: Callable[[str, str], Hashable] = lambda method, path: (method, path),
        shared: bool = False,
    ) -> None:
        self._timeouts = settings.timeouts
        self._stopping = False
        self._aborted = False
        self._connections: dict[int, Channel] = {}
        adjustments = EngineAdjustments(settings)
        entries: dict[int, Any] = {}
        threads, max_streams = settings.workers.threads, settings.limits.max_streams
        self._loop: Loop
        if hasattr(select, "epoll"):
            self._loop = Leadership(threads, max_streams, entries, kind, shared=shared)
        else:
            self._loop = PortableLoop(threads, max_streams, entries, use_poll=adjustments.asyncore_use_poll)
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
        check = Deadline(CHECK_SECONDS)
        while not self._stopping:
            self._loop.turn(check.remaining())
            if check.passed():
                check = Deadline(CHECK_SECONDS)
                self._loop.call(self._check)
        return self._drain()

    def stop(self) -> None:
        """Begin to stop. Calling it again changes nothing."""
        self._stopping = True
        self._loop.wake()

    def abort(self) -> None:
        """Stop now; what is running is cut."""
        self._aborted = True
        self.stop()

    def _check(self) -> None:
        now = monotonic()
        for channel in list(self._connections.values()):
            channel.check(now, self._timeouts.keepalive_timeout)
        self._loop.check()

    def _drain(self) -> Drained:
        deadline = Deadline(self._timeouts.graceful_timeout)
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
        drained = Drained(sum(server.finished for server in self._servers), self._pending())
        self._loop.call(self._close_connections)
        self._loop.stop(Deadline(0 if self._aborted else THREAD_STOP_SECONDS))
        return drained

    def _stop_accepting(self) -> None:
        for server in self._servers:
            server.stop_accepting()

    def _drain_connections(self) -> None:
        now = monotonic()
        for channel in list(self._connections.values()):
            channel.drain(now)

    def _close_connections(self) -> None:
        # First the queue: closing wakes threads that wait for a client, and they would take the next request from it.
        self._loop.drop_queue()
        for channel in list(self._connections.values()):
            channel.handle_close()

    def _pending(self) -> int:
        return sum(channel.pending() for channel in list(self._connections.values()))
