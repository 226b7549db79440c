"""Parses and formats sizes, durations, addresses and networks as people write them.

Each ``parse_*`` takes what a person (or ``app.config``) gives and returns a value, or raises
:class:`ValueError` with a text that says what would be valid. Nothing is rounded or clamped. Each
number has an upper bound that its use can hold. Each ``format_*`` writes a value so that the
matching ``parse_*`` reads it back.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_COUNT = 2**31 - 1
"""Whole numbers become a C int: in listen(2), and as numbers of descriptors and threads."""

MAX_SIZE = 2**50
"""1 PiB: more than any memory or disk, and the sum of a few fits into 64 bits, as the system's
sizes and offsets must.
"""

MAX_DURATION = 24 * 86400.0
"""24 days: epoll_wait(2) and poll(2) take milliseconds in a C int, which overflows after 24.8 days.
"""

MAX_AGE = 2.0**31 - 1
"""Longest cache age in seconds. Caches treat larger ones as this (RFC 9111, section 1.2.2)."""
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_PUBLIC = ipaddress.IPv6Network("2000::/3")

_SIZE = re.compile(r"([0-9]+)\s*([a-z]*)", re.IGNORECASE)
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "k": 1024,
    "m": 1024**2,
    "g": 1024**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}

_MAX_DIGITS = 100

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

# RFC 1123 host names, with "_" as Docker and Kubernetes use it; the resolver decides.
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")

_URL_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[0-9A-Za-z._~@:+-]+)+")

# systemd.socket(5), FileDescriptorName=: printable ASCII without ":", here also without blanks and
# commas, which separate list items.
_SYSTEMD_NAME = re.compile(r"[!-+\--9;-~]+")


class TooLargeError(ValueError):
    """The number is larger than its type allows."""


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """A TCP address to listen on. *host* ``""`` is every interface, IPv4 and IPv6; with port 0 the
    system chooses.
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket to listen on."""

    path: str


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """The listening sockets that systemd passes: those called *name* (``FileDescriptorName=``), or
    all if it is ``""``.
    """

    name: str = ""


Address = TCPAddress | UnixAddress | SystemdAddress


def parse_count(value: object) -> int:
    """Parse a whole number up to MAX_COUNT: ``16``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_at_most(MAX_COUNT, value, str(MAX_COUNT)))
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value):
        return int(_at_most(MAX_COUNT, _whole(value.strip()), str(MAX_COUNT)))
    raise ValueError("a whole number such as 16")


def _whole(digits: str) -> int:
    """Convert *digits*. Python refuses thousands of digits, so many digits give a number that is
    too large for any use.
    """
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _at_most(most: float, value: float, written: str) -> float:
    if value > most:
        raise TooLargeError(f"at most {written}")
    return value


def parse_boolean(value: object) -> bool:
    """Parse ``true``/``false``, ``yes``/``no``, ``on``/``off``, ``1``/``0``."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("true or false (also yes, no, on, off, 1, 0)")


def parse_size(value: object) -> int:
    """Parse bytes up to MAX_SIZE: a number, or ``10MiB`` (1024), ``10MB`` (1000), ``32K`` (1024, as
    in nginx and Apache).
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(_at_most(MAX_SIZE, value, format_size(MAX_SIZE)))
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        factor = _SIZE_UNITS.get(match[2].lower())
        if factor is not None:
            return int(_at_most(MAX_SIZE, _whole(match[1]) * factor, format_size(MAX_SIZE)))
    raise ValueError("a size such as 8190, 64KiB or 10MiB")


def format_size(size: int) -> str:
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_duration(value: object) -> float:
    """Parse seconds up to MAX_DURATION: a number, or ``500ms``, ``30s``, ``5m``, ``1.5h``, ``1d``."""
    return _at_most(MAX_DURATION, _seconds(value), f"{MAX_DURATION / 86400:.0f}d")


def parse_age(value: object) -> float:
    """Parse the age of a cached response in seconds, as :func:`parse_duration`, but up to MAX_AGE."""
    return _at_most(MAX_AGE, _seconds(value), format_duration(MAX_AGE))


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(min(value, 10**_MAX_DIGITS))
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        factor = _DURATION_UNITS.get(match[2].lower())
        if factor is not None:
            return float(match[1]) * factor
    raise ValueError("a duration such as 30s, 500ms or 5m")


