"""How a response leaves: its head with the first bytes of its body, then the rest in the framing
that the head announces; and the report of a finished request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

from ...observe.events import RequestDone
from ...protocol.response_head import Framing, ResponseHead, compose, compose_known, http_date
from ..context import EngineContext
from ..waitress_parts import ClientDisconnected
from .peer import Peer
from .request import Request

JOINED_BYTES = 1 << 16
"""Up to this size a body is copied behind its head and sent with it. Other threads wait for the
copy.
"""

PROBE = b"0"
"""May be sent between two chunks: the size of the next one then begins with one more zero (RFC
9112, section 7.1).
"""

CLIENT_CLOSED_REQUEST = 499
"""Logged, never sent: the client left before there was a response (nginx's number for it)."""


class Client(Protocol):
    """What an exchange needs of its connection."""

    @property
    def context(self) -> EngineContext: ...

    @property
    def peer(self) -> Peer: ...

    @property
    def environ(self) -> Mapping[str, str]:
        """What the connection adds to the WSGI environment."""

    @property
    def has_left(self) -> bool:
        """Whether the connection is closed, or is about to be because something could not be sent."""

    def write(self, response: Response, data: bytes | memoryview, *, more: bool = False) -> None:
        """Send *data*. If *more*, it may wait for the next bytes. Raises ClientDisconnected."""

    def write_file(self, file: IO[bytes], size: int) -> None:
        """Send *size* bytes from the position of *file*, and close it in any case. Raises
        ClientDisconnected.
        """

    def closes_after_response(self) -> bool:
        """Tell whether the next response must be the last one on this connection."""

    def check_client_disconnected(self) -> bool:
        """Tell whether the client has closed or has shut down its sending side."""


class Response:
    """Sends one response to *client*."""

    head: ResponseHead | None = None
    status = CLIENT_CLOSED_REQUEST
    body_bytes = 0
    missing = 0
    """Bytes that the head has announced and that were not sent."""
    excess = False
    """Whether the app sent more bytes than Content-Length announces."""
    begun = False
    """Whether the client has any of it. Changed under the connection's ``output_lock``."""
    abandoned = False
    """Whether another thread has answered meanwhile, so nothing more is sent. Changed under
    ``output_lock``.
    """
    ended = False
    """Whether the end of a chunked body is sent or about to be."""
    probed = False
    """Whether PROBE has been sent. Changed under ``output_lock``."""
    waits = True
    """Whether the sending thread may wait until the spool has room."""
    _unsent = b""

    def __init__(self, client: Client, method: str, version: str, keep_alive: bool) -> None:
        self._client = client
        self._method = method
        self._version = version
        self._keep_alive = keep_alive

    @property
    def bodiless(self) -> bool:
        return self.head is not None and self.head.framing is Framing.NONE

    @property
    def complete(self) -> bool:
        """Whether no more body may be sent: there is none, or Content-Length is reached."""
        head = self.head
        return head is not None and not self.missing and head.framing in (Framing.NONE, Framing.LENGTH)

    @property
    def may_probe(self) -> bool:
        """Whether PROBE may be sent if nothing else is being sent. One is enough to find out that a
        client has gone.
        """
        head = self.head
        return head is not None and head.framing is Framing.CHUNKED and not (self.ended or self.probed)

    @property
    def keeps_alive(self) -> bool:
        return self.head is not None and self.head.keep_alive

    def start(self, status: str, fields: Sequence[tuple[str, str]], body_length: int | None) -> None:
        """Compose the head, which goes out with the first bytes. Until then it may be composed
        again.

        Raises InvalidResponse for a head that cannot be sent.
        """
        # The fields of static files are tuples, which have been checked.
        head = self.head = (compose_known if type(fields) is tuple else compose)(
            status,
            fields,
            self._method,
            self._version,
            self._keep_alive and not self._client.closes_after_response(),
            body_length,
            http_date(time.time()),
            self._client.context.server_header,
        )
        self.status = head.status
        self.body_bytes = 0
        self.missing = head.length or 0
        self.excess = False
        self._unsent = head.data

    def send(self, data: bytes) -> None:
        """Send *data* as body, up to the end of the body."""
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
        """Send *size* bytes from the position of *file* as body, and close it in any case."""
        try:
            self._write(b"", more=size > 0)
        except ClientDisconnected:
            file.close()
            raise
        self._client.write_file(file, size)
        self.body_bytes += size
        self.missing -= size

    def finish(self) -> None:
        """Send what ends the response."""
        if self.head is not None and self.head.framing is Framing.CHUNKED:
            self.ended = True
            self._write(b"0\r\n\r\n")
        elif self._unsent:
            self._write(b"")

    def _write(self, data: bytes, *, more: bool = False) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent and len(data) > JOINED_BYTES:
            view = memoryview(data)  # raises TypeError for an object that is no bytes, while nothing has gone out
            self._client.write(self, unsent, more=True)
            self._client.write(self, view)
        elif unsent or data:
            self._client.write(self, unsent + data if unsent else data, more=more)


def report(
    client: Client, request: Request, response: Response, environ: Mapping[str, Any], app_seconds: float
) -> None:
    """Report a finished request. *environ* has the client's address as the proxies name it."""
    context = client.context
    if context.drain.active:
        context.drain.add(left=client.has_left)
    if context.request_done is None:
        return
    head = request.head
    fields = head.fields if head else {}
    context.request_done(
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
            total_seconds=context.clock() - request.began,
        )
    )
