"""The kinds of values that settings take: how each is parsed from text or Python, and written back.

A kind knows no particular setting. Its parser takes one raw value, and raises :class:`ValueError`
with what would be valid.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import units
from .endpoint_limits import format_endpoint_limits, parse_endpoint_limits
from .mounts import format_mounts, parse_mounts


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. *metavar* is its name in ``--help``; *parse* reads what *write* writes."""

    metavar: str
    parse: Callable[[object], Any]
    write: Callable[[Any], str] = str
    repeatable: bool = False
    flag: bool = False


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable() and value.isascii():
        return value.strip()
    raise ValueError("printable ASCII text")


def _path(value: object) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(text, str) and text.strip() and "\0" not in text:
        return text
    raise ValueError("the path of a file")


def _host(value: object) -> str:
    if isinstance(value, str) and not value.strip():
        # An empty shell variable would open every interface. In an address such as ":8000" the
        # empty host is deliberate.
        raise ValueError("a host name or address such as 127.0.0.1, [::1] or localhost ('*' is every interface)")
    return units.parse_host(value)


def _log(value: object) -> str:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("stdout", "stderr", "off"):
        return str(word)
    try:
        return _path(value)
    except ValueError:
        raise ValueError("stdout, stderr, off or the path of a file") from None


def _workers(value: object) -> int | str:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    try:
        count = units.parse_count(value)
    except ValueError:
        count = -1
    if not 0 <= count <= 1000:
        raise ValueError("a whole number up to 1000 such as 4, or auto")
    return count


def _account(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else value
    if isinstance(text, str) and text.strip() and text.strip().isprintable() and len(text.split()) == 1:
        return text.strip()
    raise ValueError("an account name or number of this system, without blanks")


def _umask(value: object) -> int:
    try:
        return units.parse_mode(value)
    except ValueError:
        raise ValueError("three octal digits such as 0o027") from None


def _control_socket(value: object) -> str:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("auto", "off"):
        return str(word)
    try:
        return _path(value)
    except ValueError:
        raise ValueError("auto, off or the path of a socket") from None


def _url_path(value: object) -> str:
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and (text == "off" or re.fullmatch(r"/[A-Za-z0-9/._~-]*", text)):
        return text
    raise ValueError("a path such as /livez, or off")


def _switch(value: object) -> str:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    try:
        return "on" if units.parse_boolean(value) else "off"
    except ValueError:
        raise ValueError("auto, on or off") from None


def _x_accel(value: object) -> tuple[str, str]:
    match = re.fullmatch(r"(/[^=\0]*)=(/[A-Za-z0-9/._~@+-]*)", value.strip()) if isinstance(value, str) else None
    if match:
        folder, url = (path.rstrip("/") or "/" for path in match.groups())
        if all(path == posixpath.normpath(path) and not path.startswith("//") for path in (folder, url)):
            return folder, url
    raise ValueError("a folder and its internal location, such as /srv/files=/internal")


def choice(*allowed: str) -> Kind:
    """Make a kind for one of a few words, in any case."""

    def parse(value: object) -> str:
        text = value.strip().lower() if isinstance(value, str) else value
        if text in allowed:
            return str(text)
        raise ValueError(" or ".join((", ".join(allowed[:-1]), allowed[-1])))

    return Kind("|".join(allowed).upper(), parse)


def at_least(minimum: float, kind: Kind, *, at_most: float = math.inf) -> Kind:
    """Make a kind like *kind* that refuses values below *minimum* or above *at_most*."""

    def parse(value: object) -> Any:
        try:
            parsed = kind.parse(value)
        except units.TooLargeError:
            if at_most == math.inf:
                raise
            parsed = math.inf
        if parsed < minimum:
            raise ValueError(f"at least {kind.write(type(parsed)(minimum))}")
        if parsed > at_most:
            raise ValueError(f"at most {kind.write(kind.parse(at_most))}")
        return parsed

    return Kind(kind.metavar, parse, kind.write)


def at_least_or_zero(minimum: float, kind: Kind) -> Kind:
    """Make a kind like *kind* that refuses values below *minimum*, except 0, which stands for none."""

    def parse(value: object) -> Any:
        parsed = kind.parse(value)
        if parsed != 0 and parsed < minimum:
            raise ValueError(f"0, or at least {kind.write(type(parsed)(minimum))}")
        return parsed

    return Kind(kind.metavar, parse, kind.write)


class ItemError(ValueError):
    """One of several values is wrong: *item*. The text says what would be valid."""

    def __init__(self, item: object, expected: str) -> None:
        super().__init__(expected)
        self.item = item


def several(kind: Kind, *, between: str = r"[,\s]+", distinct: bool = True) -> Kind:
    """Make a kind for a list: text with commas or blanks *between* the items, a Python sequence, or
    a sequence of such texts.

    *distinct*: drop repeated items. Its parser raises ItemError for an item that *kind* refuses.
    """

    def items(value: object) -> Iterator[object]:
        if isinstance(value, str):
            yield from filter(str.strip, re.split(between, value))
        elif isinstance(value, (list, tuple, set, frozenset)):
            for item in value:
                yield from items(item)
        else:
            yield value

    def parse_item(item: object) -> Any:
        try:
            return kind.parse(item)
        except ValueError as error:
            raise ItemError(item, str(error)) from error

    def parse(value: object) -> tuple[Any, ...]:
        parsed = tuple(map(parse_item, items(value)))
        if distinct:
            parsed = tuple(dict.fromkeys(parsed))
        if not parsed:
            raise ValueError("at least one value")
        return parsed

    def write(values: tuple[Any, ...]) -> str:
        return ",".join(kind.write(value) for value in values)

    return Kind(kind.metavar, parse, write, repeatable=True)


COUNT = Kind("NUMBER", units.parse_count)
SIZE = Kind("SIZE", units.parse_size, units.format_size)
DURATION = Kind("DURATION", units.parse_duration, units.format_duration)
AGE = Kind("DURATION", units.parse_age, units.format_duration)
MODE = Kind("MODE", units.parse_mode, units.format_mode)
UMASK = Kind("MODE", _umask, units.format_mode)
WORKERS = Kind("NUMBER|auto", _workers)
ACCOUNT = Kind("NAME", _account)
PORT = Kind("PORT", units.parse_port)
HOST = Kind("HOST", _host, units.format_host)
ADDRESS = Kind("ADDRESS", units.parse_address, units.format_address)
TRUSTED_PEER = Kind("NETWORK", units.parse_trusted_peer)
BOOLEAN = Kind("BOOLEAN", units.parse_boolean, lambda value: "true" if value else "false", flag=True)
PATH = Kind("FILE", _path)
PATHS = several(PATH, between=r",\s*", distinct=False)  # paths may contain blanks, and two certificates may share a key
CONTROL_SOCKET = Kind("PATH|auto|off", _control_socket)
LOG = Kind("FILE|stdout|stderr|off", _log)
SWITCH = Kind("auto|on|off", _switch)
X_ACCEL = Kind("FOLDER=PATH", _x_accel, "=".join)
TEXT = Kind("TEXT", _text)
URL_PATH = Kind("PATH|off", _url_path)
URL_PREFIX = Kind("PATH", units.parse_url_prefix)
ENDPOINT_LIMITS = Kind("JSON", parse_endpoint_limits, format_endpoint_limits)
MOUNTS = Kind("PATH=APP", parse_mounts, format_mounts, repeatable=True)
