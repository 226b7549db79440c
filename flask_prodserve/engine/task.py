"""One response: the WSGI call (PEP 3333), and what goes out for a request that was refused.

Runs in a service thread. Rules: an exception of the app is logged exactly once and never shown to the client; before the head has
gone out it becomes a 500, after that the connection is cut, so that the client can tell that the response is incomplete. However
it ends, ``request_done`` is called once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected

from ..clock import monotonic
from ..observe.events import RequestDone
from ..protocol.request_head import RequestHead
from ..protocol.response_head import Framing, ResponseHead, compose, http_date
from .parser import RequestParser

if TYPE_CHECKING:
    from .channel import Channel

Fields = list[tuple[str, str]]
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType]

CLIENT_CLOSED_REQUEST = 499
"""Logged, never sent: the client left before there was a response (nginx's number for it)."""


class Response:
    """Sends one response on a channel: the head with the first bytes of the body, then the rest in the head's framing."""

    def __init__(self, channel: Channel, method: str, version: str, keep_alive: bool) -> None:
        self._channel = channel
        self._method = method
        self._version = version
        self._keep_alive = keep_alive
        self._unsent = b""
        self.head: ResponseHead | None = None
        self.status = CLIENT_CLOSED_REQUEST
        self.body_bytes = 0
        self.excess = False

    @property
    def bodiless(self) -> bool:
        return self.head is not None and self.head.framing is Framing.NONE

    @property
    def keeps_alive(self) -> bool:
        return self.head is not None and self.head.keep_alive

    @property
    def missing(self) -> int:
        """Bytes that the head announced and that were not sent."""
        if self.head is None or self.head.framing is not Framing.LENGTH or self.head.length is None:
            return 0
        return self.head.length - self.body_bytes

    def start(self, status: str, fields: Sequence[tuple[str, str]], body_length: int | None) -> None:
        """Compose the head, which goes out with the first bytes. Raises InvalidResponse for what cannot be sent."""
        self.head = compose(
            status,
            fields,
            method=self._method,
            version=self._version,
            keep_alive=self._keep_alive and not self._channel.closes_after_response(),
            body_length=body_length,
            date=http_date(time.time()),
            server=self._channel.adj.server_header,
        )
        self.status = int(status[:3])
        self._unsent = self.head.data

    def send(self, data: bytes) -> None:
        """Send *data* as body, as far as there may be one."""
        assert self.head is not None, "start() composes the head"
        framing = self.head.framing
        if framing is Framing.NONE:
            data = b""
        elif framing is Framing.LENGTH and len(data) > self.missing:
            data = data[: self.missing]
            self.excess = True
        self.body_bytes += len(data)
        if framing is Framing.CHUNKED and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._write(data)

    def send_file(self, file: IO[bytes], size: int) -> None:
        """Hand *file* to the channel, which sends *size* bytes of it and closes it."""
        self._write(b"")
        self._channel.write_file(file, size)
        self.body_bytes += size

    def finish(self) -> None:
        self._write(b"0\r\n\r\n" if self.head is not None and self.head.framing is Framing.CHUNKED else b"")

    def _write(self, data: bytes) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent or data:
            self._channel.write(unsent + data if unsent else data)


class ErrorTask:
    """The answer to a request that was refused; the connection closes after it."""

    close_on_finish = True
    streaming_since: float | None = None

    def __init__(self, channel: Channel, request: RequestParser) -> None:
        assert request.error is not None
        self.channel = channel
        self.request = request

    def service(self) -> None:
        refusal = self.request.error
        assert refusal is not None
        head = self.request.head
        response = Response(self.channel, head.method if head else "GET", "1.1", keep_alive=False)
        try:
            send_plain(response, refusal.status, refusal.reason)
        except ClientDisconnected:
            pass
        finally:
            _report(self.channel, self.request, response, {"REMOTE_ADDR": self.channel.addr[0]}, 0.0)


class Task:
    """One call of the WSGI application."""

    close_on_finish = False
    streaming_since: float | None = None
    """When the app began to send a body that it goes on with, by the monotonic clock."""

    def __init__(self, channel: Channel, request: RequestParser) -> None:
        assert request.head is not None
        self.channel = channel
        self.request = request
        self._head: RequestHead = request.head
        self._response = Response(channel, self._head.method, self._head.version, self._head.keep_alive)
        self._status: str | None = None
        self._fields: Fields = []
        self._app_seconds = 0.0

    def service(self) -> None:
        environ = self.environ()
        try:
            self._call(environ)
        except ClientDisconnected:
            self.close_on_finish = True
        except BaseException as error:  # also SystemExit of a view: a request must not end a service thread
            self._fail(error)
        else:
            self.close_on_finish = not self._response.keeps_alive or self._response.missing > 0
        finally:
            _report(self.channel, self.request, self._response, environ, self._app_seconds)

    def _call(self, environ: dict[str, Any]) -> None:
        began = time.perf_counter()
        chunks = self.channel.server.application(environ, self.start_response)
        self._app_seconds = time.perf_counter() - began
        handed_over = False
        try:
            if isinstance(chunks, ReadOnlyFileBasedBuffer) and (size := chunks.prepare(self._content_length())):
                handed_over = self._send_file(chunks, size)
            else:
                self._send_chunks(chunks)
        finally:
            if not handed_over and hasattr(chunks, "close"):
                chunks.close()
        if self._response.missing or self._response.excess:
            self._complain(
                "the app sent %s bytes than its Content-Length says", "fewer" if self._response.missing else "more"
            )

    def _send_file(self, file: ReadOnlyFileBasedBuffer, size: int) -> bool:
        """Returns whether the channel has taken *file* over, and will close it."""
        declared = self._content_length()
        if declared is not None and declared != size:
            self._complain("the file is %d bytes long, and Content-Length says %d", size, declared)
            self._fields = [(name, value) for name, value in self._fields if name.lower() != "content-length"]
        self._start(size)
        if self._response.bodiless:
            self._response.finish()
            return False
        self._response.send_file(file.file, size)
        return True

    def _send_chunks(self, chunks: Iterable[bytes]) -> None:
        iterator = iter(chunks)
        while True:
            began = time.perf_counter()
            chunk = next(iterator, None)
            self._app_seconds += time.perf_counter() - began
            if chunk is None:
                break
            # The head waits for the first bytes: until then the app may change its mind (PEP 3333).
            if chunk:
                if self._response.head is None:
                    self._start(len(chunk) if _is_single(chunks) else None)
                if self._response.bodiless:
                    if self._head.method != "HEAD":
                        self._complain("the body is not sent, since status %d has none", self._response.status)
                    break
                self._response.send(chunk)
                if self.streaming_since is None:
                    self.streaming_since = monotonic()
        if self._response.head is None:
            self._start(0)
        self._response.finish()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExceptionInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._response.head is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback (PEP 3333)
        elif self._status is not None:
            raise AssertionError("start_response() was called again without exc_info")
        self._status, self._fields = status, list(headers)
        return self.write

    def write(self, data: bytes) -> None:
        """The imperative way to send, which PEP 3333 keeps for old applications."""
        if self._response.head is None:
            self._start(None)
        self._response.send(data)
        if self.streaming_since is None:
            self.streaming_since = monotonic()

    def _start(self, body_length: int | None) -> None:
        if self._status is None:
            raise AssertionError("the app sent a body without calling start_response()")
        self._response.start(self._status, self._fields, body_length)
        assert self._response.head is not None
        for correction in self._response.head.corrections:
            self._complain("%s", correction)

    def _content_length(self) -> int | None:
        for name, value in self._fields:
            if name.lower() == "content-length" and value.isdecimal():
                return int(value)
        return None

    def _fail(self, error: BaseException) -> None:
        self.close_on_finish = True
        self.channel.server.error_logger.error(
            "Exception on %s [%s]", self._head.target, self._head.method, exc_info=error
        )
        if self._response.head is None:
            try:
                send_plain(self._response, 500, "The server could not answer this request.")
                self.close_on_finish = not self._response.keeps_alive
            except ClientDisconnected:
                pass

    def _complain(self, message: str, *arguments: object) -> None:
        self.channel.server.error_logger.warning(
            f"Response to %s [%s]: {message}", self._head.target, self._head.method, *arguments
        )

    def environ(self) -> dict[str, Any]:
        """The WSGI environment (PEP 3333), before any middleware."""
        head, channel = self._head, self.channel
        address, port = channel.addr
        environ: dict[str, Any] = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": head.path,
            "QUERY_STRING": head.query,
            "REQUEST_URI": head.target,
            "REMOTE_ADDR": address,
            "SERVER_NAME": channel.server_name,
            "SERVER_PORT": str(channel.server_port),
            "SERVER_PROTOCOL": f"HTTP/{head.version}",
            "SERVER_SOFTWARE": "flask-prodserve",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": channel.scheme,
            "wsgi.input": self.request.get_body_stream(),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": channel.adj.multithread,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": ReadOnlyFileBasedBuffer,
            "waitress.client_disconnected": channel.check_client_disconnected,
        }
        if port is not None:
            environ["REMOTE_PORT"] = str(port)
        environ.update(head.fields)
        return environ


def send_plain(response: Response, status: int, reason: str) -> None:
    """Answer with one sentence of plain text."""
    phrase = HTTPStatus(status).phrase
    body = f"{phrase}\n\n{reason}\n".encode("latin-1")
    response.start(f"{status} {phrase}", [("Content-Type", "text/plain; charset=utf-8")], len(body))
    response.send(body)


def _report(
    channel: Channel, request: RequestParser, response: Response, environ: dict[str, Any], app_seconds: float
) -> None:
    """Tell whoever wants to know what became of a request. The environment says whom the proxies say it came from."""
    server = channel.server
    if server.draining:
        server.count()
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
            total_seconds=time.perf_counter() - request.began,
        )
    )


def _is_single(chunks: Iterable[bytes]) -> bool:
    """Whether the first chunk is the whole body (PEP 3333 lets the server tell the length then)."""
    try:
        return len(chunks) == 1  # type: ignore[arg-type]  # most iterables have no length, which is the question
    except TypeError:
        return False
