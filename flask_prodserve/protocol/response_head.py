"""Composes the head of a response: the app's fields as it spelled them, and the framing that the
server chooses.

Sans-I/O. What the app gives is checked before a byte is sent. What can be corrected without
changing the meaning is corrected and reported; anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

# RFC 9110, section 5.1 and 5.6.2:  field-name = token;  token = 1*tchar
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110, section 5.5:  field-content is VCHAR, obs-text, SP and HTAB. No CR, LF, NUL, nor any
# other control.
_VALUE = re.compile(r"[\t \x21-\x7e\x80-\xff]*")
# RFC 9110, section 5.6.3:  OWS = *( SP / HTAB )
# strip() without argument would also remove \x85 and \xa0, the last bytes of some letters in UTF-8.
_OWS = " \t"
# RFC 9112, section 4:  status-code SP [ reason-phrase ]. In PEP 3333 the app gives both in one
# text. Clients treat 600 to 999 as a 5xx (RFC 9110, section 15), and other servers send them.
_STATUS = re.compile(r"[1-9][0-9][0-9](?: [\t \x21-\x7e\x80-\xff]*)?")
_DIGITS = re.compile(r"[0-9]{1,18}")

# RFC 9110, section 7.6.1, and PEP 3333: fields about the connection are for the server to send.
_HOP_BY_HOP = frozenset(
    {
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class InvalidResponse(ValueError):
    """The app's response cannot be sent. The text names the field and never shows its value."""


WITHOUT_BODY = (204, 205, 304)
"""The final statuses without a body."""


class Framing(Enum):
    """How a client finds the end of the body (RFC 9112, section 6.3)."""

    NONE = "no body"
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "until the connection closes"


class ResponseHead(NamedTuple):
    """The bytes of a head. *length* is that of the body if the framing is LENGTH; *corrections* are
    sentences for the log.
    """

    data: bytes
    status: int
    framing: Framing
    length: int | None
    keep_alive: bool
    corrections: tuple[str, ...]


def compose(
    status: str,
    fields: Sequence[tuple[str, str]],
    method: str,
    version: str,
    keep_alive: bool,
    body_length: int | None,
    date: str,
    server: str | None,
) -> ResponseHead:
    """Compose the head of the response to a request with *method* and *version* (``"1.0"`` or
    ``"1.1"``).

    *body_length* is the length in bytes if the server knows it; the app's Content-Length has
    precedence. *date* and *server* are sent unless the app gave its own. Raises InvalidResponse.
    """
    if not isinstance(status, str):
        raise InvalidResponse("the status is not a text such as '200 OK'")
    code, status_line = _status(status)
    lines = [status_line]
    corrections: list[str] = []
    length: int | None = None
    for name, value in fields:
        if not isinstance(name, str):
            raise InvalidResponse("a field's name is not a text")
        meaning = _meaning(name)
        # A fast path around the regular expression: nearly all values are printable ASCII.
        if type(value) is not str or not (value.isascii() and value.isprintable()):
            _check_value(name, value)
        if meaning:
            if meaning == "content-length":
                length = _length(value, length, corrections)
                continue
            if meaning == "connection":
                # The app may close the connection. Recipes for event streams ask for keep-alive,
                # which is ignored.
                keep_alive = keep_alive and "close" not in (option.strip(_OWS).lower() for option in value.split(","))
                continue
            if meaning == "date":
                date = ""
            elif meaning == "server":
                server = None
            else:
                corrections.append(f"{name} is not sent: the server manages the connection (PEP 3333)")
                continue
        lines.append(f"{name}: {value.strip(_OWS)}\r\n")
    framing = _framing(code, method, version, length if length is not None else body_length)
    if code == 204 and length is not None:
        # RFC 9110, section 8.6:  A server MUST NOT send a Content-Length header field in any
        # response with a status of 204.
        corrections.append("Content-Length is not sent: status 204 has no body")
        length = None
    elif code == 205:
        # RFC 9110, section 15.3.6: no content. Unlike for 204, the client needs the length to know
        # (RFC 9112, section 6.3).
        if length:
            corrections.append("Content-Length is 0: status 205 has no body")
        length = 0
    elif framing is Framing.LENGTH and length is None:
        length = body_length
    if length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    if framing is Framing.CHUNKED:
        lines.append("Transfer-Encoding: chunked\r\n")
    if framing is Framing.CLOSE:
        keep_alive = False
    if date:
        lines.append(f"Date: {date}\r\n")
    if server is not None:
        lines.append(f"Server: {server}\r\n")
    if not keep_alive:
        lines.append("Connection: close\r\n")
    elif version == "1.0":
        lines.append("Connection: keep-alive\r\n")
    lines.append("\r\n")
    data = "".join(lines).encode("latin-1")
    if framing is not Framing.LENGTH:
        length = None
    return ResponseHead(data, code, framing, length, keep_alive, tuple(corrections))


compose_known = lru_cache(256)(compose)
"""Composes cached heads for *fields* in a tuple, such as those of a file: once a second, because of
the date.
"""


@lru_cache(256)
def _status(status: str) -> tuple[int, str]:
    """Return the code and the status line."""
    if not _STATUS.fullmatch(status):
        raise InvalidResponse("the status is not a text such as '200 OK', with a number from 200 to 999")
    code = int(status[:3])
    if code < 200:
        raise InvalidResponse(f"status {code} is no final response")
    # RFC 9112, section 2.3: the server sends its own version, whatever the client's is.
    return code, f"HTTP/1.1 {status if len(status) > 3 else status + ' '}\r\n"


@lru_cache(1024)
def _meaning(name: str) -> str:
    """Return the name in lower case if the server handles the field, else ``""``."""
    if not _TOKEN.fullmatch(name):
        raise InvalidResponse("a field's name is not a token")
    lower = name.lower()
    return lower if lower in _HOP_BY_HOP or lower in ("connection", "content-length", "date", "server") else ""


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidResponse(f"{name} is {type(value).__name__}, not a text")
    if not _VALUE.fullmatch(value):
        raise InvalidResponse(f"{name} has a character that no field may have")


def _length(value: str, before: int | None, corrections: list[str]) -> int:
    digits = value.strip(_OWS)
    if not _DIGITS.fullmatch(digits):
        raise InvalidResponse("Content-Length is not a number")
    if before is not None:
        if before != int(digits):
            raise InvalidResponse("Content-Length is given twice, with different values")
        corrections.append("Content-Length is given twice")
    return int(digits)


def _framing(code: int, method: str, version: str, length: int | None) -> Framing:
    """Choose the framing by RFC 9112, section 6.3, items 1, 4, 6 and 8. 205 has no body either (RFC
    9110, section 15.3.6).

    A response to HEAD needs neither a length nor a coding (RFC 9110, section 9.3.2).
    """
    if method == "HEAD" or code in WITHOUT_BODY:
        return Framing.NONE
    if length is not None:
        return Framing.LENGTH
    # RFC 9112, section 6.1:  A server MUST NOT send Transfer-Encoding unless the request indicates
    # HTTP/1.1.
    return Framing.CHUNKED if version == "1.1" else Framing.CLOSE


_last_date = (0, "")


def http_date(now: float) -> str:
    """Format *now*, in seconds since the epoch, as in RFC 9110, section 5.6.7. Each second is
    formatted once.
    """
    global _last_date
    second = int(now)
    known, text = _last_date  # read and replaced as one object, so threads see the old or the new pair
    if known != second:
        text = formatdate(second, usegmt=True)
        _last_date = (second, text)
    return text
