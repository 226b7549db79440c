"""What can be asked of a running server: frozen dataclasses, a line of JSON each.

A request is an object with the name of its class in ``command``, and its fields. Nothing unknown is let pass: who misspells ``now`` does
not want to wait.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """Say what the server and its workers do."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Bring new code in. The answer comes when that has worked or failed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop as on SIGTERM; *now*: without waiting for anything."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Have so many workers; or, where *workers* is None, so many more or (negative) fewer."""

    workers: int | None = None
    change: int = 0


@dataclass(frozen=True, slots=True)
class Stacks:
    """Say where every thread of every worker is."""


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
"""Of what somebody sent, so many characters are sent back."""


def encode(request: Request) -> bytes:
    """*request* as a line."""
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
    """The request that *line* is. Raises ValueError whose text says what would be one."""
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
    # An exact comparison of types, since true is an int, too.
    sound = all(type(value) is fields.get(field) for field, value in read.items())
    if not sound or (name == "scale" and len(read) != 1):
        raise ValueError(f"{name} takes {_TAKES.get(name, 'nothing else')}.")
    request: Request = _COMMANDS[name](**read)
    return request
