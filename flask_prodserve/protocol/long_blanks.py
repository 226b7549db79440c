"""Shortens long rows of blanks in header fields, before a library reads the field.

A pattern such as ``\\s*;`` takes time by the square of the length of a row of blanks. In a field of
30 KB that is a second or more, in which the process does nothing else: in Werkzeug 3.1 for Accept,
and in 3.1.3 also for If-Match, If-None-Match and Cookie.

RFC 9110, section 5.6.3: optional and required white space may be replaced with a single SP before
it is interpreted. Rows in quoted strings are replaced as well, because libraries search them too.
NEL and NBSP (0x85, 0xA0) are not white space in HTTP, but ``\\s`` matches them in WSGI strings.
"""

from __future__ import annotations

import re

MAX_BLANKS = 16
"""Blanks and tabs in a row that are kept. Programs that align fields use fewer, and 32 KiB of such
rows take under a millisecond.
"""

READ_BY_LIBRARIES = frozenset(
    {
        "CONTENT_TYPE",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_CHARSET",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_ACCESS_CONTROL_REQUEST_HEADERS",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD",
        "HTTP_AUTHORIZATION",
        "HTTP_CACHE_CONTROL",
        "HTTP_CONTENT_DISPOSITION",
        "HTTP_CONTENT_ENCODING",
        "HTTP_CONTENT_RANGE",
        "HTTP_COOKIE",
        "HTTP_DATE",
        "HTTP_FORWARDED",
        "HTTP_IF_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_RANGE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_PRAGMA",
        "HTTP_RANGE",
    }
)
"""The fields that Flask and Werkzeug parse. Others, such as User-Agent and an app's own, are
unchanged.
"""

_MANY = b" " * (MAX_BLANKS + 1)
_LONG = re.compile(rf"[ \t\x85\xa0]{{{MAX_BLANKS + 1},}}")


def may_have_long_blanks(section: bytes) -> bool:
    """Return whether the fields in *section* need :func:`shorten_blanks`. Quick, because it is
    called for every head.
    """
    return b"\t" in section or _MANY in section or not section.isascii()


def shorten_blanks(fields: dict[str, str]) -> None:
    """Replace, in the *fields* that libraries read, each row of more than MAX_BLANKS blanks with
    one blank.
    """
    for key in fields.keys() & READ_BY_LIBRARIES:
        fields[key] = _LONG.sub(" ", fields[key])
