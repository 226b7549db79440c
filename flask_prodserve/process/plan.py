"""What the supervisor does next: a pure function of its state, what has happened, and the time.

Rules:

- Nothing here forks, sends, logs or reads a clock. :func:`decide` returns the next state and the actions that lead there; ``supervisor``
  carries them out. Times are seconds of one monotonic clock.
- Ready workers are never fewer than wanted because of us: a worker is drained only when more are ready than wanted, or the server stops.
- Whatever replaces a worker (new code, MAX_REQUESTS, memory, age, stuck requests) goes the same way: one worker more is started, and once
  it is ready, one that has to go is drained. The next comes when that one is gone.
- A renewal that is asked for before any worker is ready is carried out with the first tick after that.
- Of a generation that nobody has been ready of, one worker is started at a time: if it fails, the others would, too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace

from ..errors import ExitCode
from .actions import (
    Abort,
    Action,
    Appoint,
    Declined,
    Drain,
    Exit,
    Kill,
    Rehearse,
    Renewed,
    Renewing,
    Replace,
    Say,
    Spawn,
)
from .events import (
    Event,
    Exited,
    Loaded,
    Ready,
    Rehearsed,
    Released,
    Renew,
    Reported,
    Retiring,
    Scale,
    Stop,
    StopNow,
    Tick,
    Unservable,
)
from .state import Phase, Renewal, Rules, State, Worker

KILL_SECONDS = 3.0
"""How long a worker that has been told to end at once, or to write its stacks and end, may take to do so."""

DRAIN_MARGIN_SECONDS = 5.0
"""How much longer than GRACEFUL_TIMEOUT a draining worker may take: for its hooks, and to end."""

FIRST_PAUSE_SECONDS = 0.25
"""How long no worker is started after one has failed; twice as long for each that fails after it."""

LONGEST_PAUSE_SECONDS = 15.0

MOST_DOUBLINGS = 10
"""More than it takes to get to the longest pause; the number of failures has no bound."""

SOUND_SECONDS = 5.0
"""A worker that has been ready for so long does not count as failed when it dies."""

ATTEMPTS = 5
"""Workers that may fail in a row before the server gives up, where it has never served a request."""


def decide(state: State, event: Event, now: float, rules: Rules) -> tuple[State, list[Action]]:
    """The next state, and what to do, in this order."""
    turn = _Turn(state, now, rules)
    turn.take(event)
    turn.watch()
    turn.arrange()
    # Last: an address that a renewal gives up is closed by the supervisor before the last worker stops accepting there.
    return turn.state, turn.actions + turn.drains


def next_look(state: State, rules: Rules) -> float | None:
    """When time alone will bring something about; None if it will not."""
    times = [worker.deadline for worker in state.workers if worker.deadline is not None]
    if rules.max_worker_lifetime:
        times += [worker.since + rules.max_worker_lifetime for worker in state.of(Phase.READY) if not worker.retiring]
    if state.exit_code is None and len(state.of(Phase.BOOTING, Phase.READY)) < state.wanted:
        times.append(state.not_before)
    return min(times, default=None)


class _Turn:
    """One step: *state* as far as it has come, and the *actions* and *drains* so far."""

    def __init__(self, state: State, now: float, rules: Rules) -> None:
        self.state = state
        self.actions: list[Action] = []
        self.drains: list[Drain] = []
        self._now = now
        self._rules = rules

    # The state.

    def _worker(self, number: int) -> Worker | None:
        return next((worker for worker in self.state.workers if worker.number == number), None)

    def _set(self, worker: Worker) -> None:
        workers = tuple(worker if other.number == worker.number else other for other in self.state.workers)
        self.state = replace(self.state, workers=workers)

    def _say(self, level: str, text: str, number: int = 0) -> None:
        self.actions.append(Say(level, text, number))

    # Events.

    def take(self, event: Event) -> None:
        match event:
            case Tick():
                self._renew_as_asked_early()
            case Loaded(_, has_once):
                self.state = replace(self.state, has_once=has_once)
            case Unservable(number, why, exit_code):
                self._unservable(number, why, exit_code)
            case Ready(number):
                self._ready(number)
            case Reported():
                self._reported(event)
            case Retiring(number, reason):
                self._retire(number, reason)
            case Released(number):
                self._release(number)
            case Exited(number, status, why):
                self._exited(number, status, why)
            case Stop():
                self._stop()
            case StopNow(code):
                self.state = replace(self.state, exit_code=code, renewal=None, next_renewal=None)
                for worker in self.state.workers:
                    self._abort(worker)
            case Renew(renewal):
                self._renew(renewal)
            case Rehearsed(why):
                self._rehearsed(why)
            case Scale(workers):
                self.state = replace(self.state, wanted=workers)

    def _unservable(self, number: int, why: str, exit_code: int) -> None:
        worker = self._worker(number)
        if worker is not None:
            self._kill(worker, signal.SIGKILL)
            self._boot_failed(worker, why, exit_code)

    def _ready(self, number: int) -> None:
        worker = self._worker(number)
        if worker is None:
            return
        if worker.phase is Phase.BOOTING:
            self._set(replace(worker, phase=Phase.READY, since=self._now, deadline=self._report_deadline()))
            self.state = replace(self.state, settled=max(self.state.settled, worker.generation))
        elif worker.phase is Phase.KILLED and worker.deadline is not None and self.state.exit_code == ExitCode.STOPPED:
            # It had begun to serve when it was told to end, and that signal does not end it any more.
            self._drain(worker, self._rules.drain_delay, last=True)

    def _report_deadline(self) -> float | None:
        return self._now + self._rules.worker_timeout if self._rules.worker_timeout else None

    def _reported(self, report: Reported) -> None:
        worker = self._worker(report.number)
        if worker is None:
            return
        if report.served and not worker.served:
            worker = replace(worker, served=True)
            self.state = replace(self.state, served=True, failures=0)
        if worker.phase is Phase.READY:
            worker = replace(worker, deadline=self._report_deadline())
        self._set(worker)
        limit = self._rules.max_worker_memory
        if not report.healthy:
            self._retire(report.number, "too many of its requests are stuck (REQUEST_TIMEOUT)")
        elif limit and report.memory > limit:
            self._retire(report.number, f"it takes {report.memory / 2**20:.0f} MiB of memory (MAX_WORKER_MEMORY)")

    def _retire(self, number: int, reason: str) -> None:
        worker = self._worker(number)
        if worker is not None and worker.phase is Phase.READY and not worker.retiring:
            self._set(replace(worker, retiring=reason))
            if self.state.exit_code is None:
                self._say("info", f"will be replaced: {reason}", number)

    def _release(self, number: int) -> None:
        if self.state.once == number:
            self.state = replace(self.state, once=None)

    def _exited(self, number: int, status: int, why: str) -> None:
        worker = self._worker(number)
        if worker is None:
            return
        self._release(number)
        self.state = replace(self.state, workers=tuple(other for other in self.state.workers if other.number != number))
        if worker.phase is Phase.DRAINING and status != 0:
            self._say("error", f"{_ending(status)} while it was draining", number)
        if self.state.exit_code is not None or worker.phase in (Phase.DRAINING, Phase.KILLED):
            return
        if worker.phase is Phase.BOOTING:
            self._boot_failed(worker, why or _ending(status), _boot_exit_code(status))
            return
        self._say("error", f"{_ending(status)}; another takes its place", number)
        if not worker.served and self._now - worker.since < SOUND_SECONDS:
            self._failed()

    def _failed(self) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self.state.failures, MOST_DOUBLINGS), LONGEST_PAUSE_SECONDS)
        self.state = replace(
            self.state, failures=self.state.failures + 1, failed_at=self._now, not_before=self._now + pause
        )
        if not self.state.served and self.state.failures >= ATTEMPTS:
            self._say("critical", f"{ATTEMPTS} workers in a row have died before they served a request: giving up")
            self._end(ExitCode.BOOT)

    def _boot_failed(self, worker: Worker, why: str, exit_code: int) -> None:
        state = self.state
        if not state.settled:
            self._end(exit_code)
        elif worker.generation > state.settled:
            self.state = replace(state, generation=state.settled)
            self._renewal_over(why)
        else:
            self._say("error", f"did not start: {why}", worker.number)
            self._failed()

    def _end(self, exit_code: int) -> None:
        self.state = replace(self.state, exit_code=exit_code)
        for worker in self.state.workers:
            self._kill(worker, signal.SIGKILL)

    def _stop(self) -> None:
        if self.state.exit_code is not None:
            return
        self.state = replace(self.state, exit_code=ExitCode.STOPPED, renewal=None, next_renewal=None)
        for worker in self.state.workers:
            if worker.phase is Phase.BOOTING:
                self._kill(worker, signal.SIGTERM)
            elif worker.phase is Phase.READY:
                self._drain(worker, self._rules.drain_delay, last=True)

    def _drain(self, worker: Worker, delay: float = 0.0, *, last: bool = False) -> None:
        deadline = self._now + delay + self._rules.graceful_timeout + DRAIN_MARGIN_SECONDS
        self._set(replace(worker, phase=Phase.DRAINING, since=self._now, deadline=deadline))
        self.drains.append(Drain(worker.number, delay, last))

    def _abort(self, worker: Worker) -> None:
        if worker.phase in (Phase.READY, Phase.DRAINING):
            self._set(replace(worker, phase=Phase.KILLED, since=self._now, deadline=self._now + KILL_SECONDS))
            self.actions.append(Abort(worker.number))
        else:
            self._kill(worker, signal.SIGKILL)

    def _kill(self, worker: Worker, number: signal.Signals) -> None:
        if worker.phase is Phase.KILLED and worker.deadline is None:
            return
        deadline = None if number is signal.SIGKILL else self._now + KILL_SECONDS
        self._set(replace(worker, phase=Phase.KILLED, since=self._now, deadline=deadline))
        self.actions.append(Kill(worker.number, number))

    # New code.

    def _renew(self, renewal: Renewal) -> None:
        state = self.state
        if self._rules.preload:
            renewal = Renewal.UPGRADE
        if state.exit_code is not None:
            self.actions.append(Declined("the server is stopping"))
        elif state.renewal is not None or not state.settled:
            if not state.settled and state.next_renewal is None:
                self._say(
                    "info", f"{renewal.value} asked for while the server starts; it follows once the server is ready"
                )
            self.state = replace(state, next_renewal=renewal)
        else:
            self.actions.append(Renewing(renewal))
            self.state = replace(state, renewal=renewal)
            if renewal is Renewal.UPGRADE:
                self.state = replace(self.state, rehearsing=True)
                self.actions.append(Rehearse())
            else:
                self._begin_generation()

    def _renew_as_asked_early(self) -> None:
        following = self.state.next_renewal
        if following is not None and self.state.settled and self.state.renewal is None:
            self.state = replace(self.state, next_renewal=None)
            self._renew(following)

    def _begin_generation(self) -> None:
        generation = self.state.last_generation + 1
        self.state = replace(
            self.state, generation=generation, last_generation=generation, failures=0, not_before=self._now
        )

    def _rehearsed(self, why: str) -> None:
        if not self.state.rehearsing or self.state.exit_code is not None:
            return
        if why:
            self.state = replace(self.state, rehearsing=False)
            self._renewal_over(why)
        else:
            self.actions.append(Replace())

    def _renewal_over(self, why: str) -> None:
        following = self.state.next_renewal
        self.state = replace(self.state, renewal=None, next_renewal=None)
        self.actions.append(Renewed(why))
        if following is not None:
            self._renew(following)

    # Time.

    def watch(self) -> None:
        for worker in self.state.workers:
            if worker.phase is Phase.READY:
                self._watch_age(worker)
            if worker.deadline is None or self._now < worker.deadline:
                continue
            if worker.phase is Phase.KILLED:
                self._kill(worker, signal.SIGKILL)
                continue
            self._say("critical", f"{self._lateness(worker)}; its stacks follow, and it is killed", worker.number)
            self._kill(worker, signal.SIGABRT)
            if worker.phase is Phase.BOOTING:
                why = f"it took longer than BOOT_TIMEOUT ({self._rules.boot_timeout:g}s) to start"
                self._boot_failed_late(worker, why)

    def _boot_failed_late(self, worker: Worker, why: str) -> None:
        """As :meth:`_boot_failed`, for one that is still there, writing its stacks."""
        if not self.state.settled:
            self.state = replace(self.state, exit_code=ExitCode.BOOT)
        else:
            self._boot_failed(worker, why, ExitCode.BOOT)

    def _watch_age(self, worker: Worker) -> None:
        age = self._now - worker.since
        if self.state.failures and worker.since >= self.state.failed_at and age >= SOUND_SECONDS:
            self.state = replace(self.state, failures=0)
        if self._rules.max_worker_lifetime and age >= self._rules.max_worker_lifetime:
            self._retire(worker.number, f"it is {age:.0f}s old (MAX_WORKER_LIFETIME)")

    def _lateness(self, worker: Worker) -> str:
        match worker.phase:
            case Phase.BOOTING:
                return f"has not started within BOOT_TIMEOUT ({self._rules.boot_timeout:g}s)"
            case Phase.DRAINING:
                return f"has not ended within GRACEFUL_TIMEOUT ({self._rules.graceful_timeout:g}s)"
            case _:
                return f"has not reported for WORKER_TIMEOUT ({self._rules.worker_timeout:g}s)"

    # Numbers.

    def arrange(self) -> None:
        if self.state.exit_code is not None:
            if not self.state.workers:
                self.actions.append(Exit(self.state.exit_code))
            return
        self._drain_excess()
        self._spawn_missing()
        self._finish_renewal()
        self._appoint()

    def _outdated(self) -> list[Worker]:
        """Ready workers that have to go, the most urgent first."""
        outdated = [
            worker
            for worker in self.state.of(Phase.READY)
            if worker.retiring or worker.generation < self.state.generation
        ]
        return sorted(outdated, key=lambda worker: (not worker.retiring, worker.generation, worker.number))

    def _spawn_missing(self) -> None:
        if self._now < self.state.not_before:
            return
        booting = len(self.state.of(Phase.BOOTING))
        missing = self.state.wanted - len(self.state.of(Phase.READY)) - booting
        if missing <= 0 and not booting and self._outdated() and not self.state.of(Phase.DRAINING, Phase.KILLED):
            missing = 1
        if self.state.settled < self.state.generation or self.state.failures:
            missing = min(missing, 1 - booting)
        for _ in range(missing):
            number = self.state.last_number + 1
            deadline = self._now + self._rules.boot_timeout
            worker = Worker(number, self.state.generation, Phase.BOOTING, self._now, deadline)
            self.state = replace(self.state, last_number=number, workers=(*self.state.workers, worker))
            self.actions.append(Spawn(number, self.state.generation))

    def _drain_excess(self) -> None:
        for worker in list(self._excess()):
            self._drain(worker)

    def _excess(self) -> Iterator[Worker]:
        ready = self.state.of(Phase.READY)
        count = len(ready) - self.state.wanted
        outdated = self._outdated()
        newest_first = sorted((worker for worker in ready if worker not in outdated), key=lambda one: -one.number)
        yield from [*outdated, *newest_first][: max(0, count)]

    def _finish_renewal(self) -> None:
        state = self.state
        if state.renewal is None or state.rehearsing or state.settled < state.generation:
            return
        ready = state.of(Phase.READY)
        if len(ready) >= state.wanted and all(worker.generation == state.generation for worker in ready):
            self._renewal_over("")

    def _appoint(self) -> None:
        if not self.state.has_once or self.state.once is not None:
            return
        outdated = self._outdated()
        ready = sorted(self.state.of(Phase.READY), key=lambda worker: (worker in outdated, worker.number))
        if ready:
            self.state = replace(self.state, once=ready[0].number)
            self.actions.append(Appoint(ready[0].number))


def _boot_exit_code(status: int) -> int:
    """What a server exits with whose first worker has ended so: with its code, where that says why."""
    known = (ExitCode.FAILURE, ExitCode.USAGE, ExitCode.APP)
    return status if status in known else ExitCode.BOOT


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
