"""A client connection over TLS, non-blocking.

OpenSSL's connection object must not be used by two threads at once: the loop's thread reads only while the channel is not running, and
whoever sends then holds ``output_lock``. A handshake happens inside the first reads; what it has to send goes out as part of them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

from .adjustments import EngineAdjustments
from .channel import Channel

if TYPE_CHECKING:
    from .reply import Reply
    from .server import Server

RECORD_BYTES = 1 << 14
"""Given to OpenSSL at a time, a whole record (RFC 8446, section 5.1): of more it may send a part, and still want all of it again."""


class TLSChannel(Channel):
    scheme = "https"

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        addr: tuple[str, int | None],
        adj: EngineAdjustments,
        map: dict[int, Any],
        turned_away: Reply | None = None,
    ) -> None:
        assert server.tls is not None
        self._handshake_sends = False
        tls_socket = server.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        super().__init__(server, tls_socket, addr, adj, map, turned_away)

    def writable(self) -> bool:
        return self._handshake_sends or super().writable()

    def handle_write(self) -> None:
        if self._handshake_sends and not super().writable():
            self.handle_read()
        else:
            super().handle_write()

    def receive(self, size: int) -> bytes | None:
        self._handshake_sends = False
        try:
            data: bytes = self.socket.recv(size)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self._handshake_sends = True
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        return data

    def send_bytes(self, data: bytes | bytearray | memoryview) -> int:
        sent = 0
        with memoryview(data) as view:
            while sent < len(view):
                try:
                    sent += self.socket.send(view[sent : sent + RECORD_BYTES])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    break
        return sent

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """Not past OpenSSL."""
        return None

    def shut_down_sending(self) -> None:
        """Send close_notify, so that the client can tell an end from a cut (RFC 8446, section 6.1)."""
        # Sent, or not to be had without waiting; the client's answer is of no interest.
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.socket.unwrap()
