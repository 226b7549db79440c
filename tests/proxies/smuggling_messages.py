"""Messages that two readers may understand differently, with another request hidden inside: behind an end of the message that only one of
them sees, or in a body that only one of them reads.

``GET /named/hidden`` must not reach the app unless the proxy has read it as a request, too, and answers its client so.
"""

from __future__ import annotations

from dataclasses import dataclass

from real_proxies import HOST

HIDDEN = f"GET /named/hidden HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
_END = b"0\r\n\r\n"
_CHUNKED = "Transfer-Encoding: chunked"


@dataclass(frozen=True)
class Message:
    """*host* is that of the first request, where it is to be understood as one."""

    name: str
    data: bytes
    host: str = HOST


def _message(name: str, *lines: str, body: bytes = b"", first: str = "POST /named/first HTTP/1.1") -> Message:
    head = "\r\n".join([first, f"Host: {HOST}", *lines, "", ""])
    return Message(name, head.encode("latin-1") + body)


def _chunked(name: str, body: bytes) -> Message:
    return _message(name, _CHUNKED, body=body)


def _old(name: str, *lines: str, body: bytes = b"") -> Message:
    return _message(name, *lines, body=body, first="POST /named/first HTTP/1.0")


def _cut_short(name: str, *lines: str) -> Message:
    """The body ends before HIDDEN for who reads it as chunked, and behind it for who goes by the length."""
    body = _END + HIDDEN
    return _message(f"{name}, a length for more", f"Content-Length: {len(body)}", *lines, body=body)


def _extended(name: str, *lines: str) -> Message:
    """The body ends behind HIDDEN for who reads it as chunked, and before it for who goes by the length."""
    size = b"%x\r\n" % len(HIDDEN)
    return _message(
        f"{name}, a length for less", f"Content-Length: {len(size)}", *lines, body=size + HIDDEN + b"\r\n" + _END
    )


def _first_line(line: str) -> Message:
    return _message(f"first line {line!r}", first=line)


