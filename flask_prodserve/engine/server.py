"""A listener as the loop sees it: accepts connections and makes channels of them."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress.server import BaseWSGIServer

from ..clock import Deadline
from ..net.listeners import Listener
from ..observe.events import RequestDone
from .adjustments import EngineAdjustments
from .channel import Channel
from .loop import Loop
from .tls_channel import TLSChannel

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger("flask_prodserve.engine")

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHORTAGE_PAUSE_SECONDS = 0.5
"""How long not to accept after the system ran out of descriptors: the listener stays readable, and trying again would spin."""


class Server(BaseWSGIServer):  # type: ignore[misc]  # waitress is not annotated
    """One listener. Several share the *loop*, its *map*, and the *connections*."""

    effective_host: str
    effective_port: int
    draining = False
    interest = 0
    """The events that this listener is watched for. The loop's."""
    in_connection_overflow: bool

    def __init__(
        self,
        application: WSGIApplication,
        listener: Listener,
        map: dict[int, Any],
        connections: dict[int, Channel],
        loop: Loop,
        adjustments: EngineAdjustments,
        *,
        tls: ssl.SSLContext | None,
        request_done: Callable[[RequestDone], None] | None,
        error_logger: logging.Logger,
    ) -> None:
        self.listener = listener
        self.loop = loop
        self.tls = tls
        self.request_done = request_done
        self.error_logger = error_logger
        self.channel_class = TLSChannel if tls else Channel
        self._tcp = listener.socket.family != getattr(socket, "AF_UNIX", None)
        self._pause: Deadline | None = None
        self._lock = threading.Lock()
        self.finished = 0
        super().__init__(
            application,
            map=map,
            _sock=listener.socket,
            dispatcher=loop,
            adj=adjustments,
            sockinfo=(listener.socket.family, listener.socket.type, listener.socket.proto, None),
            bind_socket=False,
        )
        self.active_channels = connections
        self.trigger.close()  # the loop has one of its own

    # waitress's hooks.

    def getsockname(self) -> tuple[str, int]:
        """What SERVER_NAME and SERVER_PORT say when the client sends no Host. A Unix socket has neither: the scheme's port."""
        if not self._tcp:
            return "localhost", 443 if self.tls else 80
        host, port = self.listener.socket.getsockname()[:2]
        return host, port

    def local_address(self, sock: socket.socket) -> tuple[str, int]:
        """The same for one connection: on a listener for every interface only that knows where the client reached us."""
        if self.effective_host not in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound here
            return self.effective_host, self.effective_port
        host, port = sock.getsockname()[:2]
        return host, port

    def set_reuse_addr(self) -> None:
        """Nothing: ``net.listeners`` has opened the socket as it should be."""

    def accept_connections(self) -> None:
        """Accept from now on; the socket listens already."""
        self.accepting = True

    def readable(self) -> bool:
        if self._pause is not None:
            if not self._pause.passed():
                return False
            self._pause = None
        return self.accepting and not self._full()

    def handle_accept(self) -> None:
        """Accept all that wait, as far as MAX_CONNECTIONS allows."""
        while not self._full():
            try:
                sock, address = self.listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._pause = Deadline(SHORTAGE_PAUSE_SECONDS)
                    logger.warning(
                        "cannot accept connections: %s; raise the limit of open files (ulimit -n)", error.strerror
                    )
                    break
                continue  # that client has gone already; accept() reports it instead of the connection
            self._welcome(sock, address)
        self.check()

    def check(self) -> None:
        """Accept again where it is time to, and pause where nothing can be accepted. From the loop's thread."""
        if self.accepting:
            self.loop.attend(self)

    def channel_closed(self) -> None:
        """One of the connections has made room."""
        if self.in_connection_overflow:
            self.check()

    def _welcome(self, sock: socket.socket, address: Any) -> None:
        try:
            if self._tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A Unix peer has no address; "" as in gunicorn and Werkzeug.
            peer = address[:2] if self._tcp else ("", None)
            self.channel_class(self, sock, peer, self.adj, map=self._map)
        except OSError:
            sock.close()  # gone before it could be set up

    def _full(self) -> bool:
        full: bool = len(self.active_channels) >= self.adj.max_connections
        if full and not self.in_connection_overflow:
            logger.warning(
                "MAX_CONNECTIONS (%d) reached; new connections wait until one closes", self.adj.max_connections
            )
        self.in_connection_overflow = full
        return full

    # Draining.

    def count(self) -> None:
        """A request has been answered while draining."""
        with self._lock:
            self.finished += 1

    def stop_accepting(self) -> None:
        """Take in what the kernel has accepted already, then close the listener.

        Closed before the first client is told ``Connection: close``: one that connects again at once must find another server, and
        not a listener that is about to reset it.
        """
        if not self.accepting:
            return
        self.handle_accept()
        self.accepting = False
        self.loop.forget(self)
        self.del_channel()
        self.listener.close()
        self.socket = None
        self.draining = True
