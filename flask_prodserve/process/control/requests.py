"""The requests to a running server: frozen dataclasses, one line of JSON each.

A request is an object with the lower-case name of its class in ``command``, and its fields. Unknown
fields are refused: a client that misspells ``now`` does not want to wait.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """Describe the server and its workers."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Bring in new code. The answer follows once that has succeeded or failed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop as on SIGTERM; with *now*, without waiting for requests."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Set the number of workers; or, if *workers* is None, change it by *change*."""

    workers: int | None = None
    change: int = 0


@dataclass(frozen=True, slots=True)
class Stacks:
    """Return the stacks of all threads of all workers."""


Request = Status | Reload | Stop | Scale | Stacks

_COMMANDS: MappingProxyType[str, type[Any]] = MappingProxyType(
    {kind.__name__.lower(): kind for kind in (Status, Reload, Stop, Scale, Stacks)}
)
_FIELDS: dict[str, dict[str, type]] = {"stop": {"now": bool}, "scale": {"workers": int, "change": int}}
_TAKES = {
    "stop": 'nothing else but "now" (true or false)',
    "scale": 'either "workers" (a whole number) or "change" (how many more, or fewer, such as -1)',
}
_SHOWN = 40
"""How many characters of an unknown command an error repeats."""


def encode(request: Request) -> bytes:
    """Encode *request* as one line."""
    fields: dict[str, object] = {}
    match request:
        case Stop(now=True):
            fields = {"now": True}
        case Scale(workers=None, change=change):
            fields = {"change": change}
        case Scale(workers=workers):
            fields = {"workers": workers}
    return json.dumps({"command": type(request).__name__.lower(), **fields}).encode("ascii") + b"\n"


def decode(line: bytes) -> Request:
    """Decode the request in *line*. Raises ValueError, whose text says what would be valid."""
    try:
        read = json.loads(line.decode())
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict) or not isinstance(read.get("command"), str):
        raise ValueError('A request is an object of JSON on a line of its own, such as {"command": "status"}.')
    name = read.pop("command")
    if name not in _COMMANDS:
        *others, last = _COMMANDS
        raise ValueError(f"{json.dumps(name[:_SHOWN])} is not a command. There are {', '.join(others)} and {last}.")
    fields = _FIELDS.get(name, {})
    # An exact comparison of types, because a bool is an int too.
    sound = all(type(value) is fields.get(field) for field, value in read.items())
    if not sound or (name == "scale" and len(read) != 1):
        raise ValueError(f"{name} takes {_TAKES.get(name, 'nothing else')}.")
    request: Request = _COMMANDS[name](**read)
    return request
