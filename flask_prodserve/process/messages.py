"""Messages between the supervisor and its workers: frozen dataclasses, one line of JSON each.

JSON, because a worker may have fewer privileges than its supervisor: reading a message must not be
able to run code. Names and fields are a wire format: after an upgrade the supervisor talks to
workers of the previous release.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, get_args

from ..observe.events import Drained

# From a worker.


@dataclass(frozen=True, slots=True)
class Loaded:
    """The worker has loaded the app.

    *values* and *origins* are the settings in force, as text; *values* omits those that are unset.
    """

    app_name: str
    import_path: str
    values: dict[str, str]
    origins: dict[str, str]
    has_once: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot serve and exits.

    *why* is the complete error, for the log and for the caller of a reload.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker accepts connections."""


@dataclass(frozen=True, slots=True)
class Report:
    """The worker is alive; sent every half second.

    *memory* is resident memory in bytes, the rest as in ``observe.events.Activity``.
    """

    served: int
    connections: int
    busy: int
    queued: int
    stuck: int
    healthy: bool
    memory: int


@dataclass(frozen=True, slots=True)
class Retire:
    """The worker asks to be replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """The worker has stopped its ``once`` functions; another worker may start them."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """The stacks of the worker's threads, in answer to SendStacks."""

    text: str


# From the supervisor.


@dataclass(frozen=True, slots=True)
class Serve:
    """Start serving.

    Carries one listener descriptor per address in *addresses*, and last that of the shared load
    table, in which *slot* is the worker's own entry.
    """

    addresses: list[str]
    slot: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Report not ready now, stop accepting after *delay* seconds, finish running requests, and
    exit.

    *last*: no other process keeps listening. *interrupted*: the stop was requested with CTRL+C.
    """

    delay: float = 0.0
    last: bool = False
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """Exit now and cut running requests."""


@dataclass(frozen=True, slots=True)
class Appoint:
    """Run the ``once`` functions, which run in exactly one worker."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Reopen the log files."""


@dataclass(frozen=True, slots=True)
class SendStacks:
    """Send the stacks of all threads."""


WorkerMessage = Loaded | Failed | Ready | Report | Retire | Released | Stacks | Drained
SupervisorMessage = Serve | Drain | Abort | Appoint | Reopen | SendStacks

_KINDS: MappingProxyType[str, type[Any]] = MappingProxyType(
    {kind.__name__: kind for kind in (*get_args(WorkerMessage), *get_args(SupervisorMessage))}
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "dict[str, str]": dict,
    "list[str]": list,
}


def encode(message: WorkerMessage | SupervisorMessage) -> bytes:
    """Encode *message* as one line."""
    return json.dumps({"message": type(message).__name__, **asdict(message)}).encode("ascii") + b"\n"


def decode(line: bytes) -> Any:
    """Decode the message in *line*. Raises ValueError if it is not exactly a known message."""
    read = json.loads(line)
    kind = _KINDS.get(str(read.pop("message", ""))) if isinstance(read, dict) else None
    if kind is None:
        raise ValueError("not a message")
    expected = {field.name: _TYPES[str(field.type)] for field in fields(kind)}
    if read.keys() != expected.keys() or not all(isinstance(read[name], of) for name, of in expected.items()):
        raise ValueError(f"not the fields of a {kind.__name__}")
    texts = [*read.get("values", {}).items(), *read.get("origins", {}).items(), read.get("addresses", [])]
    if not all(isinstance(text, str) for group in texts for text in group):
        raise ValueError(f"not the texts of a {kind.__name__}")
    return kind(**read)
