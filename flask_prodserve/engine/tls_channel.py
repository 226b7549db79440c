"""A client connection over TLS, non-blocking.

OpenSSL never sees the socket. What comes from the client is given to it, and what it makes for the client is sent from here, a whole
response at a time where the client takes that: if OpenSSL wrote to the system itself, it would do so record by record, which for 1 MB
takes a quarter of the time that encryption, sending and all else take together.

- OpenSSL's connection object must not be used by two threads at once: the loop's thread reads only while the channel is not running, and
  whoever sends then holds ``output_lock``. So does whoever closes.
- A handshake happens inside the first reads. Until it is over the connection is in the phase CONNECTED, so that HEADER_TIMEOUT holds for
  it from accept.
- Nothing that epoll does not see stays behind: of what has been read, OpenSSL gives all that can be opened at once. That includes the
  client's close_notify, after which there is nothing to wait for when its requests are answered.
- Output that is sealed stays output until the system has taken all that was sealed with it, and only then is more sealed. So nothing
  is sealed twice, and a client is waited for as without TLS; its progress is ``taken_by_system``.
- A head waits in OpenSSL's memory for what comes at once behind it. It counts as sent meanwhile: the running thread sends that next, and
  whatever is sent in its place, an end for instance, takes the head along.
- Nothing is read while what OpenSSL itself has to say waits for the client, which cannot have it make answers that it does not take.
- A client that begins a message of the handshake after the handshake, and does not end it, is cut when there is something to be sent.
- A message's length is known from its head, so that an end without close_notify is an end like any other: what is incomplete is
  never taken for complete (RFC 9112, section 9.8).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from ..net.client_certificates import variables
from .adjustments import RECEIVE_BYTES, EngineAdjustments
from .channel import Channel
from .parser import RequestParser
from .reply import Reply

if TYPE_CHECKING:
    from .response import Response
    from .server import Server

RECORD_BYTES = 1 << 14
"""A whole record (RFC 8446, section 5.1). Sealed at a time for a client that has not taken all of what came before."""

SEALED_BYTES = 1 << 16
"""The most that is sealed at a time otherwise. As much memory, and a third more, is kept until the connection ends, and for what has been
received as well.
"""

WIDE_BYTES = 1 << 20
"""The same for the first WIDE_CONNECTIONS of a listener that have use for it, but for the memory, which is that of PIECE_BYTES."""

WIDE_CONNECTIONS = 32
"""As many as have 50 MB together where their clients stop taking it."""

PIECE_BYTES = 1 << 18
"""What OpenSSL is given of that at a time: little enough that what it makes is still in the processor's cache when it is taken from it."""

LONG_BYTES = 1 << 21
"""Whose encryption takes about a millisecond: for less it is not worth while to pass the lead on."""

# What has been sealed would be given back to the system each time, and taken from it again page by page, which takes as long as to seal
# it: glibc keeps twice as much as the largest block that was freed so far (mallopt(3), M_MMAP_THRESHOLD). So one is, here.
bytes(WIDE_BYTES)

_SPEAKS_HTTPS = Reply(400, "This port speaks https: write https:// in place of http://.")


