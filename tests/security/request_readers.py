"""Three readers of requests behind one interface: ours, h11 as a server, and waitress as it comes.

Each takes one request in pieces, as they would come from a socket, and says what it made of it. Ours is driven here as the engine
drives it, without the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from flask_prodserve.protocol.chunked import ChunkedDecoder
from flask_prodserve.protocol.refusal import Refusal
from flask_prodserve.protocol.request_head import HeadLimits, HeadReader

ACCEPT = "accept"
REFUSE = "refuse"
WAIT = "wait"
"""All bytes are taken, and there is no end of the request in them."""

STATUSES = frozenset({400, 413, 414, 417, 431, 501, 505})
"""All that our reader may refuse with."""

MAX_BODY = 32 * 1024 * 1024


@dataclass(frozen=True)
class Reading:
    """*verdict* is ACCEPT, WAIT, REFUSE, or the status that ours refuses with; *consumed* counts bytes, not for what is refused."""

    verdict: str | int
    consumed: int = 0
    method: str = ""
    target: str = ""
    body: bytes = b""


def read_ours(pieces: Iterable[bytes], limits: HeadLimits | None = None, max_body: int = MAX_BODY) -> Reading:
    reader = HeadReader(limits or HeadLimits())
    decoder: ChunkedDecoder | None = None
    body = bytearray()
    consumed = 0
    try:
        for piece in pieces:
            data = piece
            if reader.head is None:
                taken = reader.feed(data)
                consumed += taken
                data = data[taken:]
                if reader.head is None:
                    assert not data, "an incomplete head takes all there is"
                    continue
                if reader.head.chunked:
                    decoder = ChunkedDecoder(max_body)
                elif (reader.head.content_length or 0) > max_body:
                    raise Refusal(413, "The request body is larger than this server accepts.")
            head = reader.head
            if decoder is not None:
                consumed += decoder.feed(data, body.extend)
                complete = decoder.complete
                assert not complete or decoder.received == len(body)
            else:
                length = head.content_length or 0
                part = data[: length - len(body)]
                body += part
                consumed += len(part)
                complete = len(body) == length
            if complete:
                return Reading(ACCEPT, consumed, head.method, head.target, bytes(body))
    except Refusal as refusal:
        return Reading(refusal.status)
    return Reading(WAIT, consumed)


def read_with_h11(pieces: Iterable[bytes]) -> Reading:
    # Its limit is out of the way: what is compared is grammar.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
    method = target = b""
    body = bytearray()
    received = 0
    try:
        for piece in filter(None, pieces):
            connection.receive_data(piece)
            received += len(piece)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    method, target = event.method, event.target
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    consumed = received - len(connection.trailing_data[0])
                    return Reading(ACCEPT, consumed, method.decode(), target.decode(), bytes(body))
    except h11.RemoteProtocolError:
        return Reading(REFUSE)
    return Reading(WAIT, received)


_STOCK = Adjustments()


def read_with_waitress(pieces: Iterable[bytes]) -> Reading:
    parser = HTTPRequestParser(_STOCK)
    consumed = 0
    for piece in pieces:
        data = piece
        while data:
            try:
                taken = parser.received(data)
            except ValueError:  # some of what it cannot convert gets out, and its channel closes
                return Reading(REFUSE)
            consumed += taken
            data = data[taken:]
            if parser.completed and parser.empty:
                parser = HTTPRequestParser(_STOCK)  # as its channel does after empty lines
            elif parser.completed:
                if parser.error is not None:
                    return Reading(REFUSE)
                method, target = parser.first_line.decode("latin-1").split(" ")[:2]
                body = parser.get_body_stream().read()
                parser.close()
                return Reading(ACCEPT, consumed, method, target, body)
    return Reading(WAIT, consumed)
