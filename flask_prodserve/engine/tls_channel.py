"""A client connection over TLS, non-blocking.

- OpenSSL's connection object must not be used by two threads at once: the loop's thread reads only while the channel is not running, and
  whoever sends then holds ``output_lock``. So does whoever closes.
- A handshake happens inside the first reads. What it has to send goes out as part of them, and waits for room, if it must, in
  ``_handshake_sends``. Until it is over the connection is in the phase CONNECTED, so that HEADER_TIMEOUT holds for it from accept.
- Nothing that epoll does not see stays behind: OpenSSL takes one record at a time from the socket, and each read has room for all of it.
- A message's length is known from its head, so that an end without close_notify is an end like any other: what is incomplete is
  never taken for complete (RFC 9112, section 9.8).
- Neither renegotiation nor anything else lets a client make a write wait for a read (``net.tls``).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from typing import IO, TYPE_CHECKING, Any

from ..net.client_certificates import variables
from .adjustments import RECEIVE_BYTES, EngineAdjustments
from .channel import Channel
from .output import READ_BYTES
from .parser import RequestParser
from .reply import Reply

if TYPE_CHECKING:
    from .response import Response
    from .server import Server

RECORD_BYTES = 1 << 14
"""A whole record (RFC 8446, section 5.1). Given to OpenSSL at a time for a client that is slow, whose progress is seen by that."""

MOST_BYTES = READ_BYTES
"""Given to it otherwise: each time the GIL goes to another thread and has to be had again. What of it was not taken has to be given again,
in one piece, and no more than this is read from a file.
"""

LONG_BYTES = 1 << 21
"""Whose encryption takes about a millisecond: for less it is not worth while to pass the lead on."""

_SPEAKS_HTTPS = Reply(400, "This port speaks https: write https:// in place of http://.")


class TLSChannel(Channel):
    scheme = "https"
    handshakes = True

    socket: Any
    """A NamedSocket; a plain one where ``_plain``."""
    _begun = False
    """Whether anything has come."""
    _plain = False
    """Whether the client does not speak TLS. It is told so, in its own words, and nothing else."""
    _handshake_sends = False
    _again = 0
    """How much OpenSSL has to be given again, at least, after it could send only a part."""

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
        # Linux has this, and TCP.
        self._corks = hasattr(socket, "TCP_CORK") and sock.family != getattr(socket, "AF_UNIX", None)
        tls_socket = server.tls.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        try:
            # Python makes a plain socket of one that is not connected any more. What still is now was then.
            tls_socket.getpeername()
            super().__init__(server, tls_socket, addr, adj, map, turned_away)
        except OSError:
            tls_socket.close()
            raise

    def writable(self) -> bool:
        return self._handshake_sends or super().writable()

    def handle_write(self) -> None:
        if self._handshake_sends and not super().writable():
            self.handle_read()
        else:
            super().handle_write()

    def received(self, data: bytes) -> bool:
        if not self._plain:
            return super().received(data)
        self.adj.cuts.count("plain HTTP", "clients that speak http to an https port get 400", logging.INFO)
        request = RequestParser(self.adj)
        request.refuse(_SPEAKS_HTTPS)
        self.requests.append(request)
        self.running = True
        return True

    def receive(self, size: int) -> bytes | None:
        if not self._begun:
            self._begin()
        if self._plain:
            return super().receive(size)
        data = self._record()
        if not data or size <= RECEIVE_BYTES:
            return data
        # In the middle of a request all that is there counts as sent, as it does without TLS.
        records, taken = [data], len(data)
        with contextlib.suppress(OSError):  # which comes again
            while taken < size and (data := self._record()):
                records.append(data)
                taken += len(data)
        return b"".join(records)

    def _record(self) -> bytes | None:
        """What a record has, after a handshake, as far as it is there. As :meth:`receive`."""
        self._handshake_sends = False
        try:
            data: bytes = self.socket.recv(RECORD_BYTES)
        except (ssl.SSLWantReadError, BlockingIOError):  # the latter once it is shut down
            return None
        except ssl.SSLWantWriteError:
            self._handshake_sends = True
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            if self.handshakes:
                self.adj.cuts.count("TLS", f"handshakes fail, lately with {error.reason}", logging.INFO)
            raise
        if data and self.handshakes:
            self.handshakes = False
            self.environ = variables(self.socket, self.socket.server_name)
        return data

    def _begin(self) -> None:
        """See what the client speaks. A handshake begins with 22 (RFC 8446, section 5.1), and what people type, or HTTP, with a letter."""
        try:
            first = socket.socket.recv(self.socket, 1, socket.MSG_PEEK)  # not ssl's, which has no flags
        except BlockingIOError:
            return
        self._begun = True
        if first.isalpha():
            self._plain = True
            self.handshakes = False
            self.socket = socket.socket(fileno=self.socket.detach())
            self.socket.setblocking(False)

    def write(self, response: Response, data: bytes | memoryview) -> None:
        self._give_way(len(data))
        super().write(response, data)

    def write_file(self, file: IO[bytes], size: int) -> None:
        self._give_way(size)
        super().write_file(file, size)

    def _give_way(self, size: int) -> None:
        """Encryption of much takes its time, in which others can run."""
        if size > LONG_BYTES:
            self.server.loop.give_way()

    def send_bytes(self, data: bytes | bytearray | memoryview) -> int:
        if self._plain:
            return super().send_bytes(data)
        if len(data) <= RECORD_BYTES or not self._corks:
            return self._send_records(data)
        # Each record is a write to the system, which would send each as a packet of its own.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            return self._send_records(data)
        finally:
            with contextlib.suppress(OSError):  # gone
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _send_records(self, data: bytes | bytearray | memoryview) -> int:
        sent = 0
        with memoryview(data) as view:
            while sent < len(view):
                size = self._again or (RECORD_BYTES if self.output.size else MOST_BYTES)
                try:
                    sent += self.socket.send(view[sent : sent + size])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    self._again = size
                    break
                self._again = 0
        return sent

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """Not past OpenSSL."""
        return None

    def shut_down_sending(self) -> bool:
        """Send close_notify, so that the client can tell an end from a cut (RFC 8446, section 6.1), and then what ends any connection."""
        if not self._plain:
            try:
                self.socket.unwrap()
            except ssl.SSLWantWriteError:
                return False
            except ssl.SSLError:
                pass  # it is sent; what the client says to it, if it says something already, is of no interest
        return super().shut_down_sending()

    def handle_close(self) -> None:
        with self.output_lock:
            if self.socket is not None and not self._plain and not self.output.size:
                with contextlib.suppress(OSError, ValueError):  # in a handshake, gone, or shut down already
                    self.socket.unwrap()
            super().handle_close()
