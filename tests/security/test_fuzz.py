"""Damaged requests and PROXY headers by the thousand; and what hypothesis searches: how a body ends, and what a response says.

The mutants are the same in every run, so that a failure can be run again; it shows the bytes.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
import pytest
from fuzz_corpus import SEEDS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from request_readers import ACCEPT, STATUSES, WAIT, Reading, read_ours, read_with_h11
from verdict_case import head

from flask_prodserve.protocol.proxy_v1v2 import MalformedHeaderError, ProxyHeader, crc32c, read_header
from flask_prodserve.protocol.refusal import Refusal
from flask_prodserve.protocol.request_head import HeadLimits, HeadReader
from flask_prodserve.protocol.response_head import Framing, InvalidResponse, compose
from profiles import sized

MUTANTS = sized(20_000, 20_000, 500_000)
LIMITS = HeadLimits(request_line=80, size=400, count=8)
MAX_BODY = 64
JUNK = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\t", b" ", b"\v", b"\x7f", b"\x85", b"\xa0", b"\xff"]
MARKS = [b":", b",", b";", b"=", b'"', b"#", b"/", b"0", b"+", b"-", b"_", b"chunked"]

Mutation = Callable[[random.Random, bytes], bytes]


def flip(chance: random.Random, message: bytes) -> bytes:
    position = chance.randrange(len(message))
    flipped = message[position] ^ (1 << chance.randrange(8))
    return message[:position] + bytes([flipped]) + message[position + 1 :]


def insert(chance: random.Random, message: bytes) -> bytes:
    position = chance.randrange(len(message) + 1)
    return message[:position] + chance.choice([*JUNK, *MARKS]) + message[position:]


def delete(chance: random.Random, message: bytes) -> bytes:
    position = chance.randrange(len(message))
    return message[:position] + message[position + chance.randint(1, 6) :]


def repeat_a_line(chance: random.Random, message: bytes) -> bytes:
    lines = message.split(b"\r\n")
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    return b"\r\n".join(lines)


def drop_a_line(chance: random.Random, message: bytes) -> bytes:
    lines = message.split(b"\r\n")
    del lines[chance.randrange(len(lines))]
    return b"\r\n".join(lines)


def borrow_a_line(chance: random.Random, message: bytes) -> bytes:
    lines = message.split(b"\r\n")
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(chance.choice(SEEDS).split(b"\r\n")))
    return b"\r\n".join(lines)


def splice(chance: random.Random, message: bytes) -> bytes:
    other = chance.choice(SEEDS)
    return message[: chance.randrange(len(message) + 1)] + other[chance.randrange(len(other)) :]


MUTATIONS: list[Mutation] = [flip, insert, delete, repeat_a_line, drop_a_line, borrow_a_line, splice]


def mutants(chance: random.Random) -> Iterator[bytes]:
    for _ in range(MUTANTS):
        message = chance.choice(SEEDS)
        for _ in range(chance.randint(1, 3)):
            message = chance.choice(MUTATIONS)(chance, message) or b"\r"
        yield message


def split(chance: random.Random, message: bytes) -> list[bytes]:
    cuts = sorted(chance.randrange(len(message) + 1) for _ in range(chance.randint(1, 6)))
    return [message[start:end] for start, end in zip([0, *cuts], [*cuts, len(message)], strict=True)]


def read(pieces: list[bytes]) -> Reading:
    return read_ours(pieces, LIMITS, MAX_BODY)


def read_by_h11(message: bytes) -> Reading:
    """h11's reading, with the one thing aside that ours accepts and h11 does not.

    RFC 9112, section 2.2: at least one empty line before a request is to be ignored, which h11 does not do.
    """
    blank = len(message) - len(message.lstrip(b"\r\n"))
    reading = read_with_h11([message[blank:]])
    return Reading(reading.verdict, blank + reading.consumed, reading.method, reading.target, reading.body)


def test_mutants() -> None:
    """However it is split, a message is accepted, refused with a status or waited for; and h11 reads what is accepted as we do."""
    chance = random.Random(20261121)
    seen = set()
    for message in mutants(chance):
        reading = read([message])
        seen.add(reading.verdict)
        assert reading.verdict in {ACCEPT, WAIT, *STATUSES}, message
        assert read(split(chance, message)) == reading, message
        if reading.verdict == WAIT:
            assert reading.consumed == len(message), message
        else:
            assert read([message + chance.choice(SEEDS)]) == reading, message
        if reading.verdict == ACCEPT:
            assert read_by_h11(message) == reading, message
    assert seen == {ACCEPT, WAIT, *STATUSES}, "the seeds do not lead everywhere"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_split_of_a_seed(seed: bytes) -> None:
    """Cut in two anywhere, a request is read as it is whole."""
    for cut in range(len(seed) + 1):
        assert read([seed[:cut], seed[cut:]]) == read([seed])


def cost_of_a_drip(request_line: bytes) -> float:
    """Seconds of work on a field that comes byte by byte behind *request_line*."""
    reader = HeadReader(HeadLimits(request_line=64 * 1024, size=256 * 1024))
    reader.feed(request_line + b"\r\nX: ")
    began = time.thread_time()
    for _ in range(50_000):
        reader.feed(b"a")
    return time.thread_time() - began


def test_a_drip_is_not_searched_from_its_start() -> None:
    """A field that drips costs the same behind a long request line as behind a short one: what was searched once is done."""
    long_line = b"GET /" + b"a" * 65_000 + b" HTTP/1.1"
    assert cost_of_a_drip(long_line) < 10 * cost_of_a_drip(b"GET / HTTP/1.1")


_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_TCP4 = _V2 + b"\x21\x11\0\x13" + bytes(range(12)) + b"\x03\0\x04"
PROXY_HEADERS = [
    b"PROXY TCP4 203.0.113.9 192.0.2.1 51234 443\r\n",
    b"PROXY TCP6 2001:db8::9 ::ffff:192.0.2.1 51234 443\r\n",
    b"PROXY UNKNOWN\r\n",
    _V2 + b"\x20\0\0\0",
    _V2 + b"\x21\x11\0\x10" + bytes(range(12)) + b"\x04\0\x01x",
    _V2 + b"\x21\x21\0\x24" + bytes(range(36)),
    _V2_TCP4 + crc32c(_V2_TCP4 + bytes(4)).to_bytes(4, "big"),
]


def read_proxy_header(data: bytes) -> ProxyHeader | str | None:
    try:
        return read_header(data)
    except MalformedHeaderError:
        return "refused"


def test_damaged_proxy_headers() -> None:
    """What is read of a PROXY header is the same from its last byte on, whatever follows; what is refused stays refused."""
    chance = random.Random(20261121)
    seen = set()
    for _ in range(MUTANTS):
        data = chance.choice(PROXY_HEADERS)
        for _ in range(chance.randint(0, 2)):
            data = chance.choice([flip, insert, delete])(chance, data) or b"P"
        header = read_proxy_header(data)
        seen.add(type(header))
        cut = data[: chance.randrange(len(data) + 1)]
        if isinstance(header, ProxyHeader):
            assert header.length <= len(data), data
            assert read_proxy_header(data[: header.length]) == header, data
            assert read_proxy_header(data[: header.length - 1]) is None, data
            assert read_proxy_header(cut) == (header if len(cut) >= header.length else None), data
        elif header is None:
            assert read_proxy_header(cut) is None, data
        else:
            assert read_proxy_header(cut) in (None, header), data
        if header is not None:
            assert read_proxy_header(data + chance.choice(SEEDS)) == header, data
    assert seen == {ProxyHeader, str, type(None)}


NAMES = ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"]
OTHER_NAMES = ["Content_Length", "Transfer_Encoding", "X-Content-Length", "Transfer-Encodings"]
VALUES = st.sampled_from(["5", "05", "0", "9" * 18, "9" * 19, "chunked", "Chunked"]) | st.text(
    'chunked 0159+-_,;"\t\v\0\x85\xa0', max_size=9
)


@settings(max_examples=sized(100, 500, 50_000))
@given(
    st.lists(st.tuples(st.sampled_from(NAMES + OTHER_NAMES), VALUES), max_size=3),
    st.sampled_from(["1.0", "1.1"]),
    st.data(),
)
def test_the_end_of_a_body_is_never_in_doubt(fields: list[tuple[str, str]], version: str, data: st.DataObject) -> None:
    """A head is accepted if it has one length of digits, or chunked once and alone and not in 1.0, or nothing of the kind."""
    blanks = st.text(" \t", max_size=2)
    lines = [f"{name}:{data.draw(blanks)}{value}{data.draw(blanks)}" for name, value in fields]
    framing = [(name.lower(), value.strip(" \t")) for name, value in fields if name in NAMES]
    expected: tuple[int | None, bool] | None = None
    if not framing:
        expected = (None, False)
    elif len(framing) == 1:
        name, value = framing[0]
        if name == "content-length" and re.fullmatch("[0-9]{1,18}", value):
            expected = (int(value), False)
        elif name == "transfer-encoding" and value.lower() == "chunked" and version == "1.1":
            expected = (None, True)
    if any(control in value for _, value in fields for control in "\v\0"):
        expected = None
    reader = HeadReader(HeadLimits())
    try:
        reader.feed(head(*lines, first=f"POST / HTTP/{version}"))
    except Refusal:
        assert expected is None
    else:
        assert reader.head is not None
        assert (reader.head.content_length, reader.head.chunked) == expected


ANYTHING = st.text(st.characters(max_codepoint=255), max_size=8)
VALUE = st.text("ab,= \t\x85\xa0\xff", max_size=6) | st.text("aX: \r\n\0", max_size=6) | ANYTHING
SERVERS_OWN = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    *(b"content-length", b"date", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}
FIELD = (
    st.tuples(st.sampled_from(["X-A", "x-a", "Set-Cookie", "Location"]) | ANYTHING, VALUE)
    | st.tuples(st.just("Content-Length"), st.sampled_from(["0", "3", " 20\t"]) | VALUE)
    | st.tuples(
        st.sampled_from(["Connection", "Transfer-Encoding", "Upgrade"]), st.sampled_from(["close", "chunked"]) | VALUE
    )
)
BODIES = {Framing.NONE: b"", Framing.CHUNKED: b"1\r\na\r\n0\r\n\r\n"}


@settings(max_examples=sized(100, 500, 50_000))
@given(
    st.sampled_from(["200", "200 ", "404 Not Found", "204 No Content", "304 \xa0"]) | ANYTHING,
    st.lists(FIELD, max_size=3),
    st.sampled_from(["GET", "HEAD"]),
    st.none() | st.integers(0, 5),
)
@example("200 OK", [("X-City", "citt\xc3\xa0")], "GET", 0)
@example("200 OK\r\nX: y", [], "GET", 0)
@example("200 OK", [("X", "a\r\nSet-Cookie: b")], "GET", 0)
@example("200 OK", [("X: a\r\nSet-Cookie", "b")], "GET", 0)
def test_h11_reads_a_response_as_it_was_given(
    status: str, fields: list[tuple[str, str]], method: str, body_length: int | None
) -> None:
    """What an app gives is refused, or h11 reads its status and fields in what is sent, and finds the end of the body."""
    known: dict[str, Any] = {
        "version": "1.1",
        "keep_alive": True,
        "date": "Sat, 21 Nov 2026 04:00:00 GMT",
        "server": None,
    }
    try:
        composed = compose(status, fields, method=method, body_length=body_length, **known)
    except InvalidResponse:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
    client.send(h11.EndOfMessage())
    client.receive_data(composed.data + BODIES.get(composed.framing, b"a" * (composed.length or 0)))
    events = []
    while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        events.append(event)
    response = events[0]
    assert isinstance(response, h11.Response)
    assert (b"%d" % response.status_code, response.reason) == (status[:3].encode(), status[4:].encode("latin-1"))
    sent = [(name, value) for name, value in response.headers.raw_items() if name.lower() not in SERVERS_OWN]
    wanted = [(name.encode("latin-1"), value.strip(" \t").encode("latin-1")) for name, value in fields]
    assert sent == [(name, value) for name, value in wanted if name.lower() not in SERVERS_OWN]
    assert isinstance(events[-1], h11.EndOfMessage)
    assert client.trailing_data[0] == b""
