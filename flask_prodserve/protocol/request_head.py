"""Reading the head of a request: RFC 9112 and RFC 9110, strictly.

Sans-I/O. Whatever two readers could understand differently is refused, because one of the two may be the proxy in front. Each rule
stands here once, with its section. Deviations, all towards strictness: only CR LF ends a line (RFC 9112, section 2.2 allows a bare
LF); a host is a DNS name or an IP address; field names with ``_`` are dropped, since in a WSGI environment they pass for those with
``-`` (nginx does the same).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from .long_blanks import may_have_long_blanks, shorten_blanks
from .refusal import Refusal

MAX_BLANK_BYTES = 8
"""CR LF pairs that may come before a request (RFC 9112, section 2.2: at least one is to be ignored)."""

MAX_METHOD = 32
MAX_LENGTH_DIGITS = 18
MAX_HOST = 255 + len(":65535")
"""A DNS name has 255 bytes at most (RFC 1035, section 2.3.4). Longer ones would also fill the memory of known hosts."""

KNOWN_PARTS = 256
"""Request lines, and sets of fields, that are remembered as they were read: those that were sent last."""

KNOWN_BYTES = 2048
"""Bytes of the largest head of which that is done, so that all of them take a few MB at worst."""

# RFC 9110, section 5.6.2:  token = 1*tchar
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110, section 5.5: of the controls, field values may have the tab. CR and LF are left where they do not end a line.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BARE_LF = re.compile(rb"(?<!\r)\n")
# RFC 9112, section 2.3:  HTTP-version = HTTP-name "/" DIGIT "." DIGIT
_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")
_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}
# RFC 9112, section 3.2.2:  absolute-form = absolute-URI
_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
# RFC 9110, section 7.2:  Host = uri-host [ ":" port ]
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|[0-9A-Za-z_](?:[0-9A-Za-z._-]*[0-9A-Za-z_.])?)(?::([0-9]{1,5}))?")
# RFC 9110, section 8.6:  Content-Length = 1*DIGIT
_LENGTH = re.compile(r"[0-9]+", re.ASCII)

_SINGLETONS = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_AUTHORIZATION",
        "HTTP_EXPECT",
        "HTTP_FROM",
        "HTTP_HOST",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_RANGE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_MAX_FORWARDS",
        "HTTP_ORIGIN",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_RANGE",
        "HTTP_REFERER",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_USER_AGENT",
    }
)
"""Fields that are no lists: of two, one reader takes the first and the other the last (RFC 9110, section 5.3)."""

_END_TO_END = frozenset(
    {
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "origin",
        "range",
        "referer",
        "transfer-encoding",
        "user-agent",
        "x-real-ip",
    }
)
"""Fields that a connection option must not name (RFC 9110, section 7.6.1): a proxy in between would remove them."""


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bytes of the request line without its end, bytes of the whole head with its blank line, and number of fields."""

    request_line: int = 8190
    size: int = 32 * 1024
    count: int = 100


@dataclass(slots=True)
class RequestHead:
    """What a head says. Texts are latin-1 "WSGI strings" (PEP 3333).

    *target* is as it was sent; *path* is decoded. *fields* go into a WSGI environment as they are: under ``HTTP_*``, ``CONTENT_TYPE``
    and ``CONTENT_LENGTH``, several of a name joined, without Transfer-Encoding, which the body is decoded from. *expect_continue*: a
    body is to come, and its sender waits for 100.
    """

    method: str
    target: str
    version: str
    path: str
    query: str
    host: str | None
    fields: dict[str, str]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool


class HeadReader:
    """Collects one head. ``head`` is set when it is complete; ``started`` once there is more than blank lines."""

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._blank = 0
        self.started = False
        self.head: RequestHead | None = None

    def feed(self, data: bytes) -> int:
        """Take *data*; returns how many bytes belong to the head, which is all until it is complete.

        Raises Refusal; the message's end is not known then.
        """
        blank = 0
        if not self.started:
            if self._blank or data[:1] == b"\r":
                blank = self._skip_blank_lines(data)
            if blank == len(data):
                return blank
            self.started = True
        held = len(self._buffer)
        buffer: bytes | bytearray
        if held or blank:
            self._buffer += data[blank:]
            buffer = self._buffer
        else:
            buffer = data
        end = buffer.find(b"\r\n\r\n", max(0, held - 3))
        if len(buffer) > self._limits.request_line or len(buffer) >= self._limits.size:
            self._check_size(buffer, held, end)
        if end >= 0:
            try:
                self.head = _parse(bytes(buffer[:end]), self._limits.count)
            except Refusal:
                _check_line_ends(buffer, 0, end)
                raise
            return end + 4 - held + blank
        _check_line_ends(buffer, held, len(buffer))
        if buffer is data:
            self._buffer += data
        return len(data)

    def _skip_blank_lines(self, data: bytes) -> int:
        position = 0
        while position < len(data) and data[position] == b"\r\n"[self._blank % 2]:
            position += 1
            self._blank += 1
            if self._blank > MAX_BLANK_BYTES:
                raise Refusal(400, "There are too many blank lines before the request.")
        if position < len(data) and self._blank % 2:
            raise Refusal(400, "A line before the request does not end in CR LF.")
        return position

    def _check_size(self, buffer: bytes | bytearray, held: int, end: int) -> None:
        limits = self._limits
        # With more than a line and half of its end held, the line was seen to end: it is not searched again for every byte that drips.
        if held <= limits.request_line + 1 and len(buffer) > limits.request_line:
            line_end = buffer.find(b"\r\n", 0, limits.request_line + 2)
            # Without its end, the line is too long once more has come than the line and the first half of its end.
            if line_end < 0 and (end >= 0 or len(buffer) > limits.request_line + 1 or buffer[-1] != 13):
                _check_line_ends(buffer, 0, limits.request_line)
                raise Refusal(414, "The request line is longer than this server accepts.", "MAX_REQUEST_LINE")
        if (end + 4 if end >= 0 else len(buffer) + 1) > limits.size:
            _check_line_ends(buffer, 0, limits.size - 1)
            raise Refusal(431, "The request's header fields are larger than this server accepts.", "MAX_HEADER_SIZE")


