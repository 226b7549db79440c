"""Decide what the supervisor does next: a pure function of its state, an event, and the time.

Rules:

- Nothing here forks, sends, logs or reads a clock. :func:`decide` returns the next state and the
  actions that lead there; ``supervisor`` executes them. Times are seconds on one monotonic clock.
- The server never reduces ready workers below the number wanted: a worker is drained only if more
  are ready, or if the server stops.
- Every replacement (new code, MAX_REQUESTS, memory, age, stuck requests) goes the same way: one
  extra worker starts, and once it is ready, one outdated worker is drained. The next replacement
  starts when that one has exited.
- A renewal requested before any worker is ready is carried out at the first tick after that.
- Until a generation has had a ready worker, its workers start one at a time: if the first fails, so
  would the others.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from ..errors import ExitCode
from .actions import (
    Action,
    CheckUpgrade,
    Exit,
    Kill,
    Log,
    RenewalBegan,
    RenewalEnded,
    RenewalRejected,
    ReplaceSupervisor,
    Spawn,
    ToWorker,
)
from .events import Event, Exited, FromWorker, Renew, Scale, Stop, StopNow, Tick, Unservable, UpgradeChecked
from .exit_status import describe_exit, exit_code_after_boot
from .messages import Abort, Appoint, Drain, Loaded, Ready, Released, Report, Retire, WorkerMessage
from .state import Renewal, Rules, State, Worker, WorkerPhase

KILL_SECONDS = 3.0
"""How long a worker may take to exit after Abort, SIGTERM or SIGABRT (which writes its stacks),
before it gets SIGKILL.
"""

DRAIN_MARGIN_SECONDS = 5.0
"""How long a draining worker may take beyond GRACEFUL_TIMEOUT, for its hooks and its exit."""

FIRST_PAUSE_SECONDS = 0.25
"""How long no worker is started after one has failed. Doubles with each further failure."""

LONGEST_PAUSE_SECONDS = 15.0

MAX_DOUBLINGS = 10
"""More than it takes to reach the longest pause. The number of failures has no bound."""

STABLE_SECONDS = 5.0
"""A worker that has been ready for this long does not count as failed when it dies."""

MAX_ATTEMPTS = 5
"""How many workers may fail in a row before the server gives up, if it has never served a request.

