"""Conditional, range and coding fields: what they say, what is ignored, and that no text takes long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import parse_range_header

from flask_prodserve.wsgi.conditional_fields import (
    MAX_CACHED,
    MAX_DATE,
    Tags,
    read_date,
    read_range,
    read_tags,
    read_weights,
)
from linear import LENGTH, forms, is_linear


def tags(*strong: str, weak: tuple[str, ...] = ()) -> Tags:
    return Tags(frozenset(strong), frozenset(weak))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("*", Tags(any=True)),
        ('"a"', tags("a")),
        ('W/"a"', tags(weak=("a",))),
        ('w/"a"', tags(weak=("a",))),
        ('"a", W/"b" ,"c"', tags("a", "c", weak=("b",))),
        (',, "a",\t,"b",', tags("a", "b")),
        ('""', tags("")),
        ('"\xe4!#"', tags("\xe4!#")),
        ('"a,b"', tags("a,b")),
        ("a", tags("a")),
        ("a, b", tags("a", "b")),
        ("W/a", tags("W/a")),
        ("", tags()),
        (" ,", tags()),
        ('"a" "b"', tags()),
        ("a b", tags()),
        ('"a', tags()),
        ('a"', tags()),
        ('"a b"', tags()),
        ('"ours", a b', tags()),
    ],
)
def test_tags(text: str, found: Tags) -> None:
    """Tags are read with quotes, weak or not, and without quotes; of a malformed list there are none."""
    assert read_tags(text) == found


def test_comparisons() -> None:
    """A weak tag matches weakly only, and * matches every tag in either comparison."""
    found = read_tags('"a", W/"b"')
    assert [found.has(tag) for tag in "abc"] == [True, False, False]
    assert [found.has_weakly(tag) for tag in "abc"] == [True, True, False]
    assert read_tags("*").has("a")
    assert read_tags("*").has_weakly("a")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-4", (2, 5)),
        ("Bytes = 2-4", (2, 5)),
        ("bytes=2-4,", (2, 5)),
        ("bytes=9-", (9, 10)),
        ("bytes=1-99999999", (1, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=-0", (10, 10)),
        ("bytes=10-", (10, 10)),
        ("bytes=11-12", (11, 10)),
        ("bytes=4-2", None),
        ("bytes=0-1,3-4", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1 - 2", None),
        ("bytes=\u0661-\u0662", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("pages=1-2", None),
        ("", None),
    ],
)
def test_ranges(text: str, found: tuple[int, int] | None) -> None:
    """One range of bytes is read, within the file; what is no range, or several, means the whole file."""
    assert read_range(text, 10) == found


@given(
    st.one_of(
        st.builds("bytes={}-{}".format, st.integers(0, 30), st.one_of(st.just(""), st.integers(0, 30))),
        st.builds("bytes=-{}".format, st.integers(1, 30)),
    )
)
def test_ranges_as_another_reader_has_them(text: str) -> None:
    """Werkzeug finds the same bytes in a well-formed range."""
    size = 20
    wanted = parse_range_header(text)
    found = read_range(text, size)
    if wanted is None:
        assert found is None
        return
    start, stop = wanted.ranges[0]
    assert found is not None
    assert bytes(range(size))[slice(*found)] == bytes(range(size))[start:stop]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {"": 1.0}),
        ("gzip, br", {"gzip": 1.0, "br": 1.0}),
        ("GZIP ; q=0.5,br;Q=1.000", {"gzip": 0.5, "br": 1.0}),
        ("gzip;q=0, *;q=0.", {"gzip": 0.0, "*": 0.0}),
        ("gzip;q=2, br;q=-1, a;q=0.1234, b;q=, c;x=1, zstd", {"zstd": 1.0}),
    ],
)
def test_weights(text: str, found: dict[str, float]) -> None:
    """Each coding has its weight, 1 if none is said; one with a weight that is none is not named."""
    assert read_weights(text) == found


def test_long_fields_are_not_remembered() -> None:
    """A field that no browser sends takes no memory after its request."""
    text = "gzip," * (MAX_CACHED // 5 + 1)
    assert read_weights(text) == read_weights(text) == {"gzip": 1.0, "": 1.0}
    assert read_weights(text) is not read_weights(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", True),
        ("Sun Nov  6 08:49:37 1994", True),
        ("nonsense", False),
        ("", False),
        (f"Mon, 01 Jan 2030 00:00:00 +{9**30}", False),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", False),
        ("Sun, 06 Nov 1994 08:49:37 GMT" + " " * MAX_DATE, False),
    ],
)
def test_dates(text: str, read: bool) -> None:
    """The three forms of a date are read (RFC 9110, section 5.6.7); anything else, or longer, is no date."""
    found = read_date(text)
    assert (found is not None) == read
    if found is not None:
        assert found.timestamp() == 784111777


@pytest.mark.parametrize("read", [read_tags, lambda text: read_range(text, 10), read_weights, read_date])
@pytest.mark.parametrize("form", forms(LENGTH))
def test_time_to_read(read: Callable[[str], object], form: str) -> None:
    """The time to read a field grows with its length, and not with the square of it."""
    assert is_linear(read, lambda length: forms(length)[form])
