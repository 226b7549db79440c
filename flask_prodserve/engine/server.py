"""A listener as the loop sees it: accepts connections and makes channels of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from waitress.server import BaseWSGIServer

from ..clock import Deadline
from ..net.listeners import Listener
from ..net.tls import Certificates
from ..observe.events import RequestDone
from .adjustments import EngineAdjustments
from .channel import Channel
from .connections import Connections, turn_away
from .event_loop import EventLoop
from .proxied_channel import proxied
from .redirect_channel import RedirectChannel
from .reply import Reply
from .tls_channel import WIDE_CONNECTIONS, TLSChannel

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..wsgi.forwarded import PeerTrust
    from .task import FileFor

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

ACCEPT_SECONDS = 0.002
"""How long connections are accepted before those that are open get their turn."""

UNSENT_BYTES = 1 << 20
"""What the system may keep for a client besides what is on its way to it."""

SHORTAGE_PAUSE_SECONDS = 0.5
"""How long not to accept where nothing can be done about a shortage: the listener stays readable, and trying again would spin."""


class Server(BaseWSGIServer):  # type: ignore[misc]  # waitress is not annotated
    """One listener. Several share the *loop*, its *map*, and the *connections*.

    *health* has what is answered without the app, by path. With *https_port*, all else is answered with a redirect to that port.
    Connections from *announcers* begin with a PROXY header. For *file_for* see the engine. Whoever cannot be served for want of
    descriptors is told so, with one that is kept for this.
    """

    effective_host: str
    effective_port: int
    draining = False

    def __init__(
        self,
        application: WSGIApplication,
        listener: Listener,
        map: dict[int, Any],
        connections: Connections,
        loop: EventLoop,
        adjustments: EngineAdjustments,
        *,
        tls: Certificates | None,
        https_port: int | None = None,
        request_done: Callable[[RequestDone], None] | None,
        error_logger: logging.Logger,
        health: Mapping[str, Callable[[], Reply]] = MappingProxyType({}),
        announcers: PeerTrust | None = None,
        file_for: FileFor | None = None,
    ) -> None:
        self.listener = listener
        self.connections = connections
        self.health = health
        self.file_for = file_for
        self.clock = adjustments.clock
        self.loop = loop
        self.tls = tls
        self.wide_connections = threading.Semaphore(WIDE_CONNECTIONS)  # see TLSChannel
        self.request_done = request_done
        self.error_logger = error_logger
        self.https_port = https_port
        self.channel_class = TLSChannel if tls else Channel if https_port is None else RedirectChannel
        self.announcers = announcers
        self._proxied_class = proxied(self.channel_class)
        self._tcp = listener.socket.family != getattr(socket, "AF_UNIX", None)
        self._pause: Deadline | None = None
        self._lock = threading.Lock()
        self._spare: int | None = None
        self.finished = self.left = 0
        super().__init__(
            application,
            map=map,
            _sock=listener.socket,
            dispatcher=loop,
            adj=adjustments,
            sockinfo=(listener.socket.family, listener.socket.type, listener.socket.proto, None),
            bind_socket=False,
        )
        self.active_channels = connections.channels
        self.trigger.close()  # the loop has one of its own
        if self._tcp and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Connections have it from their listener. What a slow client does not take stays with us, where it is counted.
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

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
        accepting: bool = self.accepting
        return accepting

    def handle_accept(self) -> None:
        """Accept what waits, as far as others must not wait for that, and other processes should not take it; one connection at least."""
        enough = Deadline(ACCEPT_SECONDS)
        while self._accept() and not self.loop.defers_accepting and not enough.passed():
            pass
        if self._spare is None:
            self._spare = _spare_descriptor()
        self.check()

    def _accept(self) -> bool:
        """Accept one connection. Returns whether there may be more."""
        try:
            sock, address = self.listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            # or that client has gone already; accept() reports it instead of the connection
            if error.errno not in _SHORTAGE:
                return True
            # The system looks for a descriptor first, and for a connection then.
            return _is_readable(self.listener.socket) and self._relieve(error)
        self._welcome(sock, address)
        return True

    def check(self) -> None:
        """Accept again where it is time to, and pause where nothing can be accepted. From the loop's thread."""
        if self.accepting:
            self.loop.update_interest(self)

    def _relieve(self, error: OSError) -> bool:
        """The system is short of something: close an idle connection, or turn a new one away. Returns whether it can go on."""
        self.adj.cuts.count(
            "descriptors", f"cannot accept: {error.strerror}; raise the limit of open files (ulimit -n)"
        )
        if self.connections.evict():
            return True
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                turn_away(self.listener.socket.accept()[0], tls=self.tls is not None)
            self._spare = _spare_descriptor()
            if self._spare is not None:
                return True
        self._pause = Deadline(SHORTAGE_PAUSE_SECONDS)
        return False

    def _welcome(self, sock: socket.socket, address: Any) -> None:
        # A Unix peer has no address; "" as in gunicorn and Werkzeug.
        peer = address[:2] if self._tcp else ("", None)
        refusal = self.connections.refusal(peer[0])
        if refusal is not None and not self.connections.has_slack:
            turn_away(sock, tls=self.tls is not None)
            return
        try:
            if self._tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            announced = self.announcers is not None and self.announcers.covers(peer[0])
            channel_class = self._proxied_class if announced else self.channel_class
            channel_class(self, sock, peer, self.adj, self._map, refusal)
        except OSError as error:
            # Either it has gone before it could be set up, or it is set up but for being watched, which is the last thing.
            channel = self.connections.channels.get(sock.fileno())
            if channel is not None:
                self.adj.cuts.count(
                    "watching", f"new connections are closed, which cannot be watched: {error.strerror}"
                )
                self.connections.remove(channel)
                channel.close()
            sock.close()

    # Draining.

    def count(self, *, left: bool) -> None:
        """Count a request that has ended while draining. *left*: its client has left before its response was complete."""
        with self._lock:
            self.left += left
            self.finished += not left

    def stop_accepting(self, *, last: bool) -> None:
        """Take in what the kernel has accepted already, if this is the *last* process that listens, then close the listener.

        Closed before the first client is told ``Connection: close``: one that connects again at once must find another server, and
        not a listener that is about to reset it.
        """
        if not self.accepting:
            return
        # One connection may be there that only this process has been woken for.
        for _ in range(self.adj.backlog if last else 1):
            if not self._accept():
                break
        self.accepting = False
        self.loop.forget(self)
        self.del_channel()
        self.listener.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        self.socket = None
        self.draining = True

    def abandon(self) -> None:
        """Close the descriptors in a child process. See ``net.forked``."""
        self.listener.socket.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _is_readable(listening: socket.socket) -> bool:
    """Whether a connection waits to be accepted; True where that cannot be told."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


def _spare_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
