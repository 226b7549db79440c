"""How values are written and read: sizes, durations, addresses, networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve import units
from flask_prodserve.units import SystemdAddress, TCPAddress, UnixAddress

Parse = Callable[[object], Any]


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_count, "16", 16),
        (units.parse_count, 16, 16),
        (units.parse_count, " 016 ", 16),
        *((units.parse_boolean, text, True) for text in ("1", "true", "Yes", " on ", 1, True)),
        *((units.parse_boolean, text, False) for text in ("0", "false", "No", "OFF", 0, False)),
        (units.parse_size, "8190", 8190),
        (units.parse_size, 8190, 8190),
        (units.parse_size, "10MiB", 10 * 1024**2),
        (units.parse_size, "10 mb", 10 * 1000**2),
        (units.parse_size, "32K", 32 * 1024),
        (units.parse_size, "1GiB", 1024**3),
        (units.parse_duration, "30s", 30.0),
        (units.parse_duration, 2.5, 2.5),
        (units.parse_duration, "500ms", 0.5),
        (units.parse_duration, "1.5h", 5400.0),
        (units.parse_duration, "5m", 300.0),
        (units.parse_duration, "1d", 86400.0),
        *((units.parse_mode, text, 0o660) for text in ("0o660", "0660", "660", 0o660)),
        (units.parse_port, "0", 0),
        (units.parse_port, "65535", 65535),
        *((units.parse_host, text, "") for text in ("", "*")),
        (units.parse_host, "[::1]", "::1"),
        (units.parse_host, "::1", "::1"),
        (units.parse_host, "example.org", "example.org"),
        (units.parse_address, "127.0.0.1:8000", TCPAddress("127.0.0.1", 8000)),
        (units.parse_address, ":8000", TCPAddress("", 8000)),
        (units.parse_address, "*:8000", TCPAddress("", 8000)),
        (units.parse_address, "[::]:80", TCPAddress("::", 80)),
        (units.parse_address, "localhost:0", TCPAddress("localhost", 0)),
        (units.parse_address, "unix:/run/app.sock", UnixAddress("/run/app.sock")),
        (units.parse_address, "unix:app.sock", UnixAddress("app.sock")),
        (units.parse_address, " systemd ", SystemdAddress()),
        (units.parse_address, "systemd:web-1.socket", SystemdAddress("web-1.socket")),
        (units.parse_address, "systemd:80", SystemdAddress("80")),
        (units.parse_trusted_peer, "10.0.0.1", ipaddress.ip_network("10.0.0.1/32")),
        (units.parse_trusted_peer, "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        (units.parse_trusted_peer, "::1", ipaddress.ip_network("::1/128")),
        (units.parse_trusted_peer, "*", "*"),
        (units.parse_trusted_peer, "unix", "unix"),
    ],
)
def test_read(parse: Parse, text: object, value: object) -> None:
    """What people write is read as they mean it."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "valid", "texts"),
    [
        (units.parse_count, "whole number", ["", "x", "-1", "1.5", "1_0", "²", True, None, 1.0]),
        (units.parse_boolean, "true or false", ["", "maybe", "2", None, 2, 1.0]),
        (units.parse_size, "10MiB", ["", "x", "-1", -1, "1.5MiB", "10XB", "MiB", True, None]),
        (units.parse_duration, "30s", ["", "x", "-1s", -1, "1w", "s", True, None, float("inf"), float("nan")]),
        (units.parse_mode, "0o660", ["", "888", "66", "0o6600", -1, 0o1000, True, None]),
        (units.parse_port, "65535", ["", "x", "-1", "65536", 70000, None]),
        (units.parse_host, "127.0.0.1", ["a b", "[1.2", "-x", "a:b", None, 5, "ä"]),
        (
            units.parse_address,
            "unix:",
            ["", "8000", "127.0.0.1", "::1:80", "a:x", "a:70000", "unix:", "unix:\0", "http://a:80", None],
        ),
        (
            units.parse_address,
            "systemd",
            ["systemd:", "systemd:a:b", "systemd:a b", "systemd:a,b", "systemd:ä", "systemd-x"],
        ),
        (units.parse_trusted_peer, "10.0.0", ["", "x", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.300", None]),
    ],
)
def test_refused(parse: Parse, valid: str, texts: list[object]) -> None:
    """What nobody means is refused, with what would be valid."""
    for text in texts:
        with pytest.raises(ValueError, match=valid):
            parse(text)


@given(st.integers(0, 2**50))
def test_sizes_come_back(size: int) -> None:
    """A size is written so that it is read back."""
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 10**8).map(lambda milliseconds: milliseconds / 1000))
def test_durations_come_back(seconds: float) -> None:
    """A duration is written so that it is read back."""
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:80", "[::1]:80", ":80", "localhost:0", "unix:/x/y", "systemd", "systemd:web"]
)
def test_addresses_come_back(text: str) -> None:
    """An address is written as it was read."""
    assert units.format_address(units.parse_address(text)) == text