"""


def decide(state: State, event: Event, now: float, rules: Rules) -> tuple[State, list[Action]]:
    """Return the next state, and the actions to execute in this order."""
    turn = _Turn(state, now, rules)
    turn.take(event)
    turn.watch_deadlines()
    turn.arrange()
    # Drains come last: the supervisor must close an address that a renewal gives up before the last
    # worker stops accepting on it.
    return turn.state, turn.actions + turn.drains


def next_deadline(state: State, rules: Rules) -> float | None:
    """Return the time at which a Tick will have an effect, or None if it will not have any."""
    times = [worker.deadline for worker in state.workers if worker.deadline is not None]
    if rules.max_worker_lifetime:
        ready = state.of(WorkerPhase.READY)
        times += [worker.since + rules.max_worker_lifetime for worker in ready if not worker.retiring]
    if state.exit_code is None and len(state.of(WorkerPhase.BOOTING, WorkerPhase.READY)) < state.wanted:
        times.append(state.not_before)
    return min(times, default=None)


class _Turn:
    """One step: the *state* so far, and the *actions* and *drains* so far."""

    def __init__(self, state: State, now: float, rules: Rules) -> None:
        self.state = state
        self.actions: list[Action] = []
        self.drains: list[Action] = []
        self._now = now
        self._rules = rules

    def _log(self, level: str, text: str, number: int = 0) -> None:
        self.actions.append(Log(level, text, number))

    # Events.

    def take(self, event: Event) -> None:
        """Apply *event*."""
        match event:
            case Tick():
                self._start_pending_renewal()
            case FromWorker(number, message):
                if (worker := self.state.worker(number)) is not None:
                    self._hear(worker, message)
            case Unservable(number, error, exit_code):
                if (worker := self.state.worker(number)) is not None:
                    self._kill(worker, signal.SIGKILL)
                    self._boot_failed(worker, error, exit_code)
            case Exited(number, status, error):
                if (worker := self.state.worker(number)) is not None:
                    self._exited(worker, status, error)
            case Stop(interrupted):
                self._stop(interrupted)
            case StopNow(code):
                self.state = replace(self.state, exit_code=code, renewal=None, next_renewal=None)
                for worker in self.state.workers:
                    self._abort(worker)
            case Renew(renewal):
                self._renew(renewal)
            case UpgradeChecked(error):
                self._upgrade_checked(error)
            case Scale(workers):
                self.state = replace(self.state, wanted=workers)

    def _hear(self, worker: Worker, message: WorkerMessage) -> None:
        match message:
            case Loaded():
                self.state = replace(self.state, has_once=message.has_once)
            case Ready():
                self._ready(worker)
            case Report():
                self._reported(worker, message)
            case Retire(reason):
                self._retire(worker.number, reason)
            case Released():
                self._release(worker)

    def _ready(self, worker: Worker) -> None:
        if worker.phase is WorkerPhase.BOOTING:
            ready = replace(worker, phase=WorkerPhase.READY, since=self._now, deadline=self._report_deadline())
            generation = max(self.state.ready_generation, worker.generation)
            self.state = replace(self.state.updated(ready), ready_generation=generation)
        elif (
            worker.phase is WorkerPhase.KILLED
            and worker.deadline is not None
            and self.state.exit_code == ExitCode.STOPPED
        ):
            # It was already serving when SIGTERM arrived, so the signal does not end it.
            self._drain(worker, self._rules.drain_delay, last=True)

    def _report_deadline(self) -> float | None:
        return self._now + self._rules.worker_timeout if self._rules.worker_timeout else None

    def _reported(self, worker: Worker, report: Report) -> None:
        if report.served and not worker.served:
            worker = replace(worker, served=True)
            self.state = replace(self.state, served=True, failures=0)
        if worker.phase is WorkerPhase.READY:
            worker = replace(worker, deadline=self._report_deadline())
        self.state = self.state.updated(worker)
        limit = self._rules.max_worker_memory
        if not report.healthy:
            self._retire(worker.number, "too many of its requests are stuck (REQUEST_TIMEOUT)")
        elif limit and report.memory > limit:
            self._retire(worker.number, f"it uses {report.memory / 2**20:.0f} MiB of memory (MAX_WORKER_MEMORY)")

    def _retire(self, number: int, reason: str) -> None:
        worker = self.state.worker(number)
        if worker is not None and worker.phase is WorkerPhase.READY and not worker.retiring:
            self.state = self.state.updated(replace(worker, retiring=reason))
            if self.state.exit_code is None:
                self._log("info", f"will be replaced: {reason}", number)

    def _release(self, worker: Worker) -> None:
        if self.state.once_worker == worker.number:
            self.state = replace(self.state, once_worker=None)

    def _exited(self, worker: Worker, status: int, error: str) -> None:
        self._release(worker)
        others = tuple(other for other in self.state.workers if other.number != worker.number)
        self.state = replace(self.state, workers=others)
        if worker.phase is WorkerPhase.DRAINING and status != 0:
            self._log("error", f"{describe_exit(status)} while draining", worker.number)
        if self.state.exit_code is not None or worker.phase in (WorkerPhase.DRAINING, WorkerPhase.KILLED):
            return
        if worker.phase is WorkerPhase.BOOTING:
            exit_code = exit_code_after_boot(status)
            if not (error or self.state.ready_generation) and exit_code == ExitCode.BOOT:
                self._log("critical", f"the first worker {describe_exit(status)} before it could serve")
            self._boot_failed(worker, error or describe_exit(status), exit_code)
            return
        self._log("error", f"{describe_exit(status)} and will be replaced", worker.number)
        if not worker.served and self._now - worker.since < STABLE_SECONDS:
            self._failed()

    def _failed(self) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self.state.failures, MAX_DOUBLINGS), LONGEST_PAUSE_SECONDS)
        self.state = replace(
            self.state, failures=self.state.failures + 1, failed_at=self._now, not_before=self._now + pause
        )
        if not self.state.served and self.state.failures >= MAX_ATTEMPTS:
            self._log("critical", f"giving up: {MAX_ATTEMPTS} workers in a row died before they served a request")
            self._end(ExitCode.BOOT)

    def _boot_failed(self, worker: Worker, error: str, exit_code: int) -> None:
        state = self.state
        if not state.ready_generation:
            self._end(exit_code)
        elif worker.generation > state.ready_generation:
            self.state = replace(state, generation=state.ready_generation)
            self._end_renewal(error)
        else:
            self._log("error", f"failed to start: {error}", worker.number)
            self._failed()

    def _end(self, exit_code: int) -> None:
        self.state = replace(self.state, exit_code=exit_code)
        for worker in self.state.workers:
            self._kill(worker, signal.SIGKILL)

    def _stop(self, interrupted: bool) -> None:
        self.state = replace(self.state, interrupted=self.state.interrupted or interrupted)
        if self.state.exit_code is not None:
            return
        self.state = replace(self.state, exit_code=ExitCode.STOPPED, renewal=None, next_renewal=None)
        for worker in self.state.workers:
            if worker.phase is WorkerPhase.BOOTING:
                self._kill(worker, signal.SIGTERM)
            elif worker.phase is WorkerPhase.READY:
                self._drain(worker, self._rules.drain_delay, last=True)

    def _drain(self, worker: Worker, delay: float = 0.0, *, last: bool = False) -> None:
        deadline = self._now + delay + self._rules.graceful_timeout + DRAIN_MARGIN_SECONDS
        draining = replace(worker, phase=WorkerPhase.DRAINING, since=self._now, deadline=deadline)
        self.state = self.state.updated(draining)
        self.drains.append(ToWorker(worker.number, Drain(delay, last, self.state.interrupted)))

    def _abort(self, worker: Worker) -> None:
        if worker.phase in (WorkerPhase.READY, WorkerPhase.DRAINING):
            self._set_killed(worker, self._now + KILL_SECONDS)
            self.actions.append(ToWorker(worker.number, Abort()))
        else:
            self._kill(worker, signal.SIGKILL)

    def _kill(self, worker: Worker, number: signal.Signals) -> None:
        if worker.phase is WorkerPhase.KILLED and worker.deadline is None:
            return
        self._set_killed(worker, None if number is signal.SIGKILL else self._now + KILL_SECONDS)
        self.actions.append(Kill(worker.number, number))

    def _set_killed(self, worker: Worker, deadline: float | None) -> None:
        killed = replace(worker, phase=WorkerPhase.KILLED, since=self._now, deadline=deadline)
        self.state = self.state.updated(killed)

    # Renewals.

    def _renew(self, renewal: Renewal) -> None:
        state = self.state
        if self._rules.preload:
            renewal = Renewal.UPGRADE
        if state.exit_code is not None:
            self.actions.append(RenewalRejected("the server is stopping"))
        elif state.renewal is not None or not state.ready_generation:
            if not state.ready_generation and state.next_renewal is None:
                self._log("info", f"{renewal.value} requested during startup; it will begin once the server is ready")
            self.state = replace(state, next_renewal=renewal)
        else:
            self.actions.append(RenewalBegan(renewal))
            self.state = replace(state, renewal=renewal)
            if renewal is Renewal.UPGRADE:
                self.state = replace(self.state, checking_upgrade=True)
                self.actions.append(CheckUpgrade())
            else:
                self._begin_generation()

    def _start_pending_renewal(self) -> None:
        following = self.state.next_renewal
        if following is not None and self.state.ready_generation and self.state.renewal is None:
            self.state = replace(self.state, next_renewal=None)
            self._renew(following)

    def _begin_generation(self) -> None:
        generation = self.state.last_generation + 1
        self.state = replace(
            self.state, generation=generation, last_generation=generation, failures=0, not_before=self._now
        )

    def _upgrade_checked(self, error: str) -> None:
        if not self.state.checking_upgrade or self.state.exit_code is not None:
            return
        if error:
            self.state = replace(self.state, checking_upgrade=False)
            self._end_renewal(error)
        else:
            self.actions.append(ReplaceSupervisor())

    def _end_renewal(self, error: str) -> None:
        following = self.state.next_renewal
        self.state = replace(self.state, renewal=None, next_renewal=None)
        self.actions.append(RenewalEnded(error))
        if following is not None:
            self._renew(following)

    # Time.

    def watch_deadlines(self) -> None:
        """Kill or retire the workers that are too late or too old."""
        for worker in self.state.workers:
            if worker.phase is WorkerPhase.READY:
                self._watch_age(worker)
            if worker.deadline is None or self._now < worker.deadline:
                continue
            if worker.phase is WorkerPhase.KILLED:
                self._kill(worker, signal.SIGKILL)
                continue
            self._log("critical", f"{self._lateness(worker)}; writing its stacks and killing it", worker.number)
            self._kill(worker, signal.SIGABRT)
            if worker.phase is WorkerPhase.BOOTING:
                self._boot_timed_out(worker)

    def _boot_timed_out(self, worker: Worker) -> None:
        if not self.state.ready_generation:
            # Not _end(): it is still writing its stacks.
            self.state = replace(self.state, exit_code=ExitCode.BOOT)
        else:
            error = f"it took longer than BOOT_TIMEOUT ({self._rules.boot_timeout:g}s) to start"
            self._boot_failed(worker, error, ExitCode.BOOT)

    def _watch_age(self, worker: Worker) -> None:
        age = self._now - worker.since
        if self.state.failures and worker.since >= self.state.failed_at and age >= STABLE_SECONDS:
            self.state = replace(self.state, failures=0)
        if self._rules.max_worker_lifetime and age >= self._rules.max_worker_lifetime:
            self._retire(worker.number, f"it is {age:.0f}s old (MAX_WORKER_LIFETIME)")

    def _lateness(self, worker: Worker) -> str:
        match worker.phase:
            case WorkerPhase.BOOTING:
                return f"did not start within BOOT_TIMEOUT ({self._rules.boot_timeout:g}s)"
            case WorkerPhase.DRAINING:
                return f"did not exit within GRACEFUL_TIMEOUT ({self._rules.graceful_timeout:g}s)"
            case _:
                return f"did not report within WORKER_TIMEOUT ({self._rules.worker_timeout:g}s)"

    # Numbers.

    def arrange(self) -> None:
        """Start, drain and appoint workers so that the state comes nearer to what is wanted."""
        if self.state.exit_code is not None:
            if not self.state.workers:
                self.actions.append(Exit(self.state.exit_code))
            return
        for worker in self.state.excess():
            self._drain(worker)
        self._spawn_missing()
        self._finish_renewal()
        self._appoint()

    def _spawn_missing(self) -> None:
        if self._now < self.state.not_before:
            return
        booting = len(self.state.of(WorkerPhase.BOOTING))
        missing = self.state.wanted - len(self.state.of(WorkerPhase.READY)) - booting
        leaving = self.state.of(WorkerPhase.DRAINING, WorkerPhase.KILLED)
        if missing <= 0 and not booting and self.state.outdated() and not leaving:
            missing = 1
        if self.state.ready_generation < self.state.generation or self.state.failures:
            missing = min(missing, 1 - booting)
        for _ in range(missing):
            number = self.state.last_number + 1
            deadline = self._now + self._rules.boot_timeout
            worker = Worker(number, self.state.generation, WorkerPhase.BOOTING, self._now, deadline)
            self.state = replace(self.state, last_number=number, workers=(*self.state.workers, worker))
            self.actions.append(Spawn(number, self.state.generation))

    def _finish_renewal(self) -> None:
        state = self.state
        if state.renewal is None or state.checking_upgrade or state.ready_generation < state.generation:
            return
        ready = state.of(WorkerPhase.READY)
        if len(ready) >= state.wanted and all(worker.generation == state.generation for worker in ready):
            self._end_renewal("")

    def _appoint(self) -> None:
        if not self.state.has_once or self.state.once_worker is not None:
            return
        outdated = self.state.outdated()
        ready = sorted(self.state.of(WorkerPhase.READY), key=lambda worker: (worker in outdated, worker.number))
        if ready:
            self.state = replace(self.state, once_worker=ready[0].number)
            self.actions.append(ToWorker(ready[0].number, Appoint()))
