"""A client connection over TLS, non-blocking.

OpenSSL's connection object must not be used by two threads at once, and the loop's thread reads while a service thread may send: one
lock around both. A handshake happens inside the first reads; what it has to send goes out as part of them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

from .adjustments import EngineAdjustments
from .channel import Channel

if TYPE_CHECKING:
    from .server import Server


class TLSChannel(Channel):
    scheme = "https"

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        addr: tuple[str, int | None],
        adj: EngineAdjustments,
        map: dict[int, Any],
    ) -> None:
        assert server.tls is not None
        self._tls_lock = threading.Lock()
        self._handshake_sends = False
        tls_socket = server.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(server, tls_socket, addr, adj, map)

    def writable(self) -> bool:
        return self._handshake_sends or bool(super().writable())

    def handle_write(self) -> None:
        if self._handshake_sends:
            self.handle_read()
        else:
            super().handle_write()

    def receive(self, size: int) -> bytes | None:
        self._handshake_sends = False
        try:
            with self._tls_lock:
                return bytes(self.socket.recv(size))
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self._handshake_sends = True
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def send(self, data: bytes, do_close: bool = True) -> int:
        with self._tls_lock:
            try:
                return int(self.socket.send(data))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0

    def shut_down_sending(self) -> None:
        """Send close_notify, so that the client can tell an end from a cut (RFC 8446, section 6.1)."""
        # Sent, or not to be had without waiting; the client's answer is of no interest.
        with self._tls_lock, contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.socket.unwrap()
