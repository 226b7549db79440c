"""One client connection.

Rules of waitress that hold here: the loop's thread reads, closes, and parses; a service thread runs one request at a time and sends
what it can; ``requests`` is changed under ``requests_lock``, output under ``outbuf_lock``; the socket is closed by the loop only.

What this adds: a connection that is closed after a response is shut down for writing first and read until the client has closed
(RFC 9112, section 9.6), or else unread bytes make the kernel reset the connection, and the client may lose the response.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from waitress.channel import HTTPChannel

from ..clock import Deadline
from .adjustments import EngineAdjustments
from .parser import RequestParser
from .task import ErrorTask, Task

if TYPE_CHECKING:
    from .server import Server

LINGER_SECONDS = 5.0
"""How long a closed connection may go on sending what nobody will read (nginx: lingering_timeout)."""

DRAIN_IDLE_SECONDS = 1.0
"""While draining: how long a connection that has just been used may send its next request, to be told ``Connection: close``."""


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress is not annotated
    parser_class = RequestParser
    task_class = Task
    error_task_class = ErrorTask

    server: Server
    will_close: bool
    close_when_flushed: bool
    request: RequestParser | None
    requests: list[RequestParser]
    scheme = "http"

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        addr: tuple[str, int | None],
        adj: EngineAdjustments,
        map: dict[int, Any],
    ) -> None:
        self._lingering: Deadline | None = None
        # Where the client reached us: on a listener for every interface only the connection knows.
        self.server_name, self.server_port = server.local_address(sock)
        super().__init__(server, sock, addr, adj, map=map)

    # The loop's side.

    def readable(self) -> bool:
        return self._lingering is not None or bool(super().readable())

    def handle_read(self) -> None:
        try:
            data = self.receive(self.adj.recv_bytes)
        except OSError:  # reset by the client, or bytes that are no TLS
            self.handle_close()
            return
        if data is None:
            return
        if not data:
            self.handle_close()
        elif self._lingering is None:
            self.last_activity = time.time()
            self.received(data)

    def receive(self, size: int) -> bytes | None:
        """Bytes from the client, ``b""`` when it has closed, ``None`` when there is nothing now."""
        try:
            return bytes(self.socket.recv(size))
        except BlockingIOError:
            return None

    def handle_write(self) -> None:
        if self.total_outbufs_len:
            self._flush_exception(self._flush_some_if_lockable if self.requests else self._flush_some)
            if self.socket is None:
                return  # sending found it closed
        if self.close_when_flushed and not self.total_outbufs_len:
            self.close_when_flushed = False
            self._linger()
        if self.will_close:
            self.handle_close()

    def _linger(self) -> None:
        self._lingering = Deadline(LINGER_SECONDS)
        try:
            self.shut_down_sending()
        except OSError:
            self.will_close = True

    def shut_down_sending(self) -> None:
        """Tell the client that nothing more comes."""
        self.socket.shutdown(socket.SHUT_WR)

    def check_deadlines(self, now: float, keepalive_timeout: float) -> None:
        """Have the loop close this connection if it has been idle, or has lingered, for too long. *now* is wall-clock time."""
        if self._lingering is not None:
            overdue = self._lingering.passed()
        else:
            overdue = not self.requests and now - self.last_activity > keepalive_timeout
        if overdue:
            self.will_close = True

    def drain(self, now: float) -> None:
        """Close this connection if nothing is going on in it. At once, and not by the loop's next turn: a request that arrives
        meanwhile would be lost."""
        if self.pending() == 0 and now - self.last_activity > DRAIN_IDLE_SECONDS:
            self.handle_close()

    def pending(self) -> int:
        """Requests that are being received, queued, running, or whose response the client has not taken yet."""
        request = self.request
        unfinished = len(self.requests) + (request is not None and request.started)
        return unfinished or int(self.total_outbufs_len > 0)

    # Both sides.

    def closes_after_response(self) -> bool:
        """Whether the response that is about to be sent must be the last one on this connection."""
        return self.server.draining and len(self.requests) <= 1