CODINGS = [
    build(repr("|".join(lines)), *lines)
    for lines in (
        (_CHUNKED,),
        ("TRANSFER-ENCODING: CHUNKED",),
        ("Transfer-Encoding:chunked",),
        ("Transfer-Encoding: \tchunked\t",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding\t: chunked",),
        ("Transfer-Encoding\0: chunked",),
        ("Transfer_Encoding: chunked",),
        ("Transfer Encoding: chunked",),
        (" Transfer-Encoding: chunked",),
        ("Transfer-Encoding:", " chunked"),
        ("Transfer-Encoding: chunked", " "),
        ("X: a\nTransfer-Encoding: chunked",),
        ("X: a\rTransfer-Encoding: chunked",),
        ("X: a\0Transfer-Encoding: chunked",),
        ("Transfer-Encoding: \vchunked",),
        ("Transfer-Encoding: chunked\v",),
        ("Transfer-Encoding: chunked\0",),
        ("Transfer-Encoding: \0chunked",),
        ("Transfer-Encoding: chunked\xa0",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: 'chunked'",),
        ('Transfer-Encoding: "chunked"',),
        ("Transfer-Encoding: chunked;q=1",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: identity, chunked",),
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: ,chunked",),
        ("Transfer-Encoding:",),
        ("Transfer-Encoding: identity",),
        (_CHUNKED, "Transfer-Encoding: cow"),
        ("Transfer-Encoding: cow", _CHUNKED),
        (_CHUNKED, _CHUNKED),
        (_CHUNKED, "Connection: Transfer-Encoding"),
        (_CHUNKED, "Connection: Content-Length"),
    )
    for build in (_cut_short, _extended)
]

LENGTHS = [
    *(
        _message(f"length {value!r}", f"Content-Length: {value}", body=HIDDEN)
        for value in (
            f"+{len(HIDDEN)}",
            "-0",
            "-1",
            f"0{len(HIDDEN)}",
            f"0x{len(HIDDEN):x}",
            "0x0",
            f"{len(HIDDEN)}_0",
            f"{len(HIDDEN)} 0",
            f"0 {len(HIDDEN)}",
            f"{len(HIDDEN)}, 0",
            f"0, {len(HIDDEN)}",
            f"{len(HIDDEN)}, {len(HIDDEN)}",
            f"{len(HIDDEN)};a",
            f"{len(HIDDEN)}.0",
            "",
            f"\v{len(HIDDEN)}",
            f"{len(HIDDEN)}\0",
            f"{len(HIDDEN)}\xa0",
        )
    ),
    _message("length over 64 bits", f"Content-Length: {2**64}", body=HIDDEN),
    _message("two lengths, 0 first", "Content-Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    _message("two lengths, 0 last", f"Content-Length: {len(HIDDEN)}", "Content-Length: 0", body=HIDDEN),
    _message("space before the colon of the length", f"Content-Length : {len(HIDDEN)}", body=HIDDEN),
    _message("tab before the colon of the length", f"Content-Length\t: {len(HIDDEN)}", body=HIDDEN),
    _message("NUL in the name of the length", f"Content-Length\0: {len(HIDDEN)}", body=HIDDEN),
    _message("underscore in the name of the length", f"Content_Length: {len(HIDDEN)}", body=HIDDEN),
    _message("length on a folded line", "Content-Length:", f" {len(HIDDEN)}", body=HIDDEN),
    _message("length behind a LF", f"X: a\nContent-Length: {len(HIDDEN)}", body=HIDDEN),
    _message("length behind a CR", f"X: a\rContent-Length: {len(HIDDEN)}", body=HIDDEN),
    _message("length is the connection's", "Connection: Content-Length", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    _message("length of a GET", f"Content-Length: {len(HIDDEN)}", body=HIDDEN, first="GET /named/first HTTP/1.1"),
    _message(
        "length of a GET that expects 100",
        "Expect: 100-continue",
        f"Content-Length: {len(HIDDEN)}",
        body=HIDDEN,
        first="GET /named/first HTTP/1.1",
    ),
]

CHUNKS = [
    *(
        _chunked(f"chunk size {size!r}", size + b"\r\n" + HIDDEN + b"\r\n" + _END)
        for size in (
            b"0x%x" % len(HIDDEN),
            b"+%x" % len(HIDDEN),
            b"-%x" % len(HIDDEN),
            b" %x" % len(HIDDEN),
            b"%x " % len(HIDDEN),
            b"\t%x" % len(HIDDEN),
            b"%xg" % len(HIDDEN),
            b"%x_0" % len(HIDDEN),
            b"%x.0" % len(HIDDEN),
            b"",
            b"%x\0" % len(HIDDEN),
            b"%x\xa0" % len(HIDDEN),
            b"%x;a" % len(HIDDEN),
            b'%x;a="b"' % len(HIDDEN),
            b'%x;a="\r\n"' % len(HIDDEN),
            b"%x;a\n" % len(HIDDEN),
            b"%x;\n" % len(HIDDEN),
            b"%x;a\r" % len(HIDDEN),
            b"%x\n" % len(HIDDEN),
            b"%x\r" % len(HIDDEN),
            b"0\n\r\n",
            b"0\n",
            b"10000000000000000",
            b"1%016x" % len(HIDDEN),
            b"100000000%x" % len(HIDDEN),
            b"%017x" % len(HIDDEN),
            b"%0300x" % len(HIDDEN),
            b"fffffffffffffffff",
            b"ffffffffffffffff",
            b"80000000",
        )
    ),
    _chunked("LF ends a size", b"%x\n" % len(HIDDEN) + HIDDEN + b"\r\n" + _END),
    _chunked("LF in an extension hides a size", b"2;\nxx\r\n%x\r\n0\r\n\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + _END),
    _chunked("LF ends a chunk", b"1\r\na\n" + _END + HIDDEN),
    _chunked("CR ends a chunk", b"1\r\na\r" + _END + HIDDEN),
    _chunked("two bytes that are no CR LF end a chunk", b"1\r\naXX" + _END + HIDDEN),
    _chunked("nothing ends a chunk", b"1\r\na" + _END + HIDDEN),
    _chunked("LF ends the last size", b"0\n\r\n" + HIDDEN),
    _chunked("LF ends the body", b"0\r\n\n" + HIDDEN),
    _chunked("two LF end the body", b"0\n\n" + HIDDEN),
    _chunked("two CR end the body", b"0\r\r" + HIDDEN),
    _chunked("CR CR LF ends the last size", b"0\r\r\n\r\n" + HIDDEN),
    _chunked("no line before the end", b"0\r\n" + HIDDEN),
    _chunked("a trailer", b"0\r\nX: a\r\n\r\n"),
    _chunked("a length in a trailer", b"0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN),
    _chunked("a coding in a trailer", b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN),
    _chunked("a host in a trailer", b"0\r\nHost: evil.example\r\n\r\n"),
    _chunked("a request as a trailer", b"0\r\nX: " + HIDDEN),
    _chunked("a LF in a trailer", b"0\r\nX: a\n\n" + HIDDEN),
    _chunked("a trailer without a colon", b"0\r\nX\r\n\r\n" + HIDDEN),
]

HEADS = [
    *map(
        _first_line,
        (
            f"GET http://{HOST}/named/first HTTP/1.1",
            f"GET http://{HOST}@evil.example/named/first HTTP/1.1",
            f"GET http://evil.example@{HOST}/named/first HTTP/1.1",
            "GET //evil.example/named/first HTTP/1.1",
            "GET evil.example/named/first HTTP/1.1",
            "GET  /named/first HTTP/1.1",
            "GET\t/named/first HTTP/1.1",
            "GET /named/first  HTTP/1.1",
            "GET /named/first HTTP/1.1 ",
            "GET /named/first HTTP/1.1 HTTP/1.1",
            "GET /named/first HTTP/1.1\r",
            "GET /named/first\rHTTP/1.1",
            "GET /named/first\0 HTTP/1.1",
            "GET /named/first# HTTP/1.1",
            "GET /named/first HTTP/1.10",
            "GET /named/first HTTP/01.1",
            "GET /named/first HTTP/2.0",
            "GET /named/first HTTP/0.9",
            "GET /named/first http/1.1",
            "GET /named/first HTTP /1.1",
            "GET : /named/first HTTP/1.1",
            " GET /named/first HTTP/1.1",
            "\r\nGET /named/first HTTP/1.1",
            "\nGET /named/first HTTP/1.1",
            "\rGET /named/first HTTP/1.1",
            "GE\x00T /named/first HTTP/1.1",
            "CONNECT example.org:80 HTTP/1.1",
            "TRACE /named/first HTTP/1.1",
        ),
    ),
    Message(
        "a target on another host, which counts (RFC 9112, section 3.2.2)",
        f"GET http://other.example/named/first HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
        "other.example",
    ),
    Message("LF ends every line", b"GET /named/first HTTP/1.1\nHost: example.org\n\n" + HIDDEN),
    Message("LF ends the head", b"GET /named/first HTTP/1.1\r\nHost: example.org\r\n\n" + HIDDEN),
    Message("CR ends the head", b"GET /named/first HTTP/1.1\r\nHost: example.org\r\n\r" + HIDDEN),
    Message("no host", b"GET /named/first HTTP/1.1\r\n\r\n"),
    _message("two hosts", "Host: evil.example"),
    _message("a host behind a LF", "X: a\nHost: evil.example"),
    _message("a host behind a CR", "X: a\rHost: evil.example"),
    _message("a host behind a space", " Host: evil.example"),
    _message("a host before a space", "Host : evil.example"),
    _message("NUL in a value", "X: a\0b"),
    _message("a request behind a CR", "X: a\r\r" + HIDDEN.decode()),
    _message("a request behind two LF", "X: a\n\n" + HIDDEN.decode()),
    _message("a request on a folded line", "X: a", " " + HIDDEN.decode()),
    _message("a request behind a field without a colon", "X", HIDDEN.decode()),
    _message("a request behind an empty name", ": a", HIDDEN.decode()),
    _message(
        "an upgrade to h2c",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        f"Content-Length: {len(HIDDEN)}",
        body=HIDDEN,
    ),
    _message("a WebSocket with a body", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0", body=HIDDEN),
    _old("chunked in 1.0", _CHUNKED, body=_END + HIDDEN),
    _old("chunked in 1.0, kept", "Connection: keep-alive", _CHUNKED, body=_END + HIDDEN),
    _old(
        "chunked and a length in 1.0, kept",
        "Connection: keep-alive",
        _CHUNKED,
        f"Content-Length: {len(_END + HIDDEN)}",
        body=_END + HIDDEN,
    ),
    _old("a length in 1.0, kept", "Connection: keep-alive", "Content-Length: 0", body=HIDDEN),
    _old("no length in 1.0", body=HIDDEN),
]

MESSAGES = [*CODINGS, *LENGTHS, *CHUNKS, *HEADS]
