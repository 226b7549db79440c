"""What the plan decides: a message to a worker, or something that the supervisor itself does."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from .messages import SupervisorMessage
from .state import Renewal


@dataclass(frozen=True, slots=True)
class ToWorker:
    """Send *message* to worker *number*."""

    number: int
    message: SupervisorMessage


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker."""

    number: int
    generation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal to a worker.

    On SIGABRT a worker writes the stacks of its threads before it dies.
    """

    number: int
    signal: signal.Signals


@dataclass(frozen=True, slots=True)
class CheckUpgrade:
    """Check whether a new supervisor would start."""


@dataclass(frozen=True, slots=True)
class ReplaceSupervisor:
    """Execute the new supervisor in this process."""


@dataclass(frozen=True, slots=True)
class RenewalBegan:
    renewal: Renewal


@dataclass(frozen=True, slots=True)
class RenewalEnded:
    """*error* is ``""`` after a success."""

    error: str


@dataclass(frozen=True, slots=True)
class RenewalRejected:
    """The renewal does not begin at all."""

    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """Log *text*, about worker *number* if that is not 0.

    *level* is the name of a level of ``logging``.
    """

    level: str
    text: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    code: int


Action = (
    ToWorker
    | Spawn
    | Kill
    | CheckUpgrade
    | ReplaceSupervisor
    | RenewalBegan
    | RenewalEnded
    | RenewalRejected
    | Log
    | Exit
)
