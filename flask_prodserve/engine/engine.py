"""One process that serves: listeners in, responses out, until told to stop.

Threads: the thread that calls :meth:`Engine.run` is the loop; service threads run the app. ``stop`` and ``abort`` may be called from
any thread and from signal handlers: they set a flag and wake the loop, nothing else.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from waitress import wasyncore

from ..clock import Deadline
from ..net.listeners import Listener
from ..observe.events import RequestDone
from ..units import format_duration
from .adjustments import EngineAdjustments
from .channel import Channel
from .dispatcher import Dispatcher
from .server import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings import Settings

logger = logging.getLogger("flask_prodserve.engine")

CHECK_SECONDS = 1.0
"""How often connections are checked for deadlines."""

DRAIN_TURN_SECONDS = 0.1
"""How long the loop sleeps at most while draining."""

THREAD_STOP_SECONDS = 1.0
"""How long idle service threads may take to end; they only have to wake up."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How it ended: requests that were *finished* after the stop began, and those *cut* at the deadline."""

    finished: int
    cut: int


class Engine:
    """Serves *application* on *listeners*, which it closes in the end.

    *request_done* is called once for every request, from the thread that ran it, and must not raise. *error_logger* gets the
    exceptions that the application let through.
    """

    def __init__(
        self,
        application: WSGIApplication,
        listeners: Sequence[Listener],
        settings: Settings,
        *,
        tls: ssl.SSLContext | None = None,
        request_done: Callable[[RequestDone], None],
        error_logger: logging.Logger,
    ) -> None:
        self._timeouts = settings.timeouts
        self._request_done = request_done
        self._stopping = False
        self._aborted = False
        self._awake = True
        self._finished = 0
        self._finished_lock = threading.Lock()
        self._map: dict[int, Any] = {}
        self._connections: dict[int, Channel] = {}
        adjustments = EngineAdjustments(settings)
        self._use_poll: bool = adjustments.asyncore_use_poll
        self._dispatcher = Dispatcher(settings.workers.threads)
        self._servers = [
            Server(
                application,
                listener,
                self._map,
                self._connections,
                self._dispatcher,
                adjustments,
                tls=tls,
                request_done=self._count,
                error_logger=error_logger,
            )
            for listener in listeners
        ]

    def run(self) -> Drained:
        """Serve until :meth:`stop`; then stop accepting, let running requests finish within GRACEFUL_TIMEOUT, and return.

        Keep-alive clients learn from ``Connection: close`` in their next response that it is over.
        """
        check = Deadline(CHECK_SECONDS)
        while not self._stopping:
            self._turn(CHECK_SECONDS)
            if check.passed():
                check = Deadline(CHECK_SECONDS)
                self._check_deadlines()
        return self._drain()

    def stop(self) -> None:
        """Begin to stop. Calling it again changes nothing."""
        self._stopping = True
        if self._awake:
            self._servers[0].pull_trigger()

    def abort(self) -> None:
        """Stop now; what is running is cut."""
        self._aborted = True
        self.stop()

    def _turn(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=self._use_poll, map=self._map, count=1)

    def _check_deadlines(self) -> None:
        now = time.time()
        for channel in list(self._connections.values()):
            channel.check_deadlines(now, self._timeouts.keepalive_timeout)

    def _drain(self) -> Drained:
        deadline = Deadline(self._timeouts.graceful_timeout)
        for server in self._servers:
            server.stop_accepting()
        self._turn(0)  # what has arrived by now is a request, and its connection is not idle
        if running := self._pending():
            logger.info(
                "stopping; %d request%s to finish within %s",
                running,
                "s" if running > 1 else "",
                format_duration(self._timeouts.graceful_timeout),
            )
        while self._connections and not self._aborted and not deadline.passed():
            now = time.time()
            for channel in list(self._connections.values()):
                channel.drain(now)
            self._turn(min(DRAIN_TURN_SECONDS, deadline.remaining()))
        drained = Drained(self._finished, self._pending())
        # Before the channels close: that wakes threads that wait for a client, and they would take the next request that is queued.
        self._dispatcher.drop_queue()
        for channel in list(self._connections.values()):
            channel.handle_close()
        if self._dispatcher.stop(Deadline(0 if self._aborted else THREAD_STOP_SECONDS)):
            # Only now: a service thread that still runs may write to the wake-up pipe, whose number could be another file's by then.
            self._awake = False
            for server in self._servers:
                server.trigger.close()
        return drained

    def _pending(self) -> int:
        return sum(channel.pending() for channel in self._connections.values())

    def _count(self, done: RequestDone) -> None:
        if self._stopping:
            with self._finished_lock:
                self._finished += 1
        self._request_done(done)
