"""What the plan reacts to: a message from a worker, or something that the supervisor itself has
seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from .messages import WorkerMessage
from .state import Renewal


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class FromWorker:
    """Worker *number* has sent *message*."""

    number: int
    message: WorkerMessage


@dataclass(frozen=True, slots=True)
class Unservable:
    """The supervisor cannot open what worker *number* has loaded.

    *error* says why; *exit_code* stands for it.
    """

    number: int
    error: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker has exited.

    *status* is its exit code or the negated signal that killed it; *error* is what it last
    reported.
    """

    number: int
    status: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop gracefully: SIGTERM, or SIGINT (*interrupted*)."""

    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class StopNow:
    """Stop at once: SIGQUIT, or a second SIGINT."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Bring in new code: SIGHUP, SIGUSR2."""

    renewal: Renewal


@dataclass(frozen=True, slots=True)
class UpgradeChecked:
    """The preflight check of an upgrade has ended, or replacing the supervisor has failed.

    *error* is ``""`` after a success.
    """

    error: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Change the number of workers."""

    workers: int


Event = Tick | FromWorker | Unservable | Exited | Stop | StopNow | Renew | UpgradeChecked | Scale
