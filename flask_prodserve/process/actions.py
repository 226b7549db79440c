"""What the plan can want to have done."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from .state import Renewal


@dataclass(frozen=True, slots=True)
class Spawn:
    number: int
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell a worker to be not ready now, to stop accepting after *delay*, and to end. *last*: nobody will listen after that."""

    number: int
    delay: float = 0.0
    last: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """Tell a worker to end now, whatever is running."""

    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGABRT has a worker write the stacks of its threads before it ends."""

    number: int
    signal: signal.Signals


@dataclass(frozen=True, slots=True)
class Appoint:
    """Have a worker do what exactly one does."""

    number: int


@dataclass(frozen=True, slots=True)
class Rehearse:
    """See whether a new supervisor would start."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Become the new supervisor."""


@dataclass(frozen=True, slots=True)
class Renewing:
    """A renewal has begun."""

    renewal: Renewal


@dataclass(frozen=True, slots=True)
class Renewed:
    """A renewal is over; *why* it failed, ``""`` if it did not."""

    why: str


@dataclass(frozen=True, slots=True)
class Declined:
    """A renewal will not even begin; *why*."""

    why: str


@dataclass(frozen=True, slots=True)
class Say:
    """A message about a worker (0: none) for the log. *level* is one of ``logging``'s names."""

    level: str
    text: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    code: int


Action = Spawn | Drain | Abort | Kill | Appoint | Rehearse | Replace | Renewing | Renewed | Declined | Say | Exit
