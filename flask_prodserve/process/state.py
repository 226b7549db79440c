"""What the plan remembers of the server and its workers, and the rules it follows.

Immutable: each step makes a new state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class WorkerPhase(Enum):
    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    KILLED = "killed"
    """It was told to exit at once, or killed, and has not been reaped yet."""


class Renewal(Enum):
    """How new code comes in: in new workers, or in a new supervisor and its workers."""

    RELOAD = "reload"
    UPGRADE = "upgrade"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as the plan sees it. Numbers are never reused."""

    number: int
    generation: int
    phase: WorkerPhase
    since: float
    """When the phase began."""
    deadline: float | None
    """When the worker is killed unless something happens before."""
    served: bool = False
    retiring: str = ""
    """Why it must be replaced; ``""`` if it need not be."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the plan follows. Seconds and bytes; 0 means no limit."""

    boot_timeout: float = 60.0
    worker_timeout: float = 0.0
    graceful_timeout: float = 0.0
    drain_delay: float = 0.0
    max_worker_lifetime: float = 0.0
    max_worker_memory: int = 0
    preload: bool = False
    """The supervisor has loaded the app, so new code needs a new supervisor and a reload is an
    upgrade.
    """


@dataclass(frozen=True, slots=True)
class State:
    """All that the plan remembers."""

    wanted: int = 1
    workers: tuple[Worker, ...] = ()
    last_number: int = 0
    generation: int = 1
    """The generation of workers that are started now."""
    last_generation: int = 1
    ready_generation: int = 0
    """The newest generation that has had a ready worker; 0 while the server starts."""
    failures: int = 0
    """Workers in a row that died before they were of use."""
    failed_at: float = 0.0
    """When the last of them died."""
    not_before: float = 0.0
    """No worker is started before this time."""
    served: bool = False
    """Whether any worker has ever answered a request."""
    renewal: Renewal | None = None
    """The renewal in progress."""
    checking_upgrade: bool = False
    next_renewal: Renewal | None = None
    """A renewal requested during another one, or while the server started."""
    has_once: bool = False
    """Whether the app has ``once`` functions, which run in exactly one worker."""
    once_worker: int | None = None
    """The number of that worker."""
    interrupted: bool = False
    """Whether a stop was requested with CTRL+C."""
    exit_code: int | None = None
    """What to exit with once all workers are gone; None unless the server is stopping."""

    def of(self, *phases: WorkerPhase) -> list[Worker]:
        """Return the workers in *phases*."""
        return [worker for worker in self.workers if worker.phase in phases]

    def worker(self, number: int) -> Worker | None:
        return next((worker for worker in self.workers if worker.number == number), None)

    def updated(self, worker: Worker) -> State:
        """Return a state in which *worker* replaces the one of the same number."""
        workers = tuple(worker if other.number == worker.number else other for other in self.workers)
        return replace(self, workers=workers)

    def outdated(self) -> list[Worker]:
        """Return the ready workers that must be replaced, the most urgent first."""
        outdated = [
            worker for worker in self.of(WorkerPhase.READY) if worker.retiring or worker.generation < self.generation
        ]
        return sorted(outdated, key=lambda worker: (not worker.retiring, worker.generation, worker.number))

    def excess(self) -> list[Worker]:
        """Return the surplus of ready workers: outdated ones first, then the newest."""
        ready = self.of(WorkerPhase.READY)
        outdated = self.outdated()
        newest_first = sorted((worker for worker in ready if worker not in outdated), key=lambda one: -one.number)
        return [*outdated, *newest_first][: max(0, len(ready) - self.wanted)]
