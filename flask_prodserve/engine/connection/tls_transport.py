"""A transport over TLS, non-blocking, around a TCPTransport.

OpenSSL never sees the socket. Received bytes are given to it, and the bytes that it makes are sent
from here, a whole response at a time if the client takes that. If OpenSSL wrote to the system
itself, it would do so record by record, which for 1 MB takes a quarter of all the time that
encryption, sending and everything else take together.

Invariants:

- OpenSSL's connection object must not be used by two threads at once: the event loop's thread
  receives only while the connection is not running, and every other use is under the connection's
  ``output_lock``.
- A handshake happens inside the first reads. Until it is over the connection is in the phase
  CONNECTED, so that HEADER_TIMEOUT holds for it from accept.
- Nothing stays behind that epoll does not see: of what has been received, OpenSSL opens all that
  can be opened at once. That includes the client's close_notify, after which nothing has to be
  waited for when its requests are answered.
- Output that is sealed stays output until the system has taken everything that was sealed with it.
  Only then is more sealed. So nothing is sealed twice, and clients are waited for as without TLS;
  ``sent_ahead`` tells their progress.
- A head waits in OpenSSL's memory for the bytes that follow it at once. It counts as sent
  meanwhile: the running thread sends those bytes next, and whatever is sent in their place, such as
  an end, takes the head along.
- Nothing is read while OpenSSL's own messages wait for the client, so a client cannot make it
  produce answers that it does not take.
- A client that begins a handshake message after the handshake and does not end it is cut when there
  is something to send.
- A message's length is known from its head, so an end without close_notify is an end like any
  other: an incomplete message is never taken for a complete one (RFC 9112, section 9.8).
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ...net.client_certificates import variables
from ...observe.limit_events import LimitEvents
from ..exchange.request import RECEIVE_BYTES
from .transport import TCPTransport

RECORD_BYTES = 1 << 14
"""A whole record (RFC 8446, section 5.1). Sealed at a time for a client that has not taken
everything that came before.
"""

SEALED_BYTES = 1 << 16
"""The most that is sealed at a time otherwise. A connection keeps that much memory, and a third
more, until it ends, and as much again for what it receives.
"""

WIDE_BYTES = 1 << 20
"""Replaces SEALED_BYTES for the first WIDE_CONNECTIONS of a listener that can use it. Their memory
is that of PIECE_BYTES.
"""

WIDE_CONNECTIONS = 32
"""If their clients stop taking it, these keep 50 MB together."""

PIECE_BYTES = 1 << 18
"""What OpenSSL gets of that at a time: little enough that its result is still in the processor's
cache when it is read.
"""

LONG_BYTES = 1 << 21
"""Encrypting this much takes about a millisecond. For less it is not worth passing the lead on."""

# Freed buffers of this size would go back to the system and be requested again page by page, which
# takes as long as sealing them. glibc keeps twice the largest block that was freed so far
# (mallopt(3), M_MMAP_THRESHOLD), so one is freed here.
bytes(WIDE_BYTES)


class TLSTransport:
    """*context* makes OpenSSL's objects. *wide* counts the connections of the listener that may
    seal WIDE_BYTES at a time.
    """

    scheme = "https"
    long_bytes = LONG_BYTES
    environ: Mapping[str, str] = MappingProxyType({})
    at_a_time = RECORD_BYTES
    """How much is sealed next, and read from a file for that."""
    handshaking = True
    waits = has_received = client_ended = is_plain_http = False
    _sealed: Sequence[bytes | memoryview] = ()
    """What OpenSSL has made and the system has not taken, in pieces of which none is empty.
    Replaced, never changed.
    """
    _ahead = 0
    """This many bytes at the beginning of the output are sealed."""
    _is_wide = False
    _said_end = False
    """Whether close_notify has been made, if it can be."""

    def __init__(
        self, tcp: TCPTransport, context: ssl.SSLContext, wide: threading.Semaphore, limit_events: LimitEvents
    ) -> None:
        self._tcp = tcp
        self._wide = wide
        self._limit_events = limit_events
        self._from_client, self._to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        # A net.tls.NamedConnection.
        self._tls: Any = context.wrap_bio(self._from_client, self._to_client, server_side=True)
        self.descriptor = tcp.descriptor
        self.has_hung_up = tcp.has_hung_up
        self.has_failed = tcp.has_failed
        self.reset_at_close = tcp.reset_at_close
        self.abandon = tcp.abandon

    @property
    def sent_ahead(self) -> int:
        return max(self._ahead - sum(map(len, self._sealed)), 0)

    @property
    def unacknowledged(self) -> int:
        return self._tcp.unacknowledged

    # Receiving.

    def receive(self, size: int) -> bytes | None:
        data = self._receive_some(size)
        if data is None and self.handshaking:
            # The end of the handshake makes the client's system release the request behind it, if
            # it follows Nagle (RFC 9293, 3.7.4).
            data = self._receive_some(size)
        if not data or size <= RECEIVE_BYTES:
            return data
        # In the middle of a request, everything that is there counts as sent, as without TLS. The
        # count is of sealed bytes: records with one byte each are many times as many bytes as they
        # carry, and as much work.
        parts = [data]
        with contextlib.suppress(OSError):  # it is raised again at the next read
            for taken in range(RECEIVE_BYTES, size, RECEIVE_BYTES):
                data = None if self.waits else self._receive_some(size - taken)
                if not data:
                    break
                parts.append(data)
        return b"".join(parts)

    def _receive_some(self, size: int) -> bytes | None:
        """Receive no more at a time than OpenSSL should keep memory for. Return what
        :meth:`receive` does.
        """
        data = self._tcp.receive(min(size, RECEIVE_BYTES))
        if not data:
            return data
        if not self.has_received:
            self.has_received = True
            # A handshake begins with 22 (RFC 8446, section 5.1); HTTP, and what people type, begins
            # with a letter.
            if data[:1].isalpha():
                self.is_plain_http = True
                self.handshaking = False
        return data if self.is_plain_http or self._said_end else self._open(data)

    def _open(self, data: bytes) -> bytes | None:
        """Return the content of the records that *data* completes, and go on with a handshake.
        Return what :meth:`receive` does.
        """
        self._from_client.write(data)
        records = []
        try:
            while self._from_client.pending:
                record = self._tls.read(RECORD_BYTES)
                if not record:
                    self.client_ended = True
                    break
                if self.handshaking:
                    self.handshaking = False
                    self.environ = variables(self._tls, self._tls.server_name)
                records.append(record)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if self.handshaking:
                self._limit_events.count("TLS", f"handshakes failed, the last one with {error.reason}", logging.INFO)
            with contextlib.suppress(OSError):
                self._send_answers()  # the alert
            raise
        if self._to_client.pending:
            self.waits = not self._send_answers()
        if not records:
            return b"" if self.client_ended else None
        return records[0] if len(records) == 1 else b"".join(records)

    # Sending.

    def send_bytes(self, data: bytes | bytearray | memoryview, total: int, *, more: bool = False) -> int:
        if self.is_plain_http:
            return self._tcp.send_bytes(data, total, more=more)
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
                if total - sent > self._ahead:
                    self._widen()
        self.at_a_time = RECORD_BYTES
        return sent

    def _seal(self, data: memoryview) -> None:
        """Have OpenSSL make records of *data*, behind a head that may be waiting there."""
        pieces, count = [], 0
        while count < len(data):
            count += self._tls.write(data[count : count + PIECE_BYTES])
            pieces.append(self._to_client.read())
        self._sealed = pieces
        # In this order: ``sent_ahead`` may be read in between, and must not be too large.
        self._ahead = count

    def _widen(self) -> None:
        """Seal more at a time from now on, until the client does not take it."""
        if self.at_a_time < SEALED_BYTES:
            self.at_a_time *= 4
        elif self.at_a_time < WIDE_BYTES and (self._is_wide or self._wide.acquire(blocking=False)):
            self._is_wide = True
            self.at_a_time *= 4

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """Return None: a file has to pass through OpenSSL."""
        return None

    def flush(self) -> bool:
        self.waits = not self._send_sealed()
        return not self.waits

    def _send_sealed(self) -> bool:
        """Send what is sealed. Return whether all of it has gone. Raises OSError."""
        while pieces := self._sealed:
            together = len(pieces) > 1 and sys.platform != "win32"
            sent = self._send_together(pieces) if together else self._tcp.send_bytes(pieces[0], 0)
            if not sent:
                return False
            self._sealed = _without(pieces, sent)
        return True

    def _send_together(self, pieces: Sequence[bytes | memoryview]) -> int:
        try:
            return self._tcp.socket.sendmsg(pieces)
        except BlockingIOError:
            return 0

    # The end.

    def shut_down_sending(self) -> bool:
        """Send close_notify first, so that the client can tell an end from a cut (RFC 8446, section
        6.1).
        """
        return self._send_end() and self._tcp.shut_down_sending()

    def _send_end(self) -> bool:
        """Send close_notify, once. Return whether it has gone."""
        if self.is_plain_http:
            return True
        if not self._said_end:
            self._said_end = True
            # The client's answer does not matter; in the middle of a handshake there is no
            # close_notify.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        return self._send_answers()

    def _send_answers(self) -> bool:
        """Send what is sealed, and then OpenSSL's own messages. Return and raise what
        :meth:`_send_sealed` does.
        """
        if self._to_client.pending:
            self._sealed = (*self._sealed, self._to_client.read())
        return self._send_sealed()

    def close(self, *, say_end: bool) -> None:
        if say_end:
            with contextlib.suppress(OSError):  # the client has gone
                self._send_end()
        if self._is_wide:
            self._wide.release()
        # Free the memory now, and not only when nothing refers to the connection any more.
        self._sealed = ()
        del self._tls, self._from_client, self._to_client
        self._tcp.close(say_end=say_end)


def _without(pieces: Sequence[bytes | memoryview], count: int) -> Sequence[bytes | memoryview]:
    """Return *pieces* without their first *count* bytes."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return (memoryview(piece)[count:], *pieces[number + 1 :])
        count -= len(piece)
    return ()
