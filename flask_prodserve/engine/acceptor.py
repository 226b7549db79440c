"""A listener as the event loop sees it: accepts connections."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Sequence
from typing import Any

from ..clock import Deadline
from ..net.listeners import Listener
from ..net.tls import Certificates
from ..wsgi.forwarded import PeerTrust
from .connection.connection import Connection
from .connection.event_loop import EventLoop
from .connection.proxy_header import ProxyHeaderReader
from .connection.table import ConnectionTable, turn_away
from .connection.tls_transport import WIDE_CONNECTIONS, TLSTransport
from .connection.transport import TCPTransport, Transport
from .context import EngineContext
from .exchange.peer import Peer
from .exchange.reply import Reply
from .exchange.responders import Responder

logger = logging.getLogger("flask_prodserve.engine")

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

ACCEPT_SECONDS = 0.002
"""How long connections are accepted before the open ones get their turn."""

UNSENT_BYTES = 1 << 20
"""What the system may keep for a client in addition to what is on its way to it."""

SHORTAGE_PAUSE_SECONDS = 0.5
"""How long accepting pauses if nothing helps against a shortage: the listener stays readable, and
trying again would spin.
"""


class Acceptor:
    """Accepts from *listener*. *announcers* are the peers whose connections begin with a PROXY
    header.

    One descriptor is kept in reserve, to tell a client that there are no more of them.
    """

    def __init__(
        self,
        listener: Listener,
        context: EngineContext,
        loop: EventLoop,
        table: ConnectionTable,
        responders: Sequence[Responder],
        *,
        tls: Certificates | None = None,
        announcers: PeerTrust | None = None,
    ) -> None:
        self.listener = listener
        self.descriptor = listener.socket.fileno()
        self.accepting = True
        self._context = context
        self._loop = loop
        self._table = table
        self._responders = responders
        self._tls = tls
        self._announcers = announcers
        self._wide = threading.Semaphore(WIDE_CONNECTIONS)
        self._is_tcp = listener.socket.family != getattr(socket, "AF_UNIX", None)
        self._scheme = "https" if tls else "http"
        # For SERVER_NAME and SERVER_PORT, if the client sends no Host. A Unix socket has neither.
        self._name: tuple[str, int] = ("localhost", 443 if tls else 80)
        if self._is_tcp:
            self._name = listener.socket.getsockname()[:2]
        self._pause: Deadline | None = None
        self._spare: int | None = None
        if self._is_tcp and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Connections inherit it from their listener. What a slow client does not take stays
            # with us, where it is counted.
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    # For the event loop.

    def readable(self) -> bool:
        if self._pause is not None:
            if not self._pause.passed():
                return False
            self._pause = None
        return self.accepting

    def writable(self) -> bool:
        return False

    def handle_write(self) -> None:
        """Nothing: a listener sends nothing."""

    def handle_error(self) -> None:
        logger.exception("cannot accept connections")

    def handle_read(self) -> None:
        """Accept one connection, and more while none of the open ones has to wait and no other
        process should take them.
        """
        enough = Deadline(ACCEPT_SECONDS)
        while self._accept() and not self._loop.defers_accepting and not enough.passed():
            pass
        if self._spare is None:
            self._spare = _spare_descriptor()
        self.check()

    def check(self) -> None:
        """Accept again after a pause, or begin to pause. In the event loop's thread."""
        if self.accepting:
            self._loop.update_interest(self)

    def _accept(self) -> bool:
        """Accept one connection. Return whether there may be more."""
        try:
            sock, address = self.listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            # Otherwise that client has gone already: accept() reports it instead of the connection.
            if error.errno not in _SHORTAGE:
                return True
            # The system looks for a descriptor first, and for a connection then.
            return _is_readable(self.listener.socket) and self._relieve(error)
        self._welcome(sock, address)
        return True

    def _relieve(self, error: OSError) -> bool:
        """Close an idle connection or turn a new one away: the system is short of something. Return
        whether accepting can go on.
        """
        self._context.limit_events.count(
            "descriptors", f"cannot accept connections: {error.strerror}; raise the limit of open files (ulimit -n)"
        )
        if self._table.evict():
            return True
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                turn_away(self.listener.socket.accept()[0], tls=self._tls is not None)
            self._spare = _spare_descriptor()
            if self._spare is not None:
                return True
        self._pause = Deadline(SHORTAGE_PAUSE_SECONDS)
        return False

    def _welcome(self, sock: socket.socket, address: Any) -> None:
        # A Unix peer has no address; "" as in gunicorn and Werkzeug.
        client, port = address[:2] if self._is_tcp else ("", None)
        refusal = self._table.refusal(client)
        if refusal is not None and not self._table.has_slack:
            turn_away(sock, tls=self._tls is not None)
            return
        connection = None
        try:
            sock.setblocking(False)
            if self._is_tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._connection(sock, Peer(client, port, *self._reached_at(sock), self._scheme), refusal)
            self._table.add(connection)
            self._loop.watch(connection)
        except OSError as error:
            # Either the client has gone already, or the connection cannot be watched.
            if connection is not None:
                self._context.limit_events.count(
                    "watching", f"closed new connections that cannot be watched: {error.strerror}"
                )
                self._table.remove(connection)
                connection.sender.close()
            sock.close()

    def _connection(self, sock: socket.socket, peer: Peer, refusal: Reply | None) -> Connection:
        tcp = TCPTransport(sock)
        transport: Transport = tcp
        if self._tls is not None:
            transport = TLSTransport(tcp, self._tls.context, self._wide, self._context.limit_events)
        header = None
        if self._announcers is not None and self._announcers.covers(peer.address):
            header = ProxyHeaderReader(sock, self._announcers.is_proxy)
        return Connection(transport, peer, self._context, self._loop, self._table, self._responders, header, refusal)

    def _reached_at(self, sock: socket.socket) -> tuple[str, int]:
        """Return the server's name and port for SERVER_NAME. On a listener for all interfaces only
        the connection knows them.
        """
        if self._name[0] not in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound here
            return self._name
        host, port = sock.getsockname()[:2]
        return host, port

    # The end.

    def close(self) -> None:
        """Close the listener at once."""
        self.stop_accepting(last=False)

    def stop_accepting(self, *, last: bool) -> None:
        """Take in what the kernel has accepted already, if this is the *last* process that listens,
        then close the listener.

        Closed before the first client is told ``Connection: close``: if that client connects again
        at once it must find another server, and not a listener that is about to reset it.
        """
        if not self.accepting:
            return
        # One connection may be there that only this process has been woken for.
        for _ in range(self._context.backlog if last else 1):
            if not self._accept():
                break
        self.accepting = False
        self._loop.forget(self)
        self.listener.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def abandon(self) -> None:
        """Close the descriptors in a child process. See ``net.forked``."""
        self.listener.socket.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _is_readable(listening: socket.socket) -> bool:
    """Tell whether a connection waits to be accepted. True if that cannot be told."""
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
