"""Reads the header fields of a request: RFC 9110, section 5, and RFC 9112, sections 5 to 7,
strictly.

Sans-I/O; see :mod:`.request_head` for the rules. Field names with ``_`` are dropped, because in a
WSGI environment they look like those with ``-`` (nginx does the same).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from .long_blanks import may_have_long_blanks, shorten_blanks
from .refusal import Refusal

MAX_LENGTH_DIGITS = 18
MAX_HOST = 255 + len(":65535")
"""A DNS name has at most 255 bytes (RFC 1035, section 2.3.4). Longer names would also fill the
cache of known hosts.
"""


# RFC 9110, section 5.6.2:  token = 1*tchar
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110, section 5.5: the tab is the only control character in field values. CR and LF remain
# here if they do not end a line.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
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
"""Fields that are not lists: of two, one reader takes the first and another the last (RFC 9110,
section 5.3).
"""

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
"""Fields that a connection option must not name (RFC 9110, section 7.6.1): a proxy would remove
them.
"""


def read_fields(data: bytes, version: str, max_count: int) -> tuple[dict[str, str], int | None, bool, bool, bool]:
    """Read the lines after the request line, in a message of *version*.

    Returns ``fields``, ``content_length``, ``chunked``, ``keep_alive`` and ``expect_continue`` of
    the RequestHead.
    """
    lines = decoded_lines(data) if data else []
    if len(lines) > max_count:
        raise Refusal(431, "The request has more header fields than this server accepts.", "MAX_HEADER_COUNT")
    fields = _by_key(lines)
    if may_have_long_blanks(data):
        shorten_blanks(fields)
    host = fields.get("HTTP_HOST")
    if version == "1.1" and host is None:
        # RFC 9112, section 3.2: 400 to a 1.1 request that lacks a Host.
        raise Refusal(400, "The request has no Host field.")
    if host and not is_host(host):
        raise Refusal(400, "The Host field is not a valid host and port.")
    content_length, chunked = _framing(fields, version)
    keep_alive = _keep_alive(fields.get("HTTP_CONNECTION"), version)
    expect_continue = _expect(fields.get("HTTP_EXPECT"), version) and bool(chunked or content_length)
    return fields, content_length, chunked, keep_alive, expect_continue


def _by_key(lines: list[str]) -> dict[str, str]:
    """RFC 9112, section 5:  field-line = field-name ":" OWS field-value OWS

    A folded line has no name and is refused (section 5.2).
    """
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
            # RFC 9110, section 5.3; RFC 6265, section 5.4 has one Cookie field, which HTTP/2
            # proxies split.
            fields[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value
    return fields


_KNOWN_NAMES = 2048
_environ_keys: dict[str, str] = {}
"""Field names as sent, and their keys in a WSGI environment; ``""`` for a name that is dropped.
Bounded.
"""


def _environ_key(name: str, colon: str) -> str:
    if not colon or not TOKEN.fullmatch(name):
        # RFC 9112, section 5.1: also white space between name and colon.
        raise Refusal(400, "A header field is malformed.")
    key = name.upper().replace("-", "_")
    if "_" in name:
        key = ""
    elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    if len(_environ_keys) >= _KNOWN_NAMES:
        _environ_keys.clear()  # full of names that are not used again; those in use come back
    if len(name) <= 64:
        _environ_keys[name] = key
    return key


def _framing(fields: dict[str, str], version: str) -> tuple[int | None, bool]:
    """Return Content-Length, and whether the body is chunked (RFC 9112, sections 6.1 to 6.3)."""
    coding = fields.pop("HTTP_TRANSFER_ENCODING", None)
    length = fields.get("CONTENT_LENGTH")
    if coding is None:
        if length is None:
            return None, False
        # The length of the text limits the number before it is converted.
        if len(length) > MAX_LENGTH_DIGITS or not _LENGTH.fullmatch(length):
            raise Refusal(400, "Content-Length is not a number of bytes.")
        return int(length), False
    # Section 6.1: a 1.0 message with a coding, and one with a length as well, must be treated as an
    # attempt at smuggling.
    if version != "1.1" or length is not None:
        raise Refusal(400, "Transfer-Encoding must not come with Content-Length, nor in HTTP/1.0.")
    if coding.lower() != "chunked":
        _refuse_coding(coding.lower())
    return None, True


def _refuse_coding(value: str) -> None:
    codings = [coding.strip(" \t") for coding in value.split(",")]
    if not all(map(TOKEN.fullmatch, codings)) or "chunked" in codings[:-1]:
        raise Refusal(400, "Transfer-Encoding is malformed, or chunked is not its last coding.")
    raise Refusal(501, "This server supports no transfer coding but chunked.")


def _keep_alive(connection: str | None, version: str) -> bool:
    """RFC 9112, section 9.3: persistence by version and options; ``close`` anywhere wins."""
    if connection is None:
        return version == "1.1"
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    for option in options:
        if option in _END_TO_END or option.startswith("x-forwarded-"):
            raise Refusal(400, "The Connection field names a field that does not belong to the connection.")
    return "close" not in options and (version == "1.1" or "keep-alive" in options)


def _expect(value: str | None, version: str) -> bool:
    """RFC 9110, section 10.1.1: 417 for what is not understood; a 1.0 client's expectation is
    ignored.
    """
    if value is None or version == "1.0":
        return False
    if value.lower() != "100-continue":
        raise Refusal(417, "This server supports no expectation but 100-continue.")
    return True


def decoded_lines(data: bytes) -> list[str]:
    lines = data.decode("latin-1").split("\r\n")
    # isprintable() is a fast check that nothing is forbidden; only tabs and 8-bit bytes need the
    # search.
    if not "".join(lines).isprintable() and any(map(_FORBIDDEN.search, lines)):
        raise Refusal(400, "The request head has a control character.")
    return lines


def is_host(text: str) -> bool:
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
