"""How a response leaves: its head with the first bytes of its body, then the rest in the head's framing; and what is reported of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from waitress.channel import ClientDisconnected

from ..observe.events import RequestDone
from ..protocol.response_head import Framing, ResponseHead, compose, compose_known, http_date

if TYPE_CHECKING:
    from .channel import Channel
    from .parser import RequestParser

JOINED_BYTES = 1 << 16
"""How much of a body is copied behind its head, to be sent with it: other threads stand still meanwhile."""

PROBE = b"0"
"""May be sent between two chunks: the size of the next one then has one more zero at its beginning (RFC 9112, section 7.1)."""

CLIENT_CLOSED_REQUEST = 499
"""Logged, never sent: the client left before there was a response (nginx's number for it)."""


class Response:
    """Sends one response on a channel: the head with the first bytes of the body, then the rest in the head's framing."""

    head: ResponseHead | None = None
    status = CLIENT_CLOSED_REQUEST
    body_bytes = 0
    missing = 0
    """Bytes that the head has announced and that were not sent."""
    excess = False
    begun = False
    """Whether the client has any of it. Changed under the channel's ``output_lock``."""
    abandoned = False
    """Whether somebody else has answered meanwhile: nothing more is sent. Changed under ``output_lock``."""
    ended = False
    """Whether the end of a chunked body is sent or about to be."""
    probed = False
    """Whether PROBE has been sent. Changed under ``output_lock``."""
    waits = True
    """Whether who sends it may wait until room has been made for what the client does not take."""
    _unsent = b""

    def __init__(self, channel: Channel, method: str, version: str, keep_alive: bool) -> None:
        self._channel = channel
        self._method = method
        self._version = version
        self._keep_alive = keep_alive

    @property
    def bodiless(self) -> bool:
        return self.head is not None and self.head.framing is Framing.NONE

    @property
    def complete(self) -> bool:
        """Whether no more body may be sent, since there is none or Content-Length is reached."""
        head = self.head
        return head is not None and not self.missing and head.framing in (Framing.NONE, Framing.LENGTH)

    @property
    def may_probe(self) -> bool:
        """Whether PROBE may be sent where nothing else is being sent. Once is enough: a client that is still there then finds out."""
        head = self.head
        return head is not None and head.framing is Framing.CHUNKED and not (self.ended or self.probed)

    @property
    def keeps_alive(self) -> bool:
        return self.head is not None and self.head.keep_alive

    def start(self, status: str, fields: Sequence[tuple[str, str]], body_length: int | None) -> None:
        """Compose the head, which goes out with the first bytes; until then it may be composed anew. Raises InvalidResponse for what cannot
        be sent.
        """
        # The fields of static files are tuples.
        head = self.head = (compose_known if type(fields) is tuple else compose)(
            status,
            fields,
            self._method,
            self._version,
            self._keep_alive and not self._channel.closes_after_response(),
            body_length,
            http_date(time.time()),
            self._channel.adj.server_header,
        )
        self.status = head.status
        self.body_bytes = 0
        self.missing = head.length or 0
        self.excess = False
        self._unsent = head.data

    def send(self, data: bytes) -> None:
        """Send *data* as body, as far as there may be one."""
        assert self.head is not None, "start() composes the head"
        framing = self.head.framing
        if framing is Framing.NONE:
            data = b""
        elif framing is Framing.LENGTH:
            if len(data) > self.missing:
                data = data[: self.missing]
                self.excess = True
            self.missing -= len(data)
        self.body_bytes += len(data)
        if framing is Framing.CHUNKED and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._write(data)

    def send_file(self, file: IO[bytes], size: int) -> None:
        """Send *size* bytes of *file* as body, from where it is. It is closed in the end, whatever happens."""
        try:
            self._write(b"", more=size > 0)
        except ClientDisconnected:
            file.close()
            raise
        self._channel.write_file(file, size)
        self.body_bytes += size
        self.missing -= size

    def finish(self) -> None:
        if self.head is not None and self.head.framing is Framing.CHUNKED:
            self.ended = True
            self._write(b"0\r\n\r\n")
        elif self._unsent:
            self._write(b"")

    def _write(self, data: bytes, *, more: bool = False) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent and len(data) > JOINED_BYTES:
            view = memoryview(data)  # raises TypeError for what are no bytes, while nothing has gone out
            self._channel.write(self, unsent, more=True)
            self._channel.write(self, view)
        elif unsent or data:
            self._channel.write(self, unsent + data if unsent else data, more=more)


def report(
    channel: Channel, request: RequestParser, response: Response, environ: Mapping[str, Any], app_seconds: float
) -> None:
    """Tell whoever wants to know what became of a request. The environment says whom the proxies say it came from."""
    server = channel.server
    if server.draining:
        server.count(left=channel.will_close or not channel.connected)
    if server.request_done is None:
        return
    head = request.head
    fields = head.fields if head else {}
    server.request_done(
        RequestDone(
            finished_at=time.time(),
            remote_addr=str(environ.get("REMOTE_ADDR") or ""),
            method=head.method if head else "",
            target=head.target if head else "",
            protocol=f"HTTP/{head.version}" if head else "",
            status=response.status,
            response_bytes=response.body_bytes,
            referer=fields.get("HTTP_REFERER", ""),
            user_agent=fields.get("HTTP_USER_AGENT", ""),
            host=fields.get("HTTP_HOST", ""),
            app_seconds=app_seconds,
            total_seconds=server.clock() - request.began,
        )
    )
