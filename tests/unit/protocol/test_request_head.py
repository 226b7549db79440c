"""Heads that are accepted, with what they say, and heads that are refused, each whole, byte by byte, and with more behind it."""

from __future__ import annotations

from collections.abc import Callable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.protocol import request_head
from flask_prodserve.protocol.refusal import Refusal
from flask_prodserve.protocol.request_head import HeadLimits, HeadReader, RequestHead

LIMITS = HeadLimits(request_line=100, size=1000, count=10)
TRAILING = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


def whole(message: bytes) -> tuple[HeadReader, int]:
    reader = HeadReader(LIMITS)
    return reader, reader.feed(message)


def byte_by_byte(message: bytes) -> tuple[HeadReader, int]:
    reader = HeadReader(LIMITS)
    consumed = 0
    for index in range(len(message)):
        if reader.head is None:
            consumed += reader.feed(message[index : index + 1])
    return reader, consumed


def with_trailing_data(message: bytes) -> tuple[HeadReader, int]:
    return whole(message + TRAILING)


Way = Callable[[bytes], tuple[HeadReader, int]]
WAYS = pytest.mark.parametrize("way", [whole, byte_by_byte, with_trailing_data])


def head(*lines: str, first: str = "GET / HTTP/1.1", host: str | None = "Host: test") -> bytes:
    return "\r\n".join([first, *([host] if host is not None else []), *lines, "", ""]).encode("latin-1")


def read(message: bytes) -> RequestHead:
    reader, _ = whole(message)
    assert reader.head is not None
    return reader.head


ACCEPTED = [
    head(),
    head(first="GET /a%20b?c=%20d HTTP/1.1"),
    head(first="GET http://test/path?q HTTP/1.1"),
    head(first="GET HTTP://TEST HTTP/1.1"),
    head(first="OPTIONS * HTTP/1.1"),
    head(first="GET / HTTP/1.0", host=None),
    head(first="PROPFIND /dav HTTP/1.1"),
    head(first="GET /" + "a" * (100 - len("GET / HTTP/1.1")) + " HTTP/1.1"),
    head("Content-Length: 5"),
    head("Content-Length: 000"),
    head("Transfer-Encoding: chunked"),
    head("Transfer-Encoding:   ChunkeD\t"),
    head("X-Empty:"),
    head("X-Tab: a\tb"),
    head("X-Latin: \xe4\xff"),
    head("Cookie: a=1", "Cookie: b=2"),
    head("Connection: keep-alive, X-Hop"),
    head(*["X-A: b"] * 9),
    head("X-A: " + "a" * (1000 - len(head("X-A: ")))),
    head(host="Host: [::1]:8000"),
    head(host="Host:"),
    head(host="Host: a_b.example:"),
    b"\r\n" + head(),
    b"\r\n\r\n\r\n\r\n" + head(),
]
ACCEPTED.remove(head(host="Host: a_b.example:"))


@WAYS
@pytest.mark.parametrize("message", ACCEPTED)
def test_accepted(way: Way, message: bytes) -> None:
    """A good head is read to its end and not beyond, however it comes."""
    reader, consumed = way(message)
    assert reader.head is not None
    assert consumed == len(message)
    assert reader.head == read(message)


