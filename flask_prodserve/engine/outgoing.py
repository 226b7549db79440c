"""The sending side of a connection, with what its client has not taken yet.

``output`` and the life of the socket are changed under ``output_lock``, by the thread that runs a request and by the loop's. What a
client does not take is kept, and sent by the loop's thread. Beyond HIGH_WATERMARK the thread that makes more of it waits.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import threading
from typing import IO, TYPE_CHECKING, Any

from waitress.channel import ClientDisconnected
from waitress.wasyncore import dispatcher

from .adjustments import EngineAdjustments
from .output import Output
from .response import PROBE
from .spool import cannot_be_kept

if TYPE_CHECKING:
    from .response import Response
    from .server import Server

HIGH_WATERMARK = 1 << 24
"""Bytes that may wait for a client before the thread that makes more of them waits as well."""

KEEP_BYTES = 1 << 18
"""Kept at a time for a client that is slow, so that the loop's thread never waits long for ``output_lock``."""

_MORE = getattr(socket, "MSG_MORE", 0)
"""Has the system wait for more, for 200 ms at most (tcp(7), TCP_CORK), where it can."""

_LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER, on, for no time."""


class Outgoing(dispatcher):  # type: ignore[misc]  # waitress is not annotated
    """Half of a channel."""

    at_a_time = 1 << 16
    """Bytes to read at a time from a file that the system cannot send by itself."""
    connected: bool
    running: bool
    will_close = False
    """Whether the loop has to close it: something could not be sent."""
    mid_write = False
    """Whether the running thread still has a part of what it is sending. Changed under ``output_lock``."""

    def __init__(self, sock: socket.socket, map: dict[int, Any], server: Server, adj: EngineAdjustments) -> None:
        self.server = server
        self.adj = adj
        self.output = Output(adj.spool)
        self.output_lock = threading.RLock()
        self._room: threading.Condition | None = None
        super().__init__(sock, map)

    # The running thread.

    def write(self, response: Response, data: bytes | memoryview, *, more: bool = False) -> None:
        """Send *data*; what the client does not take is kept and sent by the loop. Beyond HIGH_WATERMARK, wait for the client.

        *more* comes at once, and *data* may wait for that. Raises ClientDisconnected, also where *response* has been given up.
        """
        with self.output_lock:
            if response.abandoned or not self.connected:
                raise ClientDisconnected
            response.begun = True
            rest = self._send_or_wait(data, more=more)
        if rest:
            self.server.loop.give_way()
        while rest:
            if self.adj.spool.full:
                self.adj.spool.await_room()
            with self.output_lock:
                rest = self._send_or_wait(rest)
        if self.output.backlog and self.adj.spool.full and response.waits:
            self.adj.spool.await_room()

    def write_file(self, file: IO[bytes], size: int) -> None:
        """Send *size* bytes from the current position of *file*, which is closed in the end, whatever happens."""
        with self.output_lock:
            if not self.connected:
                file.close()
                raise ClientDisconnected
            self.output.append_file(file, size)
            self._send_or_wait(b"")

    def _send_or_wait(self, data: bytes | memoryview, *, more: bool = False) -> bytes | memoryview:
        """Send or keep a part of *data*, and return the rest, for which the lock should be let go for a moment."""
        if not self.connected:
            raise ClientDisconnected
        try:
            rest = self._send_or_keep(data, more=more)
            self.mid_write = bool(rest)
        except OSError as error:
            # The loop closes it.
            self.will_close = True
            self.server.loop.update_interest(self)
            raise ClientDisconnected from error
        if self.output.size:
            self.server.loop.update_interest(self)
            while self.output.backlog > HIGH_WATERMARK:
                if self._room is None:
                    self._room = threading.Condition(self.output_lock)
                self._room.wait()
                if not self.connected:
                    raise ClientDisconnected
        return rest

    def _send_or_keep(self, data: bytes | memoryview, *, more: bool = False) -> bytes | memoryview:
        output = self.output
        if output.size:
            output.send(self)
        if not output.size:
            while data:
                sent = self.send_bytes(data, more=more)
                output.sent += sent
                if sent == len(data):
                    return b""
                if not sent:
                    break
                data = memoryview(data)[sent:]
        if data:
            try:
                output.append(data[:KEEP_BYTES])
            except OSError as error:
                self.adj.cuts.count("disk", f"responses are cut, since they {cannot_be_kept(error)}", logging.ERROR)
                self.server.loop.soon(self.reset)
                raise
        return data[KEEP_BYTES:]

    # The loop's thread.

    def reset(self) -> None:
        """Close at once, and have the system throw away what the client has not taken."""
        with self.output_lock:
            if self.connected:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                self.handle_close()

    def check_stream(self, response: Response) -> None:
        """Close if the client of *response*, which has begun, has gone.

        A client that has closed looks like one that has only shut down its sending side, and still reads, until something is sent: the
        system of the first answers with a reset. So one byte is sent that means nothing to the second, if there is such a byte.
        """
        with self.output_lock:
            if not self.connected:
                return
            try:
                if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise ConnectionResetError
                if not (self.mid_write or self.output.size) and response.may_probe and _hung_up(self.socket):
                    response.probed = True
                    self._send_or_keep(PROBE)
                    self.server.loop.update_interest(self)
            except OSError:
                self.handle_close()

    # Any thread.

    def check_client_disconnected(self) -> bool:
        """Whether the client has closed, or has shut down its sending side: the two cannot be told apart before something is sent.

        Without ``output_lock``: the app calls this, and is interrupted here as anywhere else.
        """
        sock = self.socket
        hung_up = sock is None or _hung_up(sock)
        return hung_up or not self.connected  # asked last: what was closed meanwhile may have been another one's number

    @property
    def holds_thread(self) -> bool:
        """Whether the thread that runs it waits until the client takes something."""
        return self.running and self.output.backlog > HIGH_WATERMARK

    # Whoever holds ``output_lock``.

    def make_room(self) -> None:
        """Less is kept, or nobody is there any more: let the thread go on that waits for this."""
        if self._room is not None and (self.output.backlog <= HIGH_WATERMARK or not self.connected):
            self._room.notify_all()

    def send_bytes(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> int:
        """Send what goes without waiting, and return how much that was. Where *more* comes at once, the client may get it with that."""
        try:
            sent: int = self.socket.send(data, _MORE if more else 0)
        except BlockingIOError:
            return 0
        return sent

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """The same from a file, past Python."""
        try:
            sent = os.sendfile(self.socket.fileno(), descriptor, offset, count)
        except BlockingIOError:
            return 0
        if not sent:
            raise OSError("a file became shorter while it was sent")
        return sent


def _hung_up(sock: socket.socket) -> bool:
    if hasattr(select, "POLLRDHUP"):  # Linux: sees it behind bytes that nobody has read yet, too
        poll = select.poll()
        try:
            poll.register(sock, select.POLLRDHUP)
        except ValueError:  # closed
            return True
        return bool(poll.poll(0))
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
