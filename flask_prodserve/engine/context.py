"""What the parts of an engine share. Made once for each engine; no part replaces anything in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..clock import Clock, monotonic
from ..observe.events import RequestDone
from ..observe.limit_events import LimitEvents
from ..protocol.request_head import HeadLimits, RequestHead
from ..settings.endpoint_limits import Route
from .spool import Spool

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings import Settings
    from ..settings.groups.limits import Timeouts
    from ..wsgi.static_file import FileAnswer

FileFor = Callable[[RequestHead, str], "tuple[FileAnswer, str] | None"]
"""Returns the static file that answers a request from a peer, and the client's address; None if the
app answers.
"""


class DrainCount:
    """Counts the requests that end while the engine drains. For any thread."""

    def __init__(self) -> None:
        self.active = False
        """Whether the engine drains."""
        self.finished = 0
        self.left = 0
        """Requests whose client left before the response was complete."""
        self._lock = threading.Lock()

    def add(self, *, left: bool) -> None:
        with self._lock:
            self.left += left
            self.finished += not left


@dataclass(frozen=True, slots=True)
class EngineContext:
    """*multiprocess*: other processes may serve the same app. For the other callables see the
    engine.
    """

    application: Callable[..., Iterable[bytes]]
    timeouts: Timeouts
    head_limits: HeadLimits
    max_body_size: int
    max_keepalive_requests: int
    threads: int
    backlog: int
    server_header: str | None
    multiprocess: bool
    clock: Clock
    limit_events: LimitEvents
    spool: Spool
    drain: DrainCount
    error_logger: logging.Logger
    request_done: Callable[[RequestDone], None] | None
    route_of: Callable[[RequestHead], Route]
    has_limits: bool
    file_for: FileFor | None

    @classmethod
    def of(
        cls,
        application: WSGIApplication,
        settings: Settings,
        *,
        error_logger: logging.Logger,
        request_done: Callable[[RequestDone], None] | None = None,
        route_of: Callable[[RequestHead], Route] | None = None,
        has_limits: bool = False,
        file_for: FileFor | None = None,
        multiprocess: bool = False,
        limit_events: LimitEvents | None = None,
        clock: Clock = monotonic,
    ) -> EngineContext:
        limits = settings.limits
        return cls(
            application=application,
            timeouts=settings.timeouts,
            head_limits=HeadLimits(limits.max_request_line, limits.max_header_size, limits.max_header_count),
            max_body_size=limits.max_body_size,
            max_keepalive_requests=limits.max_keepalive_requests,
            threads=settings.workers.threads,
            backlog=settings.bind.backlog,
            server_header=settings.behaviour.server_header,
            multiprocess=multiprocess,
            clock=clock,
            limit_events=limit_events or LimitEvents(clock),
            spool=Spool(limits.max_spool),
            drain=DrainCount(),
            error_logger=error_logger,
            request_done=request_done,
            route_of=route_of or (lambda head: Route(f"{head.method} {head.path}")),
            has_limits=has_limits,
            file_for=file_for,
        )
