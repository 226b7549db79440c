"""A client that sends exactly the bytes it is told to, and reads responses with h11: a strict reader that is not ours."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.request import HTTPSHandler, OpenerDirector, build_opener

import h11

from serving import PATIENCE

TLS: ssl.SSLContext | None = None
"""For every connection, where the servers speak TLS. An end without close_notify raises ssl.SSLEOFError then."""


def secure(sock: socket.socket) -> socket.socket:
    """*sock*, which is connected, after a handshake where the servers speak TLS."""
    if TLS is None:
        return sock
    return TLS.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)


def opener(*handlers: Any) -> OpenerDirector:
    """urllib's client, for whom the servers are who they are for ``Wire``."""
    return build_opener(HTTPSHandler(context=TLS), *handlers)


RESETS = (ConnectionResetError, ssl.SSLEOFError)
"""What a reset raises; the latter, over TLS, may also be an end without close_notify."""


def is_reset(sock: socket.socket) -> bool:
    """Whether the connection is reset, after what the client's system has of it already."""
    try:
        while socket.socket.recv(sock, 1 << 20):  # not ssl's, to which an end without close_notify looks the same
            pass
    except ConnectionResetError:
        return True
    return False


@dataclass
class Response:
    status: int
    fields: list[tuple[str, str]]
    body: bytes
    http_version: str

    def get(self, name: str) -> str | None:
        """The only field of that name, or None."""
        values = [value for field, value in self.fields if field.lower() == name.lower()]
        assert len(values) < 2, f"{name} is sent {len(values)} times"
        return values[0] if values else None


class Wire:
    """One connection to *address*: a (host, port) pair or the path of a Unix socket. *source* is the client's own address.

    Without *handshake* nothing of TLS is said until :meth:`begin`.
    """

    def __init__(self, address: tuple[str, int] | str, source: str | None = None, *, handshake: bool = True) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        try:
            if source is not None:
                self.socket.bind((source, 0))
            self.socket.connect(address)
            if handshake:
                self.socket = secure(self.socket)
        except OSError:
            self.socket.close()
            raise
        self._read = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def begin(self, before: bytes, data: bytes) -> None:
        """Send *before*, have a handshake where the servers speak TLS, and send *data*; where they do not, both at once."""
        if TLS is None:
            self.send(before + data)
        else:
            self.send(before)
            self.socket = secure(self.socket)
            self.send(data)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def shut_down_sending(self) -> None:
        """Tell the server's system that nothing more comes; over TLS without a word to the server itself."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)  # not ssl's, which goes on without TLS

    def response(self, method: str = "GET") -> Response:
        """Read the next final response, to a request with *method*. What follows it is kept for the next call."""
        reader = h11.Connection(h11.CLIENT)
        # h11 reads a response only after a request; its framing depends on the method.
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
        reader.send(h11.EndOfMessage())
        if self._read:
            reader.receive_data(self._read)
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                reader.receive_data(self.socket.recv(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise AssertionError(
                    f"the server closed before the response was complete: {event!r}, {bytes(body[:200])!r}"
                )
        assert head is not None
        self._read = reader.trailing_data[0]
        fields = [(name.decode(), value.decode()) for name, value in head.headers.raw_items()]
        return Response(head.status_code, fields, bytes(body), head.http_version.decode())

    def closed(self) -> bool:
        """Wait for the server's end of the connection; False when more bytes come instead."""
        return not self._read and self.socket.recv(65536) == b""


def get(
    address: tuple[str, int] | str,
    target: str = "/",
    *fields: str,
    method: str = "GET",
    body: bytes = b"",
    source: str | None = None,
) -> Response:
    """One request on a connection of its own."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with Wire(address, source) as wire:
        wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return wire.response(method)