def format_duration(seconds: float) -> str:
    if 0 < seconds < 1 and (seconds * 1000).is_integer():
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.0f}s" if seconds.is_integer() else f"{seconds!r}s"


def parse_mode(value: object) -> int:
    """Parse permission bits in octal: ``0o660``, ``0660`` or ``660``; from Python the number
    ``0o660``.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"(?:0o|0)?([0-7]{3})", value.strip())):
        return int(match[1], 8)
    raise ValueError("three octal digits such as 0o660")


def format_mode(mode: int) -> str:
    return f"0o{mode:03o}"


def parse_port(value: object) -> int:
    """Parse a port from 0 to 65535; with 0 the system chooses."""
    try:
        port = parse_count(value)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise ValueError("a port from 0 to 65535 (0: the system chooses)")
    return port


def parse_host(value: object) -> str:
    """Parse a host name or an IP address, IPv6 also in brackets; ``*`` or nothing is every
    interface.
    """
    text = value.strip() if isinstance(value, str) else None
    if text in ("", "*"):
        return ""
    if text is not None:
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        if _is_ip_address(bare) or (bare == text and _HOST.fullmatch(text)):
            return bare
    raise ValueError("a host name or address such as 127.0.0.1, [::1] or localhost ('*' is every interface)")


def parse_address(value: object) -> Address:
    """Parse ``127.0.0.1:8000``, ``[::]:80``, ``localhost:8000``, ``:8000`` (every interface),
    ``unix:/run/app.sock``, ``systemd`` or ``systemd:NAME``.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text == "systemd":
        return SystemdAddress()
    if text.startswith("systemd:") and _SYSTEMD_NAME.fullmatch(text, len("systemd:")):
        return SystemdAddress(text.removeprefix("systemd:"))
    if text.startswith("unix:") and len(text) > len("unix:"):
        path = text.removeprefix("unix:")
        if "\0" not in path:
            return UnixAddress(path)
    host, colon, port = text.rpartition(":")
    if colon and (host.count(":") == 0 or host.startswith("[")):
        try:
            return TCPAddress(parse_host(host), parse_port(port))
        except ValueError:
            pass
    raise ValueError(
        "an address such as 127.0.0.1:8000, [::]:80, :8000 (every interface), unix:/run/app.sock or systemd"
    )


def format_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host or "*"


def format_address(address: Address) -> str:
    if isinstance(address, UnixAddress):
        return f"unix:{address.path}"
    if isinstance(address, SystemdAddress):
        return f"systemd:{address.name}" if address.name else "systemd"
    return f"{format_host(address.host) if address.host else ''}:{address.port}"


def parse_url_prefix(value: object) -> str:
    """Parse a path prefix: no segments ``.`` and ``..``, nothing percent-encoded, no slash at the
    end.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and _URL_PREFIX.fullmatch(text):
        return text
    raise ValueError("a path such as /api, of letters, digits and ._~@:+-, without a slash at its end")


def parse_trusted_peer(value: object) -> IPNetwork | str:
    """Parse an address or network (``10.0.0.0/8``), ``unix`` for peers on a Unix socket, ``*`` for
    every peer.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text in ("*", "unix"):
        return text
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits set" in str(error):
            raise ValueError(f"a network without host bits, here {ipaddress.ip_network(text, strict=False)}") from None
    raise ValueError("an address or network such as 10.0.0.1, 10.0.0.0/8 or ::1, 'unix' (Unix socket peers) or '*'")


def is_the_internet(network: IPNetwork) -> bool:
    """Return whether *network* is so large that it stands for every client.

    That is a prefix shorter than /8 in IPv4, also as IPv4-mapped addresses, or shorter than /16 in
    IPv6 with public addresses in it (2000::/3, RFC 4291, section 2.4). No operator's network is
    that large, and private ones do not count: 10.0.0.0/8, fc00::/7.
    """
    if isinstance(network, ipaddress.IPv4Network):
        return network.prefixlen < 8
    if network.overlaps(_MAPPED) and network.prefixlen < 96 + 8:
        return True
    return network.overlaps(_PUBLIC) and network.prefixlen < 16


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
