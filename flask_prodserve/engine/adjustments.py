"""The settings in the form that waitress's classes carry about: its Adjustments, and what ours need besides."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from waitress.adjustments import Adjustments

from ..clock import Clock, monotonic
from ..observe.cuts import Cuts
from ..protocol.request_head import HeadLimits, RequestHead
from ..settings.endpoint_limits import UNLIMITED, Endpoint
from .spool import Spool

if TYPE_CHECKING:
    from ..settings import Settings

RECEIVE_BYTES = 65536
"""Read at a time from a client, besides what is known to be the body's, or its current chunk's."""

RECEIVE_BODY_BYTES = 1 << 18
"""The most that is read at a time with that, which costs next to nothing to take."""

RECEIVE_CHUNKS_BYTES = 1 << 14
"""In place of RECEIVE_BYTES in a body of small chunks: 2,700 of a byte each, which take two milliseconds."""

SMALL_CHUNKS = 512
"""More chunks than so many in one read make a body one of small chunks. In reads of RECEIVE_BYTES they have 128 bytes or less each, and
are still taken in less than half a millisecond.
"""


class EngineAdjustments(Adjustments):  # type: ignore[misc]  # waitress is not annotated
    """Made once per engine, read by servers, channels, parsers and tasks.

    *endpoint_of* tells for which endpoint a request is, in an app where any has limits. *multiprocess*: other processes may serve the
    same app. *cuts* and *clock* are those of the engine.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        endpoint_of: Callable[[RequestHead], Endpoint] = lambda head: UNLIMITED,
        multiprocess: bool = False,
        cuts: Cuts | None = None,
        clock: Clock = monotonic,
    ) -> None:
        super().__init__(
            threads=settings.workers.threads,
            backlog=settings.bind.backlog,
            recv_bytes=RECEIVE_BYTES,
            asyncore_use_poll=hasattr(select, "poll"),  # select() cannot watch descriptors above 1023
            clear_untrusted_proxy_headers=False,  # wsgi.forwarded does it
            log_socket_errors=False,  # clients that go away are no errors
            ident=None,
        )
        limits = settings.limits
        self.head_limits = HeadLimits(limits.max_request_line, limits.max_header_size, limits.max_header_count)
        self.max_body_size = limits.max_body_size
        self.max_keepalive_requests = limits.max_keepalive_requests
        self.min_body_rate = settings.timeouts.min_body_rate
        self.min_send_rate = settings.timeouts.min_send_rate
        self.endpoint_of = endpoint_of
        self.request_timeout_raise = settings.timeouts.request_timeout_raise
        self.spool = Spool(limits.max_spool)
        self.cuts = Cuts(clock) if cuts is None else cuts
        self.clock = clock
        self.server_header = settings.behaviour.server_header
        self.multiprocess = multiprocess
        self.multithread = settings.workers.threads > 1
