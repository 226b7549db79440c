"""How bytes travel between a connection and its client: :class:`TCPTransport` as they are (also
over a Unix socket), ``tls_transport`` encrypted.

A transport knows nothing of HTTP and holds no lock. Receiving happens in the event loop's thread
while the connection is not running; sending and closing under the connection's ``output_lock``.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from ...net.unsent import unacknowledged

_MORE = getattr(socket, "MSG_MORE", 0)
"""Makes the system wait for more bytes, for 200 ms at most (tcp(7), TCP_CORK), if it can."""

_LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER, on, for no time."""


class Transport(Protocol):
    """*at_a_time* and the sending methods are those of an ``output.Sink``."""

    descriptor: int
    scheme: str
    environ: Mapping[str, str]
    """What it adds to the WSGI environment."""
    at_a_time: int
    long_bytes: int
    """Sending more bytes than this at once takes so long that the event loop should run in another
    thread.
    """
    handshaking: bool
    """Whether the next bytes belong to a handshake. The event loop's thread only."""
    waits: bool
    """Whether something of the transport's own waits until the client takes it. Then nothing is
    read. The event loop's thread only.
    """
    has_received: bool
    """Whether anything has arrived that is not passed on, such as a part of a handshake."""
    client_ended: bool
    """Whether the client has said that it sends nothing more, other than by an end of file."""
    is_plain_http: bool
    """Whether the client speaks plain HTTP to a TLS port."""

    @property
    def sent_ahead(self) -> int:
        """Bytes at the beginning of the output that have gone to the system, though they still
        count as output.
        """

    @property
    def unacknowledged(self) -> int:
        """Bytes that the system has and the client's has not. Raises OSError or ValueError if it is
        closed.
        """

    def receive(self, size: int) -> bytes | None:
        """Return bytes from the client, ``b""`` at the end, None if nothing is there now. Raises
        OSError.
        """

    def send_bytes(self, data: bytes | bytearray | memoryview, total: int, *, more: bool = False) -> int:
        """Send what goes without waiting, and return how many bytes that was. *total* bytes wait,
        with these.

        If *more* follows at once, the client may get both together. Raises OSError.
        """

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """Send *count* bytes of a file without copying them. None if that cannot be done. Raises
        OSError.
        """

    def flush(self) -> bool:
        """Send what ``waits``. Return whether all of it has gone. Raises OSError."""

    def shut_down_sending(self) -> bool:
        """Tell the client that nothing more follows. Return False if that has to wait until the
        client takes something.
        """

    def has_hung_up(self) -> bool:
        """Tell whether the client has closed or has shut down its sending side. From any thread."""

    def has_failed(self) -> bool:
        """Tell whether the system has reported an error of the connection."""

    def reset_at_close(self) -> None:
        """Have :meth:`close` discard what the client has not taken."""

    def close(self, *, say_end: bool) -> None:
        """Close the socket. *say_end*: all output is sent, so that the end may follow."""

    def abandon(self) -> None:
        """Close the descriptor in a child process, without a word to the client. See
        ``net.forked``.
        """


class TCPTransport:
    scheme = "http"
    environ: Mapping[str, str] = MappingProxyType({})
    at_a_time = 1 << 16
    long_bytes = sys.maxsize
    handshaking = waits = has_received = client_ended = is_plain_http = False
    sent_ahead = 0

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.descriptor = sock.fileno()

    @property
    def unacknowledged(self) -> int:
        return unacknowledged(self.socket)

    def receive(self, size: int) -> bytes | None:
        try:
            return self.socket.recv(size)
        except BlockingIOError:
            return None

    def send_bytes(self, data: bytes | bytearray | memoryview, total: int, *, more: bool = False) -> int:
        try:
            return self.socket.send(data, _MORE if more else 0)
        except BlockingIOError:
            return 0

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        try:
            sent = os.sendfile(self.socket.fileno(), descriptor, offset, count)
        except BlockingIOError:
            return 0
        if not sent:
            raise OSError("a file became shorter while it was sent")
        return sent

    def flush(self) -> bool:
        return True

    def shut_down_sending(self) -> bool:
        self.socket.shutdown(socket.SHUT_WR)
        return True

    def has_hung_up(self) -> bool:
        if hasattr(select, "POLLRDHUP"):  # Linux: also sees it behind bytes that are unread
            poll = select.poll()
            try:
                poll.register(self.socket, select.POLLRDHUP)
            except ValueError:  # closed
                return True
            return bool(poll.poll(0))
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def has_failed(self) -> bool:
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def reset_at_close(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)

    def close(self, *, say_end: bool) -> None:
        self.socket.close()

    def abandon(self) -> None:
        self.socket.close()
