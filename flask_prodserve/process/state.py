"""What the plan remembers of a server and its workers, and what it obeys. Immutable: each step makes a new state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    KILLED = "killed"
    """It has been told to end at once."""


class Renewal(Enum):
    """How new code comes in."""

    RELOAD = "reload"
    UPGRADE = "upgrade"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as the plan sees it. Numbers are never used again."""

    number: int
    generation: int
    phase: Phase
    since: float
    """When the phase began."""
    deadline: float | None
    """When it is killed unless it says something before."""
    served: bool = False
    retiring: str = ""
    """Why it has to be replaced."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say. Seconds and bytes; 0 is no limit."""

    boot_timeout: float = 60.0
    worker_timeout: float = 0.0
    graceful_timeout: float = 0.0
    drain_delay: float = 0.0
    max_worker_lifetime: float = 0.0
    max_worker_memory: int = 0
    preload: bool = False
    """New code needs a new supervisor, so a reload is an upgrade."""


@dataclass(frozen=True, slots=True)
class State:
    """All that the plan remembers."""

    wanted: int = 1
    workers: tuple[Worker, ...] = ()
    last_number: int = 0
    generation: int = 1
    """Of workers that are started now."""
    last_generation: int = 1
    settled: int = 0
    """The newest generation that a worker has been ready of."""
    failures: int = 0
    """Workers in a row that died before they were of use."""
    failed_at: float = 0.0
    """When the last of them did."""
    not_before: float = 0.0
    """No worker is started before."""
    served: bool = False
    """Whether any worker has ever answered a request."""
    renewal: Renewal | None = None
    rehearsing: bool = False
    next_renewal: Renewal | None = None
    """Asked for while another was under way, or before any worker was ready."""
    has_once: bool = False
    """Whether the app has something that exactly one worker does."""
    once: int | None = None
    """The number of the worker that does it."""
    exit_code: int | None = None
    """What to exit with once all workers are gone; None while the server does not stop."""

    def of(self, *phases: Phase) -> list[Worker]:
        return [worker for worker in self.workers if worker.phase in phases]