def _check_line_ends(buffer: bytes | bytearray, start: int, end: int) -> None:
    """A bare LF is refused before what comes behind it, so that the status does not depend on how the bytes were split."""
    if _BARE_LF.search(buffer, start, end):
        raise Refusal(400, "A line of the request head does not end in CR LF.")


def _parse(head: bytes, max_count: int) -> RequestHead:
    line, _, section = head.partition(b"\r\n")
    read_line, read_fields = (_known_line, _known_fields) if len(head) <= KNOWN_BYTES else (_request_line, _fields)
    method, target, version, authority, path, query = read_line(line)
    fields, content_length, chunked, keep_alive, expect_continue = read_fields(section, version, max_count)
    host = fields.get("HTTP_HOST")
    if authority is not None and host is not None and host.lower() != authority.lower():
        raise Refusal(400, "The host of the request target and the Host field contradict each other.")
    return RequestHead(
        method,
        target,
        version,
        path,
        query,
        host,
        fields.copy(),  # whoever gets it may change it
        content_length,
        chunked,
        keep_alive,
        expect_continue,
    )


def _lines(data: bytes) -> list[str]:
    lines = data.decode("latin-1").split("\r\n")
    # isprintable() is the fast way to say that nothing is forbidden; tabs and 8-bit bytes need the closer look.
    if not "".join(lines).isprintable() and any(map(_FORBIDDEN.search, lines)):
        raise Refusal(400, "The request head has a control character.")
    return lines


def _request_line(data: bytes) -> tuple[str, str, str, str | None, str, str]:
    """RFC 9112, section 3:  request-line = method SP request-target SP HTTP-version

    Returns the three, and what :func:`_target` finds.
    """
    [line] = _lines(data)
    parts = line.split(" ")
    if len(parts) != 3 or not line.isascii() or "\t" in line:
        raise Refusal(400, "The request line is malformed.")
    method, target, sent_version = parts
    version = _VERSIONS.get(sent_version)
    if version is None:
        if _VERSION.fullmatch(sent_version):
            raise Refusal(505, "This server speaks HTTP/1.1 and HTTP/1.0.")
        raise Refusal(400, "The version in the request line is malformed.")
    if len(method) > MAX_METHOD or not _TOKEN.fullmatch(method):
        raise Refusal(400, "The request method is malformed.")
    return method, target, version, *_target(method, target)


def _target(method: str, target: str) -> tuple[str | None, str, str]:
    """The host of an absolute target, which must be the Host field's, the decoded path and the query (RFC 9112, section 3.2)."""
    if method in ("CONNECT", "TRACE"):
        # A tunnel is not what a WSGI app is for (RFC 9110, section 9.3.6); TRACE would show cookies to scripts (section 9.3.8).
        raise Refusal(501, "This server does not do CONNECT or TRACE.")
    if "#" in target:
        raise Refusal(400, "The request target has a fragment.")
    authority, rest = None, target
    if not target.startswith("/"):
        if target == "*" and method == "OPTIONS":
            return None, "", ""
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise Refusal(400, "The request target is neither a path nor an absolute URL.")
        authority, rest = absolute[1], absolute[2]
        if not _is_host(authority):
            raise Refusal(400, "The host of the request target is no valid host and port.")
        if not rest.startswith("/"):
            rest = "/" + rest
    path, _, query = rest.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    if path.startswith("//"):
        # An app that redirects to its own path, which it knows decoded only, would send the client to another host.
        path = "/" + path.lstrip("/")
    return authority, path, query