REFUSED: list[tuple[str, bytes, int]] = [
    ("bare LF", b"GET / HTTP/1.1\nHost: test\r\n\r\n", 400),
    ("bare LF in a field", head("X-A: a\nX-B: b"), 400),
    ("bare CR in a field", head("X-A: a\rX-B: b"), 400),
    ("bare CR before", b"\r" + head(), 400),
    ("bare LF before", b"\n" + head(), 400),
    ("too many blank lines", b"\r\n" * 5 + head(), 400),
    ("NUL", head("X-A: a\0b"), 400),
    ("control", head("X-A: a\x1fb"), 400),
    ("DEL", head("X-A: a\x7fb"), 400),
    ("vertical tab", head("Transfer-Encoding: chunked\x0b"), 400),
    ("8-bit request line", head(first="GET /\xe4 HTTP/1.1"), 400),
    ("two blanks", head(first="GET  / HTTP/1.1"), 400),
    ("leading blank", head(first=" GET / HTTP/1.1"), 400),
    ("trailing blank", head(first="GET / HTTP/1.1 "), 400),
    ("tab as blank", head(first="GET\t/ HTTP/1.1"), 400),
    ("no version", head(first="GET /"), 400),
    ("no target", head(first="GET HTTP/1.1"), 400),
    ("HTTP/0.9", head(first="GET / HTTP/0.9"), 505),
    ("HTTP/1.2", head(first="GET / HTTP/1.2"), 505),
    ("HTTP/2.0", head(first="PRI * HTTP/2.0"), 505),
    ("version of letters", head(first="GET / HTTP/1.x"), 400),
    ("lower-case version", head(first="GET / http/1.1"), 400),
    ("long version", head(first="GET / HTTP/1.10"), 400),
    ("method is no token", head(first="G(T / HTTP/1.1"), 400),
    ("absurd method", head(first="A" * 33 + " / HTTP/1.1"), 400),
    ("long request line", head(first="GET /" + "a" * (101 - len("GET / HTTP/1.1")) + " HTTP/1.1"), 414),
    ("fragment", head(first="GET /a#b HTTP/1.1"), 400),
    ("authority form", head(first="GET test:80 HTTP/1.1"), 400),
    ("relative target", head(first="GET path HTTP/1.1"), 400),
    ("other scheme", head(first="GET ftp://test/ HTTP/1.1"), 400),
    ("asterisk", head(first="GET * HTTP/1.1"), 400),
    ("CONNECT", head(first="CONNECT test:80 HTTP/1.1"), 501),
    ("TRACE", head(first="TRACE / HTTP/1.1"), 501),
    ("no Host", head(host=None), 400),
    ("two Hosts", head("Host: test"), 400),
    ("contradicting Host", head(first="GET http://other/ HTTP/1.1"), 400),
    ("empty Host with authority", head(first="GET http://test/ HTTP/1.1", host="Host:"), 400),
    ("empty authority", head(first="GET http:/// HTTP/1.1"), 400),
    ("user in authority", head(first="GET http://a@test/ HTTP/1.1"), 400),
    ("Host with path", head(host="Host: test/x"), 400),
    ("Host with user", head(host="Host: a@test"), 400),
    ("Host with blank", head(host="Host: te st"), 400),
    ("Host with comma", head(host="Host: a, b"), 400),
    ("Host with port 65536", head(host="Host: test:65536"), 400),
    ("Host with empty port", head(host="Host: test:"), 400),
    ("Host with broken IPv6", head(host="Host: [1::2::3]"), 400),
    ("no colon", head("X-A"), 400),
    ("empty name", head(": a"), 400),
    ("blank before colon", head("X-A : a"), 400),
    ("folded line", head("X-A: a", " b"), 400),
    ("folded first line", head(host=" Host: test"), 400),
    ("name is no token", head("X(A): a"), 400),
    ("8-bit name", head("X-\xe4: a"), 400),
    ("too many fields", head(*["X-A: b"] * 10), 431),
    ("too large", head("X-A: " + "a" * (1001 - len(head("X-A: ")))), 431),
    ("two Content-Types", head("Content-Type: a", "content-type: a"), 400),
    ("two Authorizations", head("Authorization: a", "Authorization: b"), 400),
    ("two lengths", head("Content-Length: 5", "Content-Length: 5"), 400),
    ("list of lengths", head("Content-Length: 5, 5"), 400),
    *(
        (f"length {value!r}", head(f"Content-Length: {value}"), 400)
        for value in ("", "+5", "-5", "0x5", "5.0", "5_0", "\xb2", "9" * 19)
    ),
    ("length and coding", head("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
    ("coding in 1.0", head("Transfer-Encoding: chunked", first="POST / HTTP/1.0"), 400),
    ("empty coding", head("Transfer-Encoding:"), 400),
    ("two codings fields", head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    ("chunked twice", head("Transfer-Encoding: chunked, chunked"), 400),
    ("chunked not last", head("Transfer-Encoding: chunked, gzip"), 400),
    ("malformed coding", head("Transfer-Encoding: ,chunked"), 400),
    ("quoted coding", head('Transfer-Encoding: "chunked"'), 400),
    ("coding with no-break space", head("Transfer-Encoding: chunked\xa0"), 400),
    ("unknown coding", head("Transfer-Encoding: gzip"), 501),
    ("unknown coding first", head("Transfer-Encoding: gzip, chunked"), 501),
    ("identity", head("Transfer-Encoding: identity"), 501),
    ("unknown expectation", head("Expect: tea", "Content-Length: 1"), 417),
    ("Connection: Host", head("Connection: close, Host"), 400),
    ("Connection: Content-Length", head("Connection: content-length", "Content-Length: 1"), 400),
    ("Connection: X-Forwarded-For", head("Connection: X-Forwarded-For"), 400),
]


@WAYS
@pytest.mark.parametrize(("message", "status"), [pytest.param(m, s, id=name) for name, m, s in REFUSED])
def test_refused(way: Way, message: bytes, status: int) -> None:
    """What two readers could understand differently is refused with its status, and without the client's bytes in the reason."""
    with pytest.raises(Refusal) as caught:
        way(message)
    assert caught.value.status == status
    assert "test" not in caught.value.reason


@pytest.mark.parametrize(
    ("endless", "status"), [(b"A", 414), (b"GET / HTTP/1.1\r\nX: y", 431), (b"GET / HTTP/1.1\r\n" + b"X: y\r\n", 431)]
)
def test_endless(endless: bytes, status: int) -> None:
    """A head that does not end is refused at its limit, whatever it is made of, and never held beyond."""
    pieces = [endless, *[endless[-6:]] * (LIMITS.size // len(endless[-6:]))]
    with pytest.raises(Refusal) as caught:
        byte_by_byte(b"".join(pieces)[: LIMITS.size])
    assert caught.value.status == status


def test_what_a_head_says() -> None:
    """Path and query, fields under their WSGI names, framing and persistence are read from a head."""
    seen = read(
        head(
            "Content-Type: text/plain",
            "Content-Length: 7",
            "Accept: a",
            "accept: b",
            "Cookie: x=1",
            "Cookie: y=2",
            "X_Under: dropped",
            "Expect: 100-Continue",
            first="POST /p%C3%A4th/%2F?q=%20 HTTP/1.1",
        )
    )
    assert (seen.method, seen.target, seen.version) == ("POST", "/p%C3%A4th/%2F?q=%20", "1.1")
    assert (seen.path, seen.query, seen.host) == ("/pÃ¤th//", "q=%20", "test")
    assert seen.fields == {
        "HTTP_HOST": "test",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "7",
        "HTTP_ACCEPT": "a, b",
        "HTTP_COOKIE": "x=1; y=2",
        "HTTP_EXPECT": "100-Continue",
    }
    assert (seen.content_length, seen.chunked, seen.keep_alive, seen.expect_continue) == (7, False, True, True)


def test_absolute_target() -> None:
    """The path of an absolute target is its path, ``/`` if it has none."""
    assert read(head(first="GET http://test?x HTTP/1.1")).path == "/"
    assert read(head(first="GET http://test/a HTTP/1.1")).path == "/a"
    assert read(head(first="OPTIONS * HTTP/1.1")).path == ""


@pytest.mark.parametrize(
    "before", ["//", "////", "/%2F", "/%2f%2F/", "//%2F", "http://test//", "http://test/%2F", "http://test//%2f/"]
)
def test_leading_slashes(before: str) -> None:
    """Several slashes at the beginning of a path are one, however they are written; others stay."""
    assert read(head(first=f"GET {before}evil.test//a%2F HTTP/1.1")).path == "/evil.test//a/"


@pytest.mark.parametrize(
    ("first", "connection", "keep_alive"),
    [
        ("GET / HTTP/1.1", None, True),
        ("GET / HTTP/1.1", "close", False),
        ("GET / HTTP/1.1", "X-A, CLOSE", False),
        ("GET / HTTP/1.1", "keep-alive, close", False),
        ("GET / HTTP/1.1", "closed", True),
        ("GET / HTTP/1.0", None, False),
        ("GET / HTTP/1.0", "Keep-Alive", True),
        ("GET / HTTP/1.0", "keep-alive, close", False),
    ],
)
def test_persistence(first: str, connection: str | None, keep_alive: bool) -> None:
    """The version and the options of Connection decide whether the connection stays; ``close`` wins."""
    lines = [] if connection is None else [f"Connection: {connection}"]
    assert read(head(*lines, first=first)).keep_alive is keep_alive
    if connection and "," in connection:
        several = [f"Connection: {option}" for option in connection.split(",")]
        assert read(head(*several, first=first)).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("1.1", ["Expect: 100-continue"]),
        ("1.1", ["Expect: 100-continue", "Content-Length: 0"]),
        ("1.0", ["Expect: 100-continue", "Content-Length: 5"]),
        ("1.0", ["Expect: tea", "Content-Length: 5"]),
    ],
)
def test_no_continue(version: str, lines: list[str]) -> None:
    """Nobody waits for 100 without a body, or in HTTP/1.0."""
    assert read(head(*lines, first=f"GET / HTTP/{version}")).expect_continue is False


def test_the_same_head_again() -> None:
    """It says the same, also after somebody has changed what he got of it, and beside another first line and other limits."""
    message = head("Cookie: a=1", "Connection: keep-alive")
    first = read(message)
    first.fields.clear()
    for _ in range(2):
        again = read(message)
        assert again.fields == {"HTTP_HOST": "test", "HTTP_COOKIE": "a=1", "HTTP_CONNECTION": "keep-alive"}
        assert again.fields is not first.fields
        older = read(head("Cookie: a=1", "Connection: keep-alive", first="GET / HTTP/1.0"))
        assert older.version == "1.0"
        assert older.fields == again.fields
        with pytest.raises(Refusal) as caught:
            HeadReader(HeadLimits(count=2)).feed(message)
        assert caught.value.status == 431


def test_the_same_mistake_again() -> None:
    """What is refused once is refused again, be it in the first line, in the fields, or between them."""
    for lines in [head(first="GET /# HTTP/1.1"), head("Name : value"), head(first="GET http://other/ HTTP/1.1")]:
        for _ in range(2):
            with pytest.raises(Refusal) as caught:
                read(lines)
            assert caught.value.status == 400
    assert read(head(first="GET http://other/ HTTP/1.1", host="Host: other")).host == "other"


def test_what_is_remembered() -> None:
    """So many parts of heads, and none of a large one: what clients send must not fill the memory."""
    for number in range(request_head.KNOWN_PARTS + 1):
        read(head(f"Cookie: {number}", first=f"GET /{number} HTTP/1.1"))
    for known in (request_head._known_line, request_head._known_fields):
        assert known.cache_info().currsize == request_head.KNOWN_PARTS
    before = request_head._known_fields.cache_info()
    large = b"Cookie: " + b"x" * request_head.KNOWN_BYTES
    HeadReader(HeadLimits()).feed(b"GET / HTTP/1.1\r\nHost: test\r\n" + large + b"\r\n\r\n")
    assert request_head._known_fields.cache_info() == before


@given(st.binary(max_size=300) | st.text("GET /htp:1.\r\n\tHoscnlegk-0", max_size=120).map(str.encode))
def test_arbitrary_bytes(data: bytes) -> None:
    """Nothing that can be sent raises anything but Refusal, or is read differently in pieces."""

    def verdict(way: Way) -> object:
        try:
            reader, consumed = way(data)
        except Refusal as refusal:
            return refusal.status
        return reader.head, consumed

    one, other = verdict(whole), verdict(byte_by_byte)
    # In pieces, a refusal may come before the end of the head is there, by the rule that the first bytes break.
    assert one == other or (isinstance(one, int) and isinstance(other, int))


_token = st.text("abcXYZ019!#$%&'*+.^`|~-", min_size=1, max_size=12)
_value = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


@given(_token, st.lists(st.tuples(_token.map(lambda name: "X-" + name), _value), max_size=8))
def test_h11_agrees(method: str, fields: list[tuple[str, str]]) -> None:
    """What is accepted here is read by h11 as the same request."""
    message = head(*(f"{name}: {value}" for name, value in fields), first=f"{method} /path?query HTTP/1.1")
    seen = read(message)
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(message)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method.decode(), event.target.decode()) == (seen.method, seen.target)
    joined: dict[str, str] = {}
    for name, value in event.headers:
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        joined[key] = f"{joined[key]}, {value.decode()}" if key in joined else value.decode()
    assert joined == seen.fields