class TLSChannel(Channel):
    scheme = "https"
    handshakes = True

    _begun = False
    """Whether anything has come."""
    _plain = False
    """Whether the client does not speak TLS. It is told so, in its own words, and nothing else."""
    _sealed: Sequence[bytes | memoryview] = ()
    """What OpenSSL has made for the client, and the system has not taken, in pieces of which none is empty. Replaced, and not changed."""
    _ahead = 0
    """So many bytes at the beginning of the output are sealed."""
    at_a_time = RECORD_BYTES
    """How much is sealed next, and read from a file for that."""
    _wide = False
    """Whether this is one of those for which more is sealed."""
    _said_end = False
    """Whether close_notify is made, if it can be."""
    _client_said_end = False

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
        self._from_client, self._to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        # A NamedConnection.
        self._tls: Any = server.tls.context.wrap_bio(self._from_client, self._to_client, server_side=True)
        super().__init__(server, sock, addr, adj, map, turned_away)

    # The loop's thread.

    @property
    def silent(self) -> bool:
        return super().silent and not self._begun

    def handle_write(self) -> None:
        if self.handshake_waits:
            with self.output_lock:
                try:
                    self.handshake_waits = self.connected and not self._send_sealed()
                except OSError:
                    self.handle_close()
                    return
        super().handle_write()

    def read(self) -> bool:
        complete = super().read()
        if not complete:
            self._close_if_over()
        return complete

    def _take_unread(self) -> None:
        if self._unread:
            super()._take_unread()
            self._close_if_over()

    def _close_if_over(self) -> None:
        if self._client_said_end and self.connected and self.readable():
            self.handle_close()

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
        data = self._receive_some(size)
        if data is None and self.handshakes:
            # With what ends the handshake the client's system lets go of the request behind it, if it follows Nagle (RFC 9293, 3.7.4).
            data = self._receive_some(size)
        if not data or size <= RECEIVE_BYTES:
            return data
        # In the middle of a request all that is there counts as sent, as it does without TLS. What is counted is what comes sealed: of
        # records with a byte in each it is many times as much as what is in them, and as much work.
        parts = [data]
        with contextlib.suppress(OSError):  # which comes again
            for taken in range(RECEIVE_BYTES, size, RECEIVE_BYTES):
                data = None if self.handshake_waits else self._receive_some(size - taken)
                if not data:
                    break
                parts.append(data)
        return b"".join(parts)

    def _receive_some(self, size: int) -> bytes | None:
        """As :meth:`receive`, with no more at a time than OpenSSL is to keep memory for."""
        data = super().receive(min(size, RECEIVE_BYTES))
        if not data:
            return data
        if not self._begun:
            self._begun = True
            # A handshake begins with 22 (RFC 8446, section 5.1), and what people type, or HTTP, with a letter.
            if data[:1].isalpha():
                self._plain = True
                self.handshakes = False
        return data if self._plain or self._said_end else self._open(data)

    def _open(self, data: bytes) -> bytes | None:
        """What is in the records that *data* completes, after a handshake, whose answers are sent from here. As :meth:`receive`."""
        self._from_client.write(data)
        records = []
        try:
            while self._from_client.pending:
                record = self._tls.read(RECORD_BYTES)
                if not record:
                    self._client_said_end = True
                    break
                if self.handshakes:
                    self.handshakes = False
                    self.environ = variables(self._tls, self._tls.server_name)
                records.append(record)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if self.handshakes:
                self.adj.cuts.count("TLS", f"handshakes fail, lately with {error.reason}", logging.INFO)
            with contextlib.suppress(OSError):
                self._send_answers()  # the alert
            raise
        if self._to_client.pending:
            self.handshake_waits = not self._send_answers()
        if not records:
            return b"" if self._client_said_end else None
        return records[0] if len(records) == 1 else b"".join(records)

    def shut_down_sending(self) -> bool:
        """Send close_notify, so that the client can tell an end from a cut (RFC 8446, section 6.1), and then what ends any connection."""
        return self._send_end() and super().shut_down_sending()

    def handle_close(self) -> None:
        with self.output_lock:
            if self.socket is not None:
                if not self.output.size:
                    with contextlib.suppress(OSError):  # gone
                        self._send_end()
                if self._wide:
                    self.server.wide_connections.release()
                # With the connection, and not only when nobody knows the channel any more.
                self._sealed = ()
                del self._tls, self._from_client, self._to_client
            super().handle_close()

    @property
    def taken_by_system(self) -> int:
        return super().taken_by_system + max(self._ahead - sum(map(len, self._sealed)), 0)

    # The running thread.

    def finish_turn(self, *, in_loop: bool) -> None:
        if self._client_said_end and not self._unread:
            self.close_when_flushed = True
        super().finish_turn(in_loop=in_loop)

    def write(self, response: Response, data: bytes | memoryview, *, more: bool = False) -> None:
        self._give_way(len(data))
        super().write(response, data, more=more)

    def write_file(self, file: IO[bytes], size: int) -> None:
        self._give_way(size)
        super().write_file(file, size)

    def _give_way(self, size: int) -> None:
        """Encryption of much takes its time, in which others can run."""
        if size > LONG_BYTES:
            self.server.loop.give_way()

    # Whoever holds ``output_lock``, and the loop's thread while the channel is not running.

    def send_bytes(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> int:
        if self._plain:
            return super().send_bytes(data, more=more)
        if more and not self._sealed and len(data) <= RECORD_BYTES:
            held: int = self._tls.write(data)
            return held
        sent = 0
        with memoryview(data) as view:
            while not self._sealed or self._send_sealed():
                counted = min(self._ahead, len(view) - sent)
                self._ahead -= counted
                sent += counted
                if sent == len(view):
                    return sent
                self._seal(view[sent : sent + self.at_a_time])
                if max(len(view), self.output.size) - sent > self._ahead:
                    self._widen()
        self.at_a_time = RECORD_BYTES
        return sent

    def _seal(self, data: memoryview) -> None:
        """Have OpenSSL make records of *data*, behind a head that may be waiting."""
        pieces, count = [], 0
        while count < len(data):
            count += self._tls.write(data[count : count + PIECE_BYTES])
            pieces.append(self._to_client.read())
        self._sealed = pieces
        # After the other: ``taken_by_system`` may be asked in between, and must not say too much.
        self._ahead = count

    def _widen(self) -> None:
        """Seal more at a time from now on, until the client does not take that."""
        if self.at_a_time < SEALED_BYTES:
            self.at_a_time *= 4
        elif self.at_a_time < WIDE_BYTES and (self._wide or self.server.wide_connections.acquire(blocking=False)):
            self._wide = True
            self.at_a_time *= 4

    def _send_end(self) -> bool:
        """Send close_notify, once. Returns whether it has gone."""
        if self._plain:
            return True
        if not self._said_end:
            self._said_end = True
            # What the client says to it is of no interest; in the middle of a handshake there is none.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        return self._send_answers()

    def _send_answers(self) -> bool:
        """Send what is sealed, and then what OpenSSL has to say by itself. Returns and raises as :meth:`_send_sealed`."""
        if self._to_client.pending:
            self._sealed = (*self._sealed, self._to_client.read())
        return self._send_sealed()

    def _send_sealed(self) -> bool:
        """Send what is sealed. Returns whether all of it has gone. Raises OSError."""
        while pieces := self._sealed:
            together = len(pieces) > 1 and sys.platform != "win32"
            sent = self._send_together(pieces) if together else super().send_bytes(pieces[0])
            if not sent:
                return False
            self._sealed = _without(pieces, sent)
        return True

    def _send_together(self, pieces: Sequence[bytes | memoryview]) -> int:
        """As :meth:`send_bytes` of any channel."""
        try:
            sent: int = self.socket.sendmsg(pieces)
        except BlockingIOError:
            return 0
        return sent

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """Not past OpenSSL."""
        return None


def _without(pieces: Sequence[bytes | memoryview], count: int) -> Sequence[bytes | memoryview]:
    """*pieces* without their first *count* bytes."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return (memoryview(piece)[count:], *pieces[number + 1 :])
        count -= len(piece)
    return ()