def _fields(data: bytes, version: str, max_count: int) -> tuple[dict[str, str], int | None, bool, bool, bool]:
    """What the lines behind the request line say, in a message of *version*.

    Returns the ``fields``, ``content_length``, ``chunked``, ``keep_alive`` and ``expect_continue`` of the RequestHead.
    """
    lines = _lines(data) if data else []
    if len(lines) > max_count:
        raise Refusal(431, "The request has more header fields than this server accepts.", "MAX_HEADER_COUNT")
    fields = _by_key(lines)
    if may_have_long_blanks(data):
        shorten_blanks(fields)
    host = fields.get("HTTP_HOST")
    if version == "1.1" and host is None:
        # RFC 9112, section 3.2: 400 to a 1.1 request that lacks a Host.
        raise Refusal(400, "The request has no Host field.")
    if host and not _is_host(host):
        raise Refusal(400, "The Host field is no valid host and port.")
    content_length, chunked = _framing(fields, version)
    keep_alive = _keep_alive(fields.get("HTTP_CONNECTION"), version)
    expect_continue = _expect(fields.get("HTTP_EXPECT"), version) and bool(chunked or content_length)
    return fields, content_length, chunked, keep_alive, expect_continue


# Clients ask for the same again and again, and a browser says the same of itself each time. The same bytes have the same meaning: what has
# been read and found good is not read again. What is refused is not remembered.
_known_line = lru_cache(KNOWN_PARTS)(_request_line)
_known_fields = lru_cache(KNOWN_PARTS)(_fields)


def _by_key(lines: list[str]) -> dict[str, str]:
    """RFC 9112, section 5:  field-line = field-name ":" OWS field-value OWS. A folded line has no name and is refused (section 5.2)."""
    fields: dict[str, str] = {}
    known = _environ_keys.get
    for line in lines:
        name, colon, value = line.partition(":")
        key = known(name) if colon else None
        if key is None:
            key = _environ_key(name, colon)
        if not key:
            continue
        value = value.strip(" \t")
        if key not in fields:
            fields[key] = value
        elif key in _SINGLETONS:
            raise Refusal(400, "A header field that may come once came several times.")
        else:
            # RFC 9110, section 5.3; RFC 6265, section 5.4 has one Cookie field, which HTTP/2 proxies split.
            fields[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value
    return fields


_KNOWN_NAMES = 2048
_environ_keys: dict[str, str] = {}
"""Field names as clients spell them, and their keys in a WSGI environment; ``""`` for a name that is dropped. Bounded."""


def _environ_key(name: str, colon: str) -> str:
    if not colon or not _TOKEN.fullmatch(name):
        # RFC 9112, section 5.1: also white space between name and colon.
        raise Refusal(400, "A header field is malformed.")
    key = name.upper().replace("-", "_")
    if "_" in name:
        key = ""
    elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    if len(_environ_keys) >= _KNOWN_NAMES:
        _environ_keys.clear()  # names that nobody uses again have filled it; those in use come back
    if len(name) <= 64:
        _environ_keys[name] = key
    return key


def _framing(fields: dict[str, str], version: str) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked (RFC 9112, sections 6.1 to 6.3)."""
    coding = fields.pop("HTTP_TRANSFER_ENCODING", None)
    length = fields.get("CONTENT_LENGTH")
    if coding is None:
        if length is None:
            return None, False
        # The length of the text bounds the number, before anybody converts it.
        if len(length) > MAX_LENGTH_DIGITS or not _LENGTH.fullmatch(length):
            raise Refusal(400, "Content-Length is no number of bytes.")
        return int(length), False
    # Section 6.1: a 1.0 message with a coding, and one with a length as well, must be treated as an attempt at smuggling.
    if version != "1.1" or length is not None:
        raise Refusal(400, "Transfer-Encoding must not come with Content-Length, nor in HTTP/1.0.")
    if coding.lower() != "chunked":
        _refuse_coding(coding.lower())
    return None, True


def _refuse_coding(value: str) -> None:
    codings = [coding.strip(" \t") for coding in value.split(",")]
    if not all(map(_TOKEN.fullmatch, codings)) or "chunked" in codings[:-1]:
        raise Refusal(400, "Transfer-Encoding is malformed, or chunked is not its last coding.")
    raise Refusal(501, "This server knows no transfer coding but chunked.")


def _keep_alive(connection: str | None, version: str) -> bool:
    """RFC 9112, section 9.3: persistence by version and options; ``close`` anywhere wins."""
    if connection is None:
        return version == "1.1"
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    for option in options:
        if option in _END_TO_END or option.startswith("x-forwarded-"):
            raise Refusal(400, "The Connection field names a field that is not the connection's.")
    return "close" not in options and (version == "1.1" or "keep-alive" in options)


def _expect(value: str | None, version: str) -> bool:
    """RFC 9110, section 10.1.1: 417 for what is not understood; a 1.0 client's expectation is ignored."""
    if value is None or version == "1.0":
        return False
    if value.lower() != "100-continue":
        raise Refusal(417, "This server understands no expectation but 100-continue.")
    return True


def _is_host(text: str) -> bool:
    return len(text) <= MAX_HOST and _has_form_of_host(text)


@lru_cache(maxsize=1024)
def _has_form_of_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    if match is None or (match[2] is not None and int(match[2]) > 65535):
        return False
    if match[1] is not None:
        try:
            ipaddress.IPv6Address(match[1])
        except ValueError:
            return False
    return True
