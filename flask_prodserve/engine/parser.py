"""A request as waitress's channel expects to receive it, on top of the strict readers of ``protocol``.

Lives here: the interface between the two, and where a body is kept. Any decision about bytes belongs to ``protocol``.
"""

from __future__ import annotations

import errno
import io
import logging
from typing import IO

from waitress.parser import HTTPRequestParser

from ..protocol.chunked import ChunkedDecoder
from ..protocol.deadlines import Progress
from ..protocol.refusal import Refusal
from ..protocol.request_head import HeadReader, RequestHead
from ..units import format_size
from .adjustments import (
    RECEIVE_BODY_BYTES,
    RECEIVE_BYTES,
    RECEIVE_CHUNKS_BYTES,
    SMALL_CHUNKS,
    EngineAdjustments,
)
from .body import Body
from .reply import RETRY_AFTER_SECONDS, SPOOL_FULL, Reply
from .spool import SpoolFull, cannot_be_kept

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RequestParser(HTTPRequestParser):  # type: ignore[misc]  # waitress is not annotated
    """Collects one request. ``completed`` is set once it is whole, or once it is refused (then ``reply`` says why).

    A refused message swallows all that follows it: where a message ends is no longer known.
    """

    completed: bool
    expect_continue: bool
    headers_finished: bool
    reply: Reply | None = None
    head: RequestHead | None = None
    _body: Body | None = None
    _decoder: ChunkedDecoder | None = None
    _missing = 0
    _step = RECEIVE_BYTES
    """How much of a chunked body is read at a time besides its current chunk. Once its chunks turn out to be small, that is for good: a
    client that has others in between must not get more at once again.
    """

    def __init__(self, adjustments: EngineAdjustments) -> None:
        self._adjustments = adjustments
        self._reader = HeadReader(adjustments.head_limits)
        self.began = adjustments.clock()
        self.body_progress: Progress | None = None
        """How the body comes, if there is one."""

    @property
    def started(self) -> bool:
        """Whether any of the request is there: blank lines between requests are nothing."""
        return self._reader.started

    @property
    def body_received(self) -> int:
        """Bytes of the body that are there, without their framing."""
        return 0 if self._body is None else self._body.size

    @property
    def receive_size(self) -> int:
        """How many bytes to read next, so that no client keeps the loop from others for long: chunks cost by their number."""
        expected = self._missing if self._decoder is None else self._decoder.missing
        return min(expected + self._step, RECEIVE_BODY_BYTES)

    @property
    def path(self) -> str:
        """For waitress's log lines."""
        return self.head.target if self.head else "?"

    def received(self, data: bytes) -> int:
        """Take what belongs to this request; returns the number of bytes taken."""
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
            self._adjustments.cuts.count("MAX_SPOOL", "request bodies get 503, since no more may be kept for clients")
            self.refuse(SPOOL_FULL)
        except OSError as error:
            self._adjustments.cuts.count("disk", f"request bodies {cannot_be_kept(error)}", logging.ERROR)
            if error.errno in _NO_SPACE:
                self.refuse(Reply(507, "The server has no space for this request."))
            else:
                self.refuse(Reply(503, "The server cannot keep this request.", retry_after=RETRY_AFTER_SECONDS))
        return len(data)

    def refuse(self, reply: Reply) -> None:
        """Answer it with *reply*, whatever of it is there."""
        self.reply = reply
        self.completed = True
        self.expect_continue = False

    def _count(self, setting: str) -> None:
        """Say which *setting* has refused the request: its client is told the status only."""
        adjustments = self._adjustments
        most = adjustments.head_limits
        match setting:
            case "MAX_REQUEST_LINE":
                what = f"requests get 414 whose first line has more than {most.request_line} bytes"
            case "MAX_HEADER_SIZE":
                what = f"requests get 431 whose head is larger than {format_size(most.size)}"
            case "MAX_HEADER_COUNT":
                what = f"requests get 431 that have more than {most.count} header fields"
            case _:
                assert self.head is not None
                endpoint = adjustments.endpoint_of(self.head)
                if endpoint.limits.max_body is None:
                    what = f"rejected request bodies over {format_size(adjustments.max_body_size)} with 413"
                else:
                    setting = "max_body"
                    size = format_size(endpoint.limits.max_body)
                    what = f"rejected request bodies over {size} for {endpoint.name} with 413"
        adjustments.cuts.count(setting, what)

    def _receive_head(self, data: bytes) -> int:
        consumed = self._reader.feed(data)
        head = self._reader.head
        if head is None:
            return consumed
        self.head = head
        self.headers_finished = True
        if not head.chunked and not head.content_length:
            self.completed = True
            return consumed
        limit = self._adjustments.endpoint_of(head).limits.max_body
        if limit is None:
            limit = self._adjustments.max_body_size
        if head.chunked:
            self._decoder = ChunkedDecoder(limit)
        else:
            assert head.content_length is not None
            if head.content_length > limit:
                raise Refusal(413, "The request body is larger than this server accepts.", "MAX_BODY_SIZE")
            self._missing = head.content_length
        self.body_progress = Progress(self._adjustments.clock(), self._adjustments.min_body_rate)
        self._body = Body(self._missing, self._adjustments.spool)
        # waitress clears this when it has sent the 100; it must never be set on a request that is complete or refused.
        self.expect_continue = head.expect_continue
        return consumed

    def _receive_body(self, data: bytes) -> int:
        assert self.head is not None
        assert self._body is not None
        # A client may send the body without waiting for the 100, which is then no longer of use (RFC 9110, section 10.1.1).
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

    def get_body_stream(self) -> IO[bytes]:
        """The whole body, from its start; memory or a temporary file."""
        return io.BytesIO() if self._body is None else self._body.stream()

    def close(self) -> None:
        """Give up the body's memory or file."""
        if self._body is not None:
            self._body.close()
