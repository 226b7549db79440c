"""Parses and formats MOUNTS: other apps beside the main app, and where each is mounted.

A mount's *key* is a path (``/api``), a host (``admin.example.com``) or both
(``admin.example.com/api``). Rule: keys that two readers could understand differently are refused: a
slash at the end, ``//``, ``.`` and ``..``, percent-encoding, a port.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import units
from .endpoint_limits import EndpointLimits

# A name with a dot, or localhost: any other single word is probably a path without its slash.
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?|localhost", re.ASCII)

# List separators, and the quotes and brackets that protect them: a factory's arguments may have
# commas and blanks.
_TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[,\s]+|.""", re.DOTALL)

_EXPECTED = "paths (or hosts) with their apps, such as /api=other:app or /admin=project.wsgi:application"


@dataclass(frozen=True, slots=True)
class Mount:
    """An app and its place: *path* (``""`` for a whole host) on *host* (lower case; ``""`` for
    every host).

    *source* is the import string, or the name of a callable; *application* is the callable, once it
    is loaded.
    """

    host: str
    path: str
    source: str
    application: Callable[..., Iterable[bytes]] | None = None
    endpoint_limits: tuple[tuple[str, EndpointLimits], ...] = ()
    """From a mounted Flask app's own config: limits of its endpoints, *max_body* for all of them in
    bytes, and *static_max_age* of its static files in seconds.
    """
    max_body: int | None = None
    static_max_age: float | None = None

    @property
    def key(self) -> str:
        """The place, as written in MOUNTS."""
        return self.host + self.path

    @property
    def loaded(self) -> Callable[..., Iterable[bytes]]:
        """The callable, which must be loaded."""
        assert self.application is not None, self
        return self.application

    def __str__(self) -> str:
        return f"{self.key}={self.source}"


def parse_mount(key: object, target: object) -> Mount:
    """Parse one mount of *target*, an import string or a WSGI callable. Raises ValueError."""
    if not isinstance(key, str):
        raise ValueError(f"{_EXPECTED}, and not {key!r}")
    host, path = _parse_key(key.strip())
    if callable(target):
        return Mount(host, path, _name_of(target), target)
    if isinstance(target, str) and list(_split(target.strip())) == [target.strip()] and target.isprintable():
        return Mount(host, path, target.strip())
    raise ValueError(f"for {key} an app such as other:app, or a WSGI callable, and not {target!r}")


def parse_mounts(value: object) -> tuple[Mount, ...]:
    """Parse a mapping, a text such as ``/api=other:app,/admin=project.wsgi:application``, or
    several of these. Raises ValueError.
    """
    mounts: dict[str, Mount] = {}
    for key, target in _pairs(value):
        mount = parse_mount(key, target)
        if mount.key in mounts:
            raise ValueError(f"each place once, but {mount.key} is there twice")
        mounts[mount.key] = mount
    return tuple(mounts.values())


def format_mounts(mounts: tuple[Mount, ...]) -> str:
    """Write *mounts* as a list with commas."""
    return ",".join(map(str, mounts))


def _pairs(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pairs(item)
    elif isinstance(value, str):
        for item in _split(value):
            key, equals, source = item.partition("=")
            if not equals:
                raise ValueError(f"{_EXPECTED}, and not {item!r}")
            yield key, source
    else:
        raise ValueError(_EXPECTED)


def _split(text: str) -> Iterator[str]:
    """Split a list at commas and blanks outside quotes and brackets."""
    item, depth = "", 0
    for piece in _TOKEN.findall(text):
        if depth == 0 and not piece.strip(", \t\r\n\f\v"):
            if item:
                yield item
            item = ""
            continue
        item += piece
        depth += (piece in "([{") - (piece in ")]}")
    if item:
        yield item


def _parse_key(key: str) -> tuple[str, str]:
    name, slash, rest = key.partition("/")
    host, path = name.lower(), slash + rest
    if not key or key == "/":
        raise ValueError(f"{_EXPECTED}, and not {key!r}, where the app itself is")
    if host and not _HOST.fullmatch(host):
        hint = "; a path begins with a slash" if re.fullmatch(r"[\w-]+", name) else "; a host is a name without a port"
        raise ValueError(f"{_EXPECTED}, and not {key!r}{hint}")
    if path:
        try:
            units.parse_url_prefix(path)
        except ValueError as error:
            raise ValueError(f"for a path {error}, and not {key!r}") from None
    return host, path


def _name_of(target: Any) -> str:
    """Name a callable as an import string would."""
    named = target if hasattr(target, "__qualname__") else type(target)
    module = getattr(target, "import_name", None) or named.__module__  # a Flask app has import_name
    return f"{module}:{named.__qualname__}"
