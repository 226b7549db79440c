"""Long rows of blanks in fields: in which they become short, and that libraries are quick with what is left."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable

import pytest
from werkzeug.datastructures import Authorization, LanguageAccept, MIMEAccept
from werkzeug.http import (
    parse_accept_header,
    parse_cookie,
    parse_dict_header,
    parse_etags,
    parse_list_header,
    parse_options_header,
    parse_range_header,
)

from flask_prodserve.protocol.long_blanks import MAX_BLANKS, READ_BY_LIBRARIES
from flask_prodserve.protocol.request_head import HeadLimits, HeadReader
from linear import LENGTH, forms, is_linear


def read(name: str, value: str) -> str | None:
    """What the app gets of a field."""
    reader = HeadReader(HeadLimits())
    reader.feed(f"GET / HTTP/1.1\r\nHost: test\r\n{name}: {value}\r\n\r\n".encode("latin-1"))
    assert reader.head is not None
    key = name.upper().replace("-", "_")
    return reader.head.fields.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}")


def names() -> list[str]:
    return sorted(key.removeprefix("HTTP_").replace("_", "-").title() for key in READ_BY_LIBRARIES)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("blank", [" ", "\t", " \t", "\t ", "\xa0", "\x85 "])
def test_a_long_row(name: str, blank: str) -> None:
    """A row of more than MAX_BLANKS is one blank for the app, and a shorter row is what it was."""
    short = (blank * MAX_BLANKS)[:MAX_BLANKS]
    long = (blank * LENGTH)[: MAX_BLANKS + 1]
    assert read(name, f"a{short}b{long}c{blank * 5000}d") == f"a{short}b c d"


@pytest.mark.parametrize("name", ["User-Agent", "Referer", "X-Own", "X-Request-Id"])
def test_other_fields(name: str) -> None:
    """Fields that are free text, or an app's own, keep their blanks."""
    value = f"a{' ' * 100}b"
    assert read(name, value) == value


def test_rows_that_are_joined() -> None:
    """A row is short in each of several fields that are joined."""
    reader = HeadReader(HeadLimits())
    field = f"If-None-Match: a{' ' * 500}b\r\n"
    reader.feed(f"GET / HTTP/1.1\r\nHost: test\r\n{field * 3}\r\n".encode())
    assert reader.head is not None
    assert reader.head.fields["HTTP_IF_NONE_MATCH"] == "a b, a b, a b"


LIBRARY: dict[str, tuple[str, Callable[[str], object]]] = {
    "Accept": (
        "Accept",
        lambda text: parse_accept_header(text, MIMEAccept).best_match(["text/html", "application/json"]),
    ),
    "Accept-Language": (
        "Accept-Language",
        lambda text: parse_accept_header(text, LanguageAccept).best_match(["en", "de"]),
    ),
    "Accept-Encoding": ("Accept-Encoding", parse_accept_header),
    "Authorization": ("Authorization", Authorization.from_header),
    "Cache-Control": ("Cache-Control", parse_dict_header),
    "Content-Type": ("Content-Type", parse_options_header),
    "Cookie": ("Cookie", parse_cookie),
    "If-None-Match": ("If-None-Match", parse_etags),
    "Pragma": ("Pragma", parse_list_header),
    "Range": ("Range", parse_range_header),
}


@pytest.mark.skipif(
    sys.version_info < (3, 14) and bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="free-threaded 3.13 copies a text for each character that is added to it, as the standard library does",
)
@pytest.mark.parametrize("form", forms(LENGTH))
@pytest.mark.parametrize(("name", "parse"), LIBRARY.values(), ids=LIBRARY)
def test_libraries(name: str, parse: Callable[[str], object], form: str) -> None:
    """What Werkzeug is given of a field takes time by its length, and not by the square of it."""

    def make(length: int) -> str:
        value = read(name, forms(length)[form])
        assert value is not None
        return value

    assert is_linear(parse, make)
