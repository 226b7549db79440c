"""One request while it is received: its head and its body.

Every decision about bytes belongs to ``protocol``. This file decides where the body is kept and
what is answered to a refused request.
"""

from __future__ import annotations

import errno
import io
import logging
from typing import IO

from ...protocol.chunked import ChunkedDecoder
from ...protocol.deadlines import Progress
from ...protocol.refusal import Refusal
from ...protocol.request_head import HeadReader, RequestHead
from ...settings.endpoint_limits import UNLIMITED, EndpointLimits, Route
from ...units import format_size
from ..context import EngineContext
from ..spool import SpoolFull, cannot_be_kept
from .body import Body
from .reply import RETRY_AFTER_SECONDS, SPOOL_FULL, Reply

RECEIVE_BYTES = 65536
"""Read at a time from a client, in addition to what is known to belong to the body or to its
current chunk.
"""

RECEIVE_BODY_BYTES = 1 << 18
"""The most that is read at a time in total. Bytes of a body cost next to nothing to take."""

RECEIVE_CHUNKS_BYTES = 1 << 14
"""Replaces RECEIVE_BYTES in a body of small chunks: 2,700 chunks of one byte, which take two
milliseconds.
"""

SMALL_CHUNKS = 512
"""More chunks than this in one read make a body one of small chunks. In reads of RECEIVE_BYTES they
have 128 bytes or less each, and still take less than half a millisecond.
"""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Request:
    """Collects one request. ``completed`` is set when it is whole, or when it is refused; then
    ``reply`` is the answer.

    A refused request consumes everything that follows it, since its end is not known.
    """

    __slots__ = (
        "_body",
        "_context",
        "_decoder",
        "_missing",
        "_reader",
        "_route",
        "_step",
        "began",
        "body_progress",
        "completed",
        "expect_continue",
        "head",
        "reply",
    )

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._reader = HeadReader(context.head_limits)
        self._body: Body | None = None
        self._decoder: ChunkedDecoder | None = None
        self._missing = 0
        self._route: Route | None = None
        # How much of a chunked body is read at a time in addition to its current chunk. Small
        # chunks lower it for good: a client that mixes in large ones must not get more at a time
        # again.
        self._step = RECEIVE_BYTES
        self.began = context.clock()
        self.head: RequestHead | None = None
        self.reply: Reply | None = None
        self.completed = False
        self.expect_continue = False
        """Whether the client waits for ``100 Continue``. Never set for a request that is complete
        or refused.
        """
        self.body_progress: Progress | None = None
        """How fast the body arrives, if there is one."""

    @property
    def started(self) -> bool:
        """Tell whether any of the request has arrived. Blank lines between requests do not count."""
        return self._reader.started

    @property
    def route(self) -> Route:
        """Where the request leads, found once. Its head must be complete."""
        if self._route is None:
            assert self.head is not None
            self._route = self._context.route_of(self.head)
        return self._route

    @property
    def limits(self) -> EndpointLimits:
        """The limits of its endpoint. Its route is not looked for if no endpoint has any."""
        return self.route.endpoint.limits if self._context.has_limits else UNLIMITED.limits

    @property
    def body_received(self) -> int:
        """Bytes of the body that have arrived, without framing."""
        return 0 if self._body is None else self._body.size

    @property
    def receive_size(self) -> int:
        """How many bytes to read next. Bounded, since chunks cost time by their number, and other
        clients wait.
        """
        expected = self._missing if self._decoder is None else self._decoder.missing
        return min(expected + self._step, RECEIVE_BODY_BYTES)

    def received(self, data: bytes) -> int:
        """Take the bytes of *data* that belong to this request. Return how many that were."""
        if self.completed:
            return 0
        try:
            if self.head is None:
                return self._receive_head(data)
            return self._receive_body(data)
        except Refusal as refusal:
            if refusal.setting is not None:
                self._count(refusal.setting)
            self.refuse(Reply(refusal.status, refusal.reason))
        except SpoolFull:
            self._context.limit_events.count(
                "MAX_SPOOL", "rejected request bodies with 503: no more bytes may be kept for clients"
            )
            self.refuse(SPOOL_FULL)
        except OSError as error:
            self._context.limit_events.count("disk", f"request bodies {cannot_be_kept(error)}", logging.ERROR)
            if error.errno in _NO_SPACE:
                self.refuse(Reply(507, "The server has no space for this request."))
            else:
                self.refuse(Reply(503, "The server cannot keep this request.", retry_after=RETRY_AFTER_SECONDS))
        return len(data)

    def refuse(self, reply: Reply) -> None:
        """Answer the request with *reply*, however much of it has arrived."""
        self.reply = reply
        self.completed = True
        self.expect_continue = False

    def _count(self, setting: str) -> None:
        """Log which *setting* refused the request. The client sees only the status."""
        most = self._context.head_limits
        match setting:
            case "MAX_REQUEST_LINE":
                what = f"rejected request lines over {most.request_line} bytes with 414"
            case "MAX_HEADER_SIZE":
                what = f"rejected request heads over {format_size(most.size)} with 431"
            case "MAX_HEADER_COUNT":
                what = f"rejected requests with more than {most.count} header fields with 431"
            case _:
                endpoint = self.route.endpoint
                if endpoint.limits.max_body is None:
                    what = f"rejected request bodies over {format_size(self._context.max_body_size)} with 413"
                else:
                    setting = "max_body"
                    size = format_size(endpoint.limits.max_body)
                    what = f"rejected request bodies over {size} for {endpoint.name} with 413"
        self._context.limit_events.count(setting, what)

    def _receive_head(self, data: bytes) -> int:
        consumed = self._reader.feed(data)
        head = self._reader.head
        if head is None:
            return consumed
        self.head = head
        if not head.chunked and not head.content_length:
            self.completed = True
            return consumed
        limit = self.limits.max_body
        if limit is None:
            limit = self._context.max_body_size
        if head.chunked:
            self._decoder = ChunkedDecoder(limit)
        else:
            assert head.content_length is not None
            if head.content_length > limit:
                raise Refusal(413, "The request body is larger than this server accepts.", "MAX_BODY_SIZE")
            self._missing = head.content_length
        self.body_progress = Progress(self._context.clock(), self._context.timeouts.min_body_rate)
        self._body = Body(self._missing, self._context.spool)
        self.expect_continue = head.expect_continue
        return consumed

    def _receive_body(self, data: bytes) -> int:
        assert self.head is not None
        assert self._body is not None
        # A client may send the body without waiting for the 100, which is then of no use (RFC 9110,
        # section 10.1.1).
        self.expect_continue = False
        if self._decoder is not None:
            chunks = self._decoder.chunks
            consumed = self._decoder.feed(data, self._body.append)
            if self._decoder.chunks - chunks > SMALL_CHUNKS:
                self._step = RECEIVE_CHUNKS_BYTES
            if self._decoder.complete:
                self._body.finish()
                self.completed = True
                # The app sees a decoded body of known length (RFC 9112, section 7.1.3).
                self.head.fields["CONTENT_LENGTH"] = str(self._decoder.received)
            return consumed
        part = data[: self._missing]
        self._body.append(part)
        self._missing -= len(part)
        if self._missing == 0:
            self._body.finish()
            self.completed = True
        return len(part)

    def body_stream(self) -> IO[bytes]:
        """Return the whole body, at its start: memory or a temporary file."""
        return io.BytesIO() if self._body is None else self._body.stream()

    def close(self) -> None:
        """Release the body's memory or file."""
        if self._body is not None:
            self._body.close()
