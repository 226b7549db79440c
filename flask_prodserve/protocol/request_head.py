"""Reads the head of a request: RFC 9112 and RFC 9110, strictly.

Sans-I/O. Everything that two readers could understand differently is refused, because one of the
two may be the proxy in front. Each rule stands in one place, with its section. Deviations, all
towards strictness: only CR LF ends a line (RFC 9112, section 2.2 allows a bare LF); a host is a DNS
name or an IP address; and see :mod:`.request_fields`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from .refusal import Refusal
from .request_fields import TOKEN, decoded_lines, is_host, read_fields

MAX_BLANK_BYTES = 8
"""Bytes of CR LF that may come before a request (RFC 9112, section 2.2: at least one CR LF must be
ignored).
"""

MAX_METHOD = 32
KNOWN_PARTS = 256
"""How many parsed request lines, and how many sets of fields, are cached: the most recent ones."""

KNOWN_BYTES = 2048
"""Largest head that is cached, in bytes, so that the cache takes a few MB at worst."""

_BARE_LF = re.compile(rb"(?<!\r)\n")
# RFC 9112, section 2.3:  HTTP-version = HTTP-name "/" DIGIT "." DIGIT
_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")
_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}
# RFC 9112, section 3.2.2:  absolute-form = absolute-URI
_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """The most bytes of the request line without its end, bytes of the head with its blank line,
    and fields.
    """

    request_line: int = 8190
    size: int = 32 * 1024
    count: int = 100


@dataclass(slots=True)
class RequestHead:
    """A parsed head. Texts are latin-1 "WSGI strings" (PEP 3333).

    *target* is as sent; *path* is decoded. *fields* go into a WSGI environment as they are: named
    ``HTTP_*``, ``CONTENT_TYPE`` and ``CONTENT_LENGTH``, with fields of one name joined, and without
    Transfer-Encoding, because the server decodes the body. *expect_continue*: a body follows, and
    the client waits for 100.
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
    """Collects one head. ``head`` is set when it is complete; ``started`` after the first byte that
    is not a blank line.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._blank = 0
        self.started = False
        self.head: RequestHead | None = None

    def feed(self, data: bytes) -> int:
        """Take *data*, and return how many bytes belong to the head: all until it is complete.

        Raises Refusal; the end of the message is then unknown.
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
        # If more than a line and half of its end are held, the line has ended. It is not searched
        # again for every byte that drips.
        if held <= limits.request_line + 1 and len(buffer) > limits.request_line:
            line_end = buffer.find(b"\r\n", 0, limits.request_line + 2)
            # Without its end, the line is too long once more has come than the line and the first
            # half of its end.
            if line_end < 0 and (end >= 0 or len(buffer) > limits.request_line + 1 or buffer[-1] != 13):
                _check_line_ends(buffer, 0, limits.request_line)
                raise Refusal(414, "The request line is longer than this server accepts.", "MAX_REQUEST_LINE")
        if (end + 4 if end >= 0 else len(buffer) + 1) > limits.size:
            _check_line_ends(buffer, 0, limits.size - 1)
            raise Refusal(431, "The request's header fields are larger than this server accepts.", "MAX_HEADER_SIZE")


def _check_line_ends(buffer: bytes | bytearray, start: int, end: int) -> None:
    """Refuse a bare LF before what follows it, so that the status does not depend on how the bytes
    were split.
    """
    if _BARE_LF.search(buffer, start, end):
        raise Refusal(400, "A line of the request head does not end in CR LF.")


def _parse(head: bytes, max_count: int) -> RequestHead:
    line, _, section = head.partition(b"\r\n")
    line_reader, fields_reader = (
        (_known_line, _known_fields) if len(head) <= KNOWN_BYTES else (_request_line, read_fields)
    )
    method, target, version, authority, path, query = line_reader(line)
    fields, content_length, chunked, keep_alive, expect_continue = fields_reader(section, version, max_count)
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
        fields.copy(),  # the caller may change it
        content_length,
        chunked,
        keep_alive,
        expect_continue,
    )


def _request_line(data: bytes) -> tuple[str, str, str, str | None, str, str]:
    """RFC 9112, section 3:  request-line = method SP request-target SP HTTP-version

    Returns the three, and the results of :func:`_target`.
    """
    [line] = decoded_lines(data)
    parts = line.split(" ")
    if len(parts) != 3 or not line.isascii() or "\t" in line:
        raise Refusal(400, "The request line is malformed.")
    method, target, sent_version = parts
    version = _VERSIONS.get(sent_version)
    if version is None:
        if _VERSION.fullmatch(sent_version):
            raise Refusal(505, "This server speaks HTTP/1.1 and HTTP/1.0.")
        raise Refusal(400, "The version in the request line is malformed.")
    if len(method) > MAX_METHOD or not TOKEN.fullmatch(method):
        raise Refusal(400, "The request method is malformed.")
    return method, target, version, *_target(method, target)


def _target(method: str, target: str) -> tuple[str | None, str, str]:
    """Split a target into host, decoded path and query (RFC 9112, section 3.2). Only an absolute
    target has a host, which must be that of the Host field.
    """
    if method in ("CONNECT", "TRACE"):
        # A WSGI app cannot tunnel (RFC 9110, section 9.3.6); TRACE would show cookies to scripts
        # (section 9.3.8).
        raise Refusal(501, "This server does not support CONNECT and TRACE.")
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
        if not is_host(authority):
            raise Refusal(400, "The host of the request target is not a valid host and port.")
        if not rest.startswith("/"):
            rest = "/" + rest
    path, _, query = rest.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    if path.startswith("//"):
        # An app that redirects to its own path, which it sees decoded, would send the client to
        # another host.
        path = "/" + path.lstrip("/")
    return authority, path, query


# Clients repeat requests, and a browser sends the same fields each time. The same bytes have the
# same meaning, so accepted parts are cached. Refused ones are not.
_known_line = lru_cache(KNOWN_PARTS)(_request_line)
_known_fields = lru_cache(KNOWN_PARTS)(read_fields)
