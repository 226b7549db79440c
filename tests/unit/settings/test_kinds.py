"""Kinds: what they read, what they refuse and with which words, and that writing undoes reading."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.settings import kinds
from flask_prodserve.settings.kinds import Kind
from flask_prodserve.units import TCPAddress, UnixAddress

ALL_KINDS = {name: kind for name, kind in vars(kinds).items() if isinstance(kind, Kind)}

COLOUR = kinds.choice("red", "green", "blue")
PORTS = kinds.several(kinds.PORT)


@pytest.mark.parametrize(
    ("kind", "raw", "value", "written"),
    [
        (kinds.COUNT, " 16 ", 16, "16"),
        (kinds.COUNT, 16, 16, "16"),
        (kinds.SIZE, "10 MiB", 10 * 1024**2, "10MiB"),
        (kinds.SIZE, "10MB", 10_000_000, "10000000"),
        (kinds.SIZE, 0, 0, "0"),
        (kinds.DURATION, "500ms", 0.5, "500ms"),
        (kinds.DURATION, "1.5h", 5400.0, "5400s"),
        (kinds.DURATION, 30, 30.0, "30s"),
        (kinds.MODE, "660", 0o660, "0o660"),
        (kinds.MODE, 0o600, 0o600, "0o600"),
        (kinds.UMASK, "027", 0o027, "0o027"),
        (kinds.UMASK, "0022", 0o022, "0o022"),
        (kinds.UMASK, 0, 0, "0o000"),
        (kinds.WORKERS, " Auto ", "auto", "auto"),
        (kinds.WORKERS, "4", 4, "4"),
        (kinds.WORKERS, 0, 0, "0"),
        (kinds.ACCOUNT, " www-data ", "www-data", "www-data"),
        (kinds.ACCOUNT, "1000", "1000", "1000"),
        (kinds.ACCOUNT, 1000, "1000", "1000"),
        (kinds.PORT, "8000", 8000, "8000"),
        (kinds.PORT, 0, 0, "0"),
        (kinds.HOST, "[::1]", "::1", "[::1]"),
        (kinds.HOST, "*", "", "*"),
        (kinds.ADDRESS, ":8000", TCPAddress("", 8000), ":8000"),
        (kinds.ADDRESS, "[::]:80", TCPAddress("::", 80), "[::]:80"),
        (kinds.ADDRESS, "unix:/run/app.sock", UnixAddress("/run/app.sock"), "unix:/run/app.sock"),
        (kinds.TRUSTED_PEER, "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (kinds.TRUSTED_PEER, "unix", "unix", "unix"),
        (kinds.BOOLEAN, "On", True, "true"),
        (kinds.BOOLEAN, 0, False, "false"),
        (kinds.PATH, Path("a") / "b.pem", "a/b.pem", "a/b.pem"),
        (kinds.CONTROL_SOCKET, "AUTO", "auto", "auto"),
        (kinds.CONTROL_SOCKET, " off", "off", "off"),
        (kinds.CONTROL_SOCKET, Path("run") / "auto", "run/auto", "run/auto"),
        (kinds.LOG, "Stdout", "stdout", "stdout"),
        (kinds.LOG, "OFF", "off", "off"),
        (kinds.LOG, "logs/Off", "logs/Off", "logs/Off"),
        (kinds.LOG, Path("access.log"), "access.log", "access.log"),
        (kinds.TEXT, " a server ", "a server", "a server"),
        (COLOUR, " Red", "red", "red"),
    ],
)
def test_reads_and_writes(kind: Kind, raw: object, value: object, written: str) -> None:
    """A kind reads what people write, and writes it so that it reads the same value again."""
    parsed = kind.parse(raw)
    assert parsed == value
    assert type(parsed) is type(value)
    assert kind.write(parsed) == written
    assert kind.parse(written) == parsed


@pytest.mark.parametrize(
    ("kind", "raw", "valid"),
    [
        (kinds.COUNT, "-1", "a whole number"),
        (kinds.COUNT, "1.5", "a whole number"),
        (kinds.COUNT, 1.0, "a whole number"),
        (kinds.COUNT, True, "a whole number"),
        (kinds.COUNT, "\u0663", "a whole number"),  # a digit, but an Arabic one
        (kinds.COUNT, None, "a whole number"),
        (kinds.SIZE, "1.5MiB", "a size such as"),
        (kinds.SIZE, -1, "a size such as"),
        (kinds.SIZE, "10 apples", "a size such as"),
        (kinds.DURATION, "-1s", "a duration such as"),
        (kinds.DURATION, float("nan"), "a duration such as"),
        (kinds.DURATION, float("inf"), "a duration such as"),
        (kinds.DURATION, False, "a duration such as"),
        (kinds.MODE, "1777", "three octal digits"),
        (kinds.MODE, "888", "three octal digits"),
        (kinds.MODE, 0o1777, "three octal digits"),
        (kinds.UMASK, "27", "three octal digits such as 0o027"),
        (kinds.UMASK, "", "three octal digits such as 0o027"),
        (kinds.WORKERS, -1, "a whole number up to 1000 such as 4, or auto"),
        (kinds.WORKERS, "2.5", "a whole number up to 1000 such as 4, or auto"),
        (kinds.WORKERS, "all", "a whole number up to 1000 such as 4, or auto"),
        (kinds.WORKERS, True, "a whole number up to 1000 such as 4, or auto"),
        (kinds.ACCOUNT, "", "an account name or number"),
        (kinds.ACCOUNT, "two words", "an account name or number"),
        (kinds.ACCOUNT, "bell\a", "an account name or number"),
        (kinds.ACCOUNT, "nul\0", "an account name or number"),
        (kinds.ACCOUNT, -1, "an account name or number"),
        (kinds.ACCOUNT, False, "an account name or number"),
        (kinds.CONTROL_SOCKET, "", "auto, off or the path of a socket"),
        (kinds.CONTROL_SOCKET, False, "auto, off or the path of a socket"),
        (kinds.PORT, "65536", "from 0 to 65535"),
        (kinds.PORT, -1, "from 0 to 65535"),
        (kinds.HOST, "", "a host name or address"),
        (kinds.HOST, "a b", "a host name or address"),
        (kinds.HOST, "[::1", "a host name or address"),
        (kinds.HOST, "http://localhost", "a host name or address"),
        (kinds.HOST, b"localhost", "a host name or address"),
        (kinds.ADDRESS, "8000", "an address such as"),
        (kinds.ADDRESS, "::1:8000", "an address such as"),
        (kinds.ADDRESS, "unix:", "an address such as"),
        (kinds.ADDRESS, "localhost:", "an address such as"),
        (kinds.TRUSTED_PEER, "10.0.0.1/8", "10.0.0.0/8"),
        (kinds.TRUSTED_PEER, "proxy.local", "an address or network"),
        (kinds.BOOLEAN, "maybe", "true or false"),
        (kinds.BOOLEAN, 2, "true or false"),
        (kinds.BOOLEAN, [], "true or false"),
        (kinds.PATH, " ", "the path of a file"),
        (kinds.PATH, "a\0b", "the path of a file"),
        (kinds.PATH, b"a", "the path of a file"),
        (kinds.LOG, False, "stdout, stderr, off or the path of a file"),
        (kinds.LOG, "", "stdout, stderr, off or the path of a file"),
        (kinds.TEXT, "a\nb", "printable ASCII text"),
        (kinds.TEXT, "\u00e9", "printable ASCII text"),
        (kinds.TEXT, 7, "printable ASCII text"),
        (COLOUR, "yellow", "red, green or blue"),
        (COLOUR, 1, "red, green or blue"),
        (COLOUR, ["red"], "red, green or blue"),
    ],
)
def test_refuses(kind: Kind, raw: object, valid: str) -> None:
    """What a kind cannot read is a ValueError that says what would be valid."""
    with pytest.raises(ValueError, match=valid):
        kind.parse(raw)


def test_at_least_and_at_most() -> None:
    """Bounds are inclusive, are never clamped to, and are named as people write them."""
    bounded = kinds.at_least(1, kinds.DURATION, at_most=60)
    assert [bounded.parse(1), bounded.parse("60s")] == [1.0, 60.0]
    with pytest.raises(ValueError, match=r"^at least 1s$"):
        bounded.parse("999ms")
    with pytest.raises(ValueError, match=r"^at most 60s$"):
        bounded.parse("61s")
    with pytest.raises(ValueError, match="a duration such as"):
        bounded.parse("soon")


def test_at_least_or_zero() -> None:
    """Zero stands for none; what is between it and the minimum is refused."""
    bounded = kinds.at_least_or_zero(2, kinds.DURATION)
    assert [bounded.parse("0"), bounded.parse(0), bounded.parse("2s"), bounded.parse("1h")] == [0.0, 0.0, 2.0, 3600.0]
    with pytest.raises(ValueError, match=r"^0, or at least 2s$"):
        bounded.parse("1999ms")
    with pytest.raises(ValueError, match="a duration such as"):
        bounded.parse("-1")
    assert kinds.at_least_or_zero(64, kinds.SIZE).metavar == "SIZE"


def test_bounds_keep_the_kind() -> None:
    """A bounded kind is written and called the same."""
    bounded = kinds.at_least(64, kinds.SIZE)
    assert (bounded.metavar, bounded.write(1024)) == ("SIZE", "1KiB")
    with pytest.raises(ValueError, match=r"^at least 64$"):
        bounded.parse(0)


@pytest.mark.parametrize(
    "raw",
    ["80,443", "80 443", " 80,, 443 ,", "80\n443", ["80", 443], ("80,443",), ("80", "443", "80"), [["80"], "443"]],
)
def test_several(raw: object) -> None:
    """A list may be a text with commas or blanks, a sequence, or a sequence of such texts; what is named twice counts once."""
    assert PORTS.parse(raw) == (80, 443)
    assert PORTS.write((80, 443)) == "80,443"
    assert PORTS.repeatable


@pytest.mark.parametrize("raw", ["", ",", " , ", [], (), [""]])
def test_several_needs_one(raw: object) -> None:
    """A list without an item is refused: it says nothing."""
    with pytest.raises(ValueError, match="at least one value"):
        PORTS.parse(raw)


def test_several_refuses_if_one_is_wrong() -> None:
    """One bad item refuses the whole list, and is named."""
    with pytest.raises(kinds.ItemError, match="65535") as caught:
        PORTS.parse("80,99999")
    assert caught.value.item == "99999"
    with pytest.raises(ValueError, match="65535"):
        PORTS.parse({"80": True})


@pytest.mark.parametrize("name", ALL_KINDS)
@given(
    raw=st.one_of(
        st.text(max_size=40),
        st.binary(max_size=10),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.booleans(),
        st.none(),
        st.lists(st.text(max_size=5), max_size=3),
    )
)
def test_nothing_but_value_error(name: str, raw: Any) -> None:
    """Whatever a kind is given, it returns a value that it can write, or raises ValueError."""
    kind = ALL_KINDS[name]
    try:
        value = kind.parse(raw)
    except ValueError:
        return
    assert isinstance(kind.write(value), str)


def test_paths() -> None:
    """Files are listed with commas, since their names may have blanks; one may be there twice."""
    assert kinds.PATHS.parse("a b.pem, c.pem,c.pem") == ("a b.pem", "c.pem", "c.pem")
    assert kinds.PATHS.parse(["a b.pem", "c.pem"]) == ("a b.pem", "c.pem")
    assert kinds.PATHS.write(("a b.pem", "c.pem")) == "a b.pem,c.pem"
    for nothing in ("", " ", ",", []):
        with pytest.raises(ValueError, match="at least one value"):
            kinds.PATHS.parse(nothing)
