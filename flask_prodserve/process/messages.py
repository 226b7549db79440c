"""What a supervisor and its workers say to one another: frozen dataclasses, a line of JSON each.

JSON, since a worker may have fewer privileges than its supervisor: reading a message must not be able to run anything. What is no
message raises ValueError.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from ..observe.events import Drained

# From the worker.


@dataclass(frozen=True, slots=True)
class Loaded:
    """The app is there. *values* and *origins* are the settings in force, as people write them; unset ones are left out of *values*."""

    app_name: str
    import_path: str
    values: dict[str, str]
    origins: dict[str, str]
    has_once: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot serve, and ends: *why*, with all that is wrong. For the log, and for whoever asked for a reload."""

    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """It accepts connections."""


@dataclass(frozen=True, slots=True)
class Report:
    """A sign of life, every half second. *memory* is resident memory in bytes; for the others see ``observe.events.Activity``."""

    served: int
    connections: int
    busy: int
    queued: int
    stuck: int
    healthy: bool
    memory: int


@dataclass(frozen=True, slots=True)
class Retire:
    """It asks to be replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """It has stopped doing what exactly one worker does."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """Where its threads are, in answer to SendStacks."""

    text: str


# From the supervisor.


@dataclass(frozen=True, slots=True)
class Serve:
    """Begin. With it come the descriptors of a listener for each of *addresses*, and of the memory in which the loads are, where *slot*
    is its own.
    """

    addresses: list[str]
    slot: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Be not ready now, stop accepting after *delay* seconds, finish what is running, and end. *last*: nobody else goes on listening;
    *interrupted*: that is a stop by CTRL+C.
    """

    delay: float
    last: bool
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Abort:
    """End now; what is running is cut."""


@dataclass(frozen=True, slots=True)
class Appoint:
    """Do what exactly one worker does."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the log files again."""


@dataclass(frozen=True, slots=True)
class SendStacks:
    """Say where the threads are."""


FromWorker = Loaded | Failed | Ready | Report | Retire | Released | Stacks | Drained
FromSupervisor = Serve | Drain | Abort | Appoint | Reopen | SendStacks

_KINDS: MappingProxyType[str, type[Any]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            Loaded,
            Failed,
            Ready,
            Report,
            Retire,
            Released,
            Stacks,
            Drained,
            Serve,
            Drain,
            Abort,
            Appoint,
            Reopen,
            SendStacks,
        )
    }
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "dict[str, str]": dict,
    "list[str]": list,
}


def encode(message: FromWorker | FromSupervisor) -> bytes:
    """*message* as a line."""
    return json.dumps({"message": type(message).__name__, **asdict(message)}).encode("ascii") + b"\n"


def decode(line: bytes) -> Any:
    """The message that *line* is. Raises ValueError where it is none."""
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
