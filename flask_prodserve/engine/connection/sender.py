"""The sending side of a connection.

What the client does not take is kept, and sent by the event loop's thread. Beyond HIGH_WATERMARK
the thread that produces more waits. ``output``, ``connected`` and the life of the transport change
under ``lock``, by the running thread and by the event loop's.
"""

from __future__ import annotations

import logging
import threading
from typing import IO, Protocol

from ..context import EngineContext
from ..exchange.response import PROBE, Response
from ..spool import cannot_be_kept
from ..waitress_parts import ClientDisconnected
from .event_loop import EventLoop, Watched
from .output import OutputQueue
from .transport import Transport

HIGH_WATERMARK = 1 << 24
"""Bytes that may wait for a client before the thread that produces more of them waits as well."""

KEEP_BYTES = 1 << 18
"""Kept at a time for a slow client, so that the event loop's thread never waits long for the lock.
"""


class Owner(Watched, Protocol):
    """The connection that a sender belongs to."""

    def reset(self) -> None: ...

    def close(self) -> None: ...


class Sender:
    def __init__(self, transport: Transport, context: EngineContext, loop: EventLoop, owner: Owner) -> None:
        self.transport = transport
        self.output = OutputQueue(context.spool)
        self.lock = threading.RLock()
        self.connected = True
        self.is_broken = False
        """Whether something could not be sent, so that the event loop has to close the connection.
        """
        self._context = context
        self._loop = loop
        self._owner = owner
        self._mid_write = False
        """Whether the running thread still holds a part of what it is sending."""
        self._room: threading.Condition | None = None

    # The running thread.

    def write(self, response: Response, data: bytes | memoryview, *, more: bool = False) -> None:
        """Send *data*, and keep what the client does not take. Beyond HIGH_WATERMARK, wait for the
        client.

        If *more* follows at once, *data* may wait for it. Raises ClientDisconnected, also if
        *response* has been given up.
        """
        if len(data) > self.transport.long_bytes:
            self._loop.give_way()
        with self.lock:
            if response.abandoned or not self.connected:
                raise ClientDisconnected
            response.begun = True
            rest = self._send_or_wait(data, more=more)
        if rest:
            self._loop.give_way()
        while rest:
            if self._context.spool.full:
                self._context.spool.await_room()
            with self.lock:
                rest = self._send_or_wait(rest)
        if self.output.backlog and self._context.spool.full and response.waits:
            self._context.spool.await_room()

    def write_file(self, file: IO[bytes], size: int) -> None:
        """Send *size* bytes from the current position of *file*, and close it in any case. Raises
        ClientDisconnected.
        """
        if size > self.transport.long_bytes:
            self._loop.give_way()
        with self.lock:
            if not self.connected:
                file.close()
                raise ClientDisconnected
            self.output.append_file(file, size)
            self._send_or_wait(b"")

    def _send_or_wait(self, data: bytes | memoryview, *, more: bool = False) -> bytes | memoryview:
        """Send or keep a part of *data*. Return the rest, for which the lock should be released for
        a moment.
        """
        if not self.connected:
            raise ClientDisconnected
        try:
            rest = self.send_or_keep(data, more=more)
            self._mid_write = bool(rest)
        except OSError as error:
            self.break_off()
            raise ClientDisconnected from error
        if self.output.size:
            self._loop.update_interest(self._owner)
            while self.output.backlog > HIGH_WATERMARK:
                if self._room is None:
                    self._room = threading.Condition(self.lock)
                self._room.wait()
                if not self.connected:
                    raise ClientDisconnected
        return rest

    # Under the lock.

    def send_or_keep(self, data: bytes | memoryview, *, more: bool = False) -> bytes | memoryview:
        """Send *data*, or keep KEEP_BYTES of what does not go. Return the rest. Raises OSError."""
        output = self.output
        if output.size:
            output.send(self.transport)
        if not output.size:
            while data:
                sent = self.transport.send_bytes(data, len(data), more=more)
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
                self._context.limit_events.count(
                    "disk", f"cut responses, since they {cannot_be_kept(error)}", logging.ERROR
                )
                self._loop.soon(self._owner.reset)
                raise
        return data[KEEP_BYTES:]

    def break_off(self) -> None:
        """Have the event loop close the connection: something could not be sent."""
        self.is_broken = True
        self._loop.update_interest(self._owner)

    def make_room(self) -> None:
        """Wake the thread that waits for room, if there is enough, or if the connection is closed."""
        if self._room is not None and (self.output.backlog <= HIGH_WATERMARK or not self.connected):
            self._room.notify_all()

    def close(self) -> None:
        """Discard the output, close the transport, and wake the thread that waits for room."""
        all_sent = not self.output.size
        self.output.close()
        self.connected = False
        self.transport.close(say_end=all_sent)
        self.make_room()
        # The two refer to each other: without this a closed connection would stay in memory until
        # the next garbage collection, and for ever in an app that has switched that off.
        del self._owner

    # The event loop's thread.

    def probe(self, response: Response) -> None:
        """Close if the client of *response*, which has begun, has gone.

        A client that has closed looks like one that has shut down only its sending side and still
        reads, until something is sent: the system of the first answers with a reset. So one byte is
        sent that means nothing to the second, if there is such a byte.
        """
        with self.lock:
            if not self.connected:
                return
            try:
                if self.transport.has_failed():
                    raise ConnectionResetError
                if not (self._mid_write or self.output.size) and response.may_probe and self.transport.has_hung_up():
                    response.probed = True
                    self.send_or_keep(PROBE)
                    self._loop.update_interest(self._owner)
            except OSError:
                self._owner.close()

    # Any thread.

    def client_has_hung_up(self) -> bool:
        """Tell whether the client has closed, or has shut down its sending side. Only sending
        something can tell the two apart.

        Without the lock: the app calls this, and may be interrupted here as anywhere else.
        """
        hung_up = self.transport.has_hung_up()
        return (
            hung_up or not self.connected
        )  # read last: a descriptor that was closed meanwhile may be another connection's

    @property
    def taken_by_system(self) -> int:
        """Bytes of the output that have been sent so far, or a little less, since it is not locked."""
        return self.output.sent + self.transport.sent_ahead
