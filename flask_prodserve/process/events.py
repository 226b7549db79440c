"""What may happen to a server, as the plan is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from .state import Renewal


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker has loaded the app."""

    number: int
    has_once: bool


@dataclass(frozen=True, slots=True)
class Unservable:
    """What a worker has loaded cannot be served: *why*, and the exit code that stands for it."""

    number: int
    why: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Ready:
    number: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A sign of life."""

    number: int
    served: int
    healthy: bool
    memory: int


@dataclass(frozen=True, slots=True)
class Retiring:
    """A worker asks to be replaced."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """A worker has stopped doing what exactly one does."""

    number: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker has ended. *status* is its exit code, or the negative number of the signal that killed it; *why* its last words."""

    number: int
    status: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM, SIGINT."""


@dataclass(frozen=True, slots=True)
class StopNow:
    exit_code: int


@dataclass(frozen=True, slots=True)
class Renew:
    """SIGHUP, SIGUSR2."""

    renewal: Renewal


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A trial start of the new supervisor is over, or its real one has failed; *why* it failed, ``""`` if it did not."""

    why: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Another number of workers is wanted."""

    workers: int


Event = (
    Tick
    | Loaded
    | Unservable
    | Ready
    | Reported
    | Retiring
    | Released
    | Exited
    | Stop
    | StopNow
    | Renew
    | Rehearsed
    | Scale
)
