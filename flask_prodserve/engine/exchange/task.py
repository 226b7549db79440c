"""One call of the WSGI application (PEP 3333), or a static file instead of it.

Runs in a service thread. Rules:

- An exception of the app is logged once and never shown to the client. Before any byte of the head
  has gone out it becomes a 500; after that the connection is cut, so that the client can tell that
  the response is incomplete.
- However the request ends, ``request_done`` is called once.
- A response ends with the last byte that may be sent. Its iterable is then closed, which raises
  GeneratorExit in a generator, and ``write()`` raises ResponseComplete (PEP 3333, "Handling the
  Content-Length Header": a server should stop iterating when enough data has been sent). Servers
  that exhaust the iterable keep a thread for ever if it never ends.
- A file whose reading may block is read here, like any other body, and not by the event loop.
- A child process that the app has forked ends when it returns from the app's code: it takes no lock
  and answers no client.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from ...errors import RequestTimedOut
from ...net.forked import end_child
from ...protocol.response_head import WITHOUT_BODY
from ..waitress_parts import ClientDisconnected
from .file_wrapper import FileWrapper, is_at_hand
from .interrupt import Interruptible
from .reply import Reply
from .reply_task import send_reply
from .request import Request
from .response import Client, Response, report

Fields = Sequence[tuple[str, str]]
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType]

_WITHOUT_BODY = frozenset(map(str, WITHOUT_BODY))


class ResponseComplete(BaseException):
    """Raised by ``write()`` after the end of the response. Like GeneratorExit, it is no Exception,
    so that apps do not handle it.
    """


class Task:
    """Made and run by the same thread."""

    close_on_finish = False
    streaming_since: float | None = None
    """When the app began to send the body, by the engine's clock."""
    interruptible: Interruptible | None = None
    """Set if REQUEST_TIMEOUT_RAISE is on."""
    slow = False
    """Whether SLOW_REQUEST has been logged. Used by the event loop's thread only."""
    _status: str | None = None
    _fields: Fields = ()
    _chunks: Iterable[bytes] = ()
    _app_seconds = 0.0

    def __init__(self, client: Client, request: Request) -> None:
        assert request.head is not None
        self._client = client
        self._context = context = client.context
        self.request = request
        self.head = head = request.head
        self.response = Response(client, head.method, head.version, head.keep_alive)
        self.thread = threading.get_ident()
        self.began = context.clock()
        self.environ: dict[str, Any] = {"REMOTE_ADDR": client.peer.address}
        """The WSGI environment, as soon as the app is called."""

    def service(self) -> None:
        try:
            if not self._send_static_file():
                if self._context.timeouts.request_timeout_raise:
                    # In a context of its own: an exception that arrives while the app resets a
                    # context variable would leave the value for the next request.
                    contextvars.Context().run(self._call)
                else:
                    self._call()
        except ClientDisconnected:
            self.close_on_finish = True
        except BaseException as error:  # also SystemExit of a view: a request must not end a service thread
            self._fail(error)
        else:
            self.close_on_finish = not self.response.keeps_alive or self.response.missing > 0
        finally:
            if not self.response.abandoned:
                report(self._client, self.request, self.response, self.environ, self._app_seconds)

    def _send_static_file(self) -> bool:
        """Send the static file that the request is for, without the app. Return whether there is
        one.
        """
        file_for = self._context.file_for
        found = None if file_for is None else file_for(self.head, self._client.peer.address)
        if found is None:
            return False
        (status, fields, content, file, size), address = found
        self.environ["REMOTE_ADDR"] = address
        self.response.start(status, fields, 0)
        if file is None:
            self.streaming_since = self._context.clock()
            self.response.send(content)
        else:
            self.response.send_file(file, size)
        return True

    def _call(self) -> None:
        environ = self.environ = self._environ()
        try:
            if self._context.timeouts.request_timeout_raise:
                with Interruptible() as self.interruptible:
                    self._answer(environ)
            else:
                self._answer(environ)
        except ResponseComplete:
            pass
        finally:
            # Outside of the block that can be interrupted: nothing comes between a response and its
            # end.
            if hasattr(self._chunks, "close"):
                self._chunks.close()
        if self.response.missing or self.response.excess:
            self._complain(
                "the app sent %s bytes than its Content-Length says", "fewer" if self.response.missing else "more"
            )

    def _answer(self, environ: dict[str, Any]) -> None:
        began = time.perf_counter()
        try:
            chunks = self._chunks = self._context.application(environ, self.start_response)
        finally:
            end_child()
        self._app_seconds = time.perf_counter() - began
        file = chunks if self._status is None or self._status[:3] != "206" else _part_of_file(chunks)
        if (
            isinstance(file, FileWrapper)
            and is_at_hand(file.file)
            and (size := file.bytes_left(self._content_length()))
        ):
            self._send_file(file, size)
        else:
            self._send_chunks(chunks)

    def _send_file(self, file: FileWrapper, size: int) -> None:
        self._leave_app()
        declared = self._content_length()
        if declared is not None and declared != size:
            self._complain("the file is %d bytes long, and Content-Length says %d", size, declared)
            self._fields = [(name, value) for name, value in self._fields if name.lower() != "content-length"]
        self._start(size)
        if self.response.bodiless:
            self.response.finish()
            return
        self.response.send_file(file.file, size)
        self._chunks = ()  # the connection owns the file now, and closes it

    def _send_chunks(self, chunks: Iterable[bytes]) -> None:
        iterator = iter(chunks)
        # A body in memory is iterated to its end: that keeps no thread, and the log can name an
        # excess.
        at_hand = isinstance(chunks, (list, tuple))
        while at_hand or not self._is_complete():
            began = time.perf_counter()
            try:
                chunk = next(iterator, None)
            finally:
                end_child()
            self._app_seconds += time.perf_counter() - began
            if chunk is None:
                break
            # The head waits for the first bytes: until then the app may change its mind (PEP 3333).
            if chunk:
                if self.response.head is None:
                    self._start(len(chunk) if _is_single(chunks) else None)
                if self.response.bodiless:
                    if self.head.method != "HEAD":
                        self._complain("the body is not sent, since status %d has none", self.response.status)
                    break
                if self.streaming_since is None:
                    self.streaming_since = self._context.clock()
                self.response.send(chunk)
            elif self.response.head is None and self._content_length() == 0:
                break
        if self.response.head is None:
            self._start(0)
        self.response.finish()

    def _is_complete(self) -> bool:
        """Tell whether no more bytes of the app's body may be sent."""
        if self.response.head is not None:
            return self.response.complete
        return self._status is not None and (self.head.method == "HEAD" or self._status[:3] in _WITHOUT_BODY)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExceptionInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.response.head is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback (PEP 3333)
        elif self._status is not None:
            raise AssertionError("start_response() was called again without exc_info")
        self._status, self._fields = status, list(headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send *data* at once, as PEP 3333 allows old applications to. Raises ResponseComplete
        after the end of the response.
        """
        end_child()
        if data and self.response.complete:
            self.response.excess = not self.response.bodiless
            raise ResponseComplete
        if self.response.head is None:
            self._start(None)
        if self.streaming_since is None:
            self.streaming_since = self._context.clock()
        self.response.send(data)

    def _start(self, body_length: int | None) -> None:
        if self._status is None:
            raise AssertionError("the app sent a body without calling start_response()")
        self._leave_app()
        self.response.start(self._status, self._fields, body_length)
        assert self.response.head is not None
        for correction in self.response.head.corrections:
            self._complain("%s", correction)

    def _leave_app(self) -> None:
        """Allow no interruption from here on: what follows is the server's code."""
        if self.interruptible is not None:
            self.interruptible.leave()

    def _content_length(self) -> int | None:
        for name, value in self._fields:
            if name.lower() == "content-length" and value.isdecimal():
                return int(value)
        return None

    def _fail(self, error: BaseException) -> None:
        self.close_on_finish = True
        if isinstance(error, RequestTimedOut):
            return  # logged when it was raised
        self._context.error_logger.error("Exception on %s [%s]", self.head.target, self.head.method, exc_info=error)
        if not self.response.begun:
            try:
                send_reply(self.response, Reply(500, "The server could not answer this request."))
                self.close_on_finish = not self.response.keeps_alive
            except ClientDisconnected:
                pass

    def _complain(self, message: str, *arguments: object) -> None:
        self._context.error_logger.warning(
            f"Response to %s [%s]: {message}", self.head.target, self.head.method, *arguments
        )

    def _environ(self) -> dict[str, Any]:
        """Build the WSGI environment (PEP 3333), before any middleware."""
        head, client, context = self.head, self._client, self._context
        address, port, server_name, server_port, scheme, _ = client.peer
        environ: dict[str, Any] = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": head.path,
            "QUERY_STRING": head.query,
            "REQUEST_URI": head.target,
            "REMOTE_ADDR": address,
            "SERVER_NAME": server_name,
            "SERVER_PORT": str(server_port),
            "SERVER_PROTOCOL": f"HTTP/{head.version}",
            "SERVER_SOFTWARE": "flask-prodserve",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": self.request.body_stream(),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": context.threads > 1,
            "wsgi.multiprocess": context.multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "waitress.client_disconnected": client.check_client_disconnected,
        }
        if port is not None:
            environ["REMOTE_PORT"] = str(port)
        if client.environ:
            environ.update(client.environ)
        environ.update(head.fields)
        return environ


def _part_of_file(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Return the file inside the wrapper with which Werkzeug reads a range, at the start of the
    range. Content-Length has its end.
    """
    file = getattr(chunks, "iterable", None)
    if not isinstance(file, FileWrapper) or not hasattr(chunks, "start_byte") or not hasattr(file, "seek"):
        return chunks
    file.seek(chunks.start_byte)
    whole: Iterable[bytes] = file
    return whole


def _is_single(chunks: Iterable[bytes]) -> bool:
    """Tell whether the first chunk is the whole body, so that its length is the body's (PEP 3333)."""
    try:
        return len(chunks) == 1  # type: ignore[arg-type]  # most iterables have no length, which is the question
    except TypeError:
        return False
