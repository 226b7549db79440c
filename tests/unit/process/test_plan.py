"""The supervisor's plan: what it does next, tested without a process, and against whatever may happen."""

from __future__ import annotations

import itertools
import random
import signal
from dataclasses import replace

import pytest

from flask_prodserve.errors import ExitCode
from flask_prodserve.process.actions import (
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
from flask_prodserve.process.events import (
    Event,
    Exited,
    FromWorker,
    Renew,
    Scale,
    Stop,
    StopNow,
    Tick,
    Unservable,
    UpgradeChecked,
)
from flask_prodserve.process.messages import Abort, Appoint, Drain, Loaded, Ready, Released, Report, Retire
from flask_prodserve.process.plan import KILL_SECONDS, LONGEST_PAUSE_SECONDS, MAX_ATTEMPTS, decide, next_deadline
from flask_prodserve.process.state import Renewal, Rules, State, WorkerPhase

RULES = Rules(boot_timeout=60, worker_timeout=30, graceful_timeout=25)
RELOAD, UPGRADE = Renew(Renewal.RELOAD), Renew(Renewal.UPGRADE)


class Server:
    """A state that events happen to, at a time that the test moves."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.state = State()
        self.now = 1000.0
        self.logged: list[str] = []

    def happen(self, *events: Event) -> list[Action]:
        """The actions decided on *events*, except for Log, whose texts are kept."""
        done: list[Action] = []
        for event in events:
            self.state, actions = decide(self.state, event, self.now, self.rules)
            self.logged += [action.text for action in actions if isinstance(action, Log)]
            done += [action for action in actions if not isinstance(action, Log)]
        return done

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.happen(Tick())

    def numbers(self, *phases: WorkerPhase) -> list[int]:
        return [worker.number for worker in self.state.of(*phases)]

    @property
    def ready(self) -> list[int]:
        return self.numbers(WorkerPhase.READY)


def started(workers: int, rules: Rules = RULES) -> Server:
    """A server with *workers* that are ready."""
    server = Server(rules)
    assert server.happen(Tick()) == [Spawn(1, 1)]
    server.happen(loaded(1, has_once=False), Scale(workers), *(ready(number) for number in range(1, workers + 1)))
    assert len(server.ready) == workers
    return server


def loaded(number: int, *, has_once: bool) -> FromWorker:
    return FromWorker(number, Loaded("app", "module:app", {}, {}, has_once))


def ready(number: int) -> FromWorker:
    return FromWorker(number, Ready())


def retiring(number: int, reason: str) -> FromWorker:
    return FromWorker(number, Retire(reason))


def released(number: int) -> FromWorker:
    return FromWorker(number, Released())


def report(number: int, *, healthy: bool = True, memory: int = 0) -> FromWorker:
    return FromWorker(number, Report(1, connections=0, busy=0, queued=0, stuck=0, healthy=healthy, memory=memory))


def drain(number: int, delay: float = 0.0, last: bool = False, interrupted: bool = False) -> ToWorker:
    return ToWorker(number, Drain(delay, last, interrupted))


def abort(number: int) -> ToWorker:
    return ToWorker(number, Abort())


def appoint(number: int) -> ToWorker:
    return ToWorker(number, Appoint())


# Starting.


def test_one_worker_is_started_until_one_is_ready() -> None:
    """The first worker shows whether the app can be served at all; the others follow together."""
    server = Server()
    assert server.happen(Tick(), Tick(), loaded(1, has_once=False)) == [Spawn(1, 1)]
    assert server.happen(Scale(3)) == []
    assert server.happen(ready(1)) == [Spawn(2, 1), Spawn(3, 1)]
    assert server.happen(ready(2), ready(3)) == []


@pytest.mark.parametrize(
    ("status", "code"), [(1, 1), (2, 2), (4, 4), (0, 3), (3, 3), (5, 3), (-signal.SIGKILL, 3), (-signal.SIGSEGV, 3)]
)
def test_first_worker_fails(status: int, code: int) -> None:
    """The server ends with the exit code of its first worker where that says why, with 3 where it does not."""
    server = Server()
    server.happen(Tick())
    assert server.happen(Exited(1, status)) == [Exit(code)]


def test_first_worker_cannot_be_served() -> None:
    """Where the address of the first worker is in use, the worker is killed, and the server ends with the code for that."""
    server = Server()
    server.happen(Tick(), loaded(1, has_once=False))
    assert server.happen(Unservable(1, "in use", ExitCode.FAILURE)) == [Kill(1, signal.SIGKILL)]
    assert server.happen(Exited(1, -signal.SIGKILL)) == [Exit(ExitCode.FAILURE)]


def test_first_worker_hangs() -> None:
    """At BOOT_TIMEOUT a worker writes its stacks, is killed, and the server ends with 3."""
    server = Server()
    server.happen(Tick())
    assert next_deadline(server.state, server.rules) == server.now + 60
    assert server.wait(59.9) == []
    assert server.wait(0.1) == [Kill(1, signal.SIGABRT)]
    assert server.wait(KILL_SECONDS) == [Kill(1, signal.SIGKILL)]
    assert server.wait(100) == []
    assert server.happen(Exited(1, -signal.SIGKILL)) == [Exit(ExitCode.BOOT)]


def test_crash_loop_before_anything_was_served() -> None:
    """Workers that die as soon as they are ready are started in growing intervals, and not for ever."""
    server = started(1)
    times = [server.now]
    for number in range(1, MAX_ATTEMPTS):
        assert server.happen(Exited(number, 1)) == []
        at = next_deadline(server.state, server.rules)
        assert at is not None
        assert server.wait(at - server.now) == [Spawn(number + 1, 1)]
        times.append(server.now)
        server.happen(ready(number + 1))
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0] > 0
    assert server.happen(Exited(MAX_ATTEMPTS, 1)) == [Exit(ExitCode.BOOT)]


def test_crash_loop_of_a_server_that_has_served() -> None:
    """A server that has served goes on trying."""
    server = started(1)
    server.happen(report(1), Exited(1, 1))
    for number in range(2, 50):
        assert server.numbers(WorkerPhase.BOOTING) == [number]
        server.happen(ready(number), Exited(number, 1))
        server.wait(20)
    assert server.state.exit_code is None


def test_worker_that_fails_beside_one_that_is_well() -> None:
    """A replacement that cannot start is tried in intervals that grow, however well and old the other workers are, for ever."""
    server = started(2, replace(RULES, worker_timeout=0))
    server.happen(report(1), report(2))
    server.wait(1000)
    server.happen(Exited(2, -11))
    pauses = []
    for number in range(3, 1500):
        assert server.numbers(WorkerPhase.BOOTING) == [number]
        server.happen(Exited(number, 4))
        at = next_deadline(server.state, server.rules)
        assert at is not None
        pauses.append(at - server.now)
        server.wait(at - server.now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    server.happen(ready(1500))
    server.wait(1000)
    server.happen(Exited(1500, -11))
    assert server.numbers(WorkerPhase.BOOTING) == [1501]


def test_one_start_at_a_time_after_a_failure() -> None:
    """While workers fail to start only one is started at a time, however many are missing."""
    server = started(3)
    server.happen(report(1), report(2), report(3), Exited(3, -11), Exited(4, 4))
    assert server.happen(Exited(1, -signal.SIGKILL), Exited(2, -signal.SIGKILL)) == []
    server.wait(LONGEST_PAUSE_SECONDS)
    assert server.numbers(WorkerPhase.BOOTING) == [5]
    assert server.happen(ready(5)) == [Spawn(6, 1)]
    assert server.happen(ready(6)) == [Spawn(7, 1)]


# Workers that die or hang.


def test_killed_worker_is_replaced_at_once() -> None:
    """A worker that served and dies is replaced without a pause."""
    server = started(2)
    server.happen(report(1), report(2))
    assert server.happen(Exited(2, -signal.SIGKILL)) == [Spawn(3, 1)]
    assert server.logged == ["was killed by SIGKILL (out of memory?) and will be replaced"]


def test_silent_worker() -> None:
    """A worker that does not report for WORKER_TIMEOUT writes its stacks and is killed; reports put that off."""
    server = started(1)
    server.wait(29)
    server.happen(report(1))
    assert server.wait(29) == []
    assert server.wait(1) == [Kill(1, signal.SIGABRT), Spawn(2, 1)]
    assert server.numbers(WorkerPhase.KILLED) == [1]
    assert server.numbers(WorkerPhase.BOOTING) == [2]
    server.happen(Exited(1, -signal.SIGABRT), ready(2))
    assert server.ready == [2]


def test_no_worker_timeout() -> None:
    """WORKER_TIMEOUT 0 waits for ever."""
    server = started(1, replace(RULES, worker_timeout=0))
    assert server.wait(1e6) == []
    assert next_deadline(server.state, server.rules) is None


@pytest.mark.parametrize(
    ("reason", "rules"),
    [
        (retiring(1, "MAX_REQUESTS"), RULES),
        (report(1, healthy=False), RULES),
        (report(1, memory=2000), replace(RULES, max_worker_memory=1000)),
        (Tick(), replace(RULES, max_worker_lifetime=10, worker_timeout=0)),
    ],
)
def test_recycling(reason: Event, rules: Rules) -> None:
    """A worker that has to go is drained once its replacement is ready, and never two at a time."""
    server = started(2, rules)
    server.now += 10
    assert server.happen(reason) == [Spawn(3, 1)]
    assert server.happen(retiring(2, "MAX_REQUESTS")) == []
    assert server.happen(ready(3)) == [drain(1)]
    assert server.happen(Tick(), reason, retiring(2, "again")) == []
    assert server.happen(Exited(1, 0)) == [Spawn(4, 1)]
    assert server.happen(ready(4)) == [drain(2)]
    assert server.happen(Exited(2, 0)) == []
    assert server.ready == [3, 4]


def test_worker_that_does_not_end() -> None:
    """A draining worker that is still there some time after GRACEFUL_TIMEOUT is killed, with its stacks."""
    server = started(1)
    server.happen(retiring(1, "MAX_REQUESTS"), ready(2), report(2))
    server.now += 25
    assert server.happen(report(2)) == []
    server.now += 5
    assert server.happen(report(2)) == [Kill(1, signal.SIGABRT)]


@pytest.mark.parametrize("worker_timeout", [0, 30, 600])
def test_reports_do_not_prolong_a_drain(worker_timeout: float) -> None:
    """A draining worker is killed at its deadline although it goes on reporting, whatever WORKER_TIMEOUT is."""
    server = started(2, replace(RULES, worker_timeout=worker_timeout))
    assert server.happen(report(1), report(2), Stop()) == [drain(1, 0, True), drain(2, 0, True)]
    for _ in range(29):
        server.now += 1
        assert server.happen(report(1), report(2)) == []
    server.now += 1
    assert server.happen(report(1), report(2)) == [Kill(1, signal.SIGABRT), Kill(2, signal.SIGABRT)]


# New code.


def test_reload_is_rolling() -> None:
    """A reload starts one worker more, drains one old when it is ready, and waits for its end before the next."""
    server = started(2)
    assert [action for action in server.happen(RELOAD) if isinstance(action, Spawn)] == [Spawn(3, 2)]
    assert server.happen(ready(3)) == [drain(1)]
    assert server.happen(Exited(1, 0)) == [Spawn(4, 2)]
    assert server.happen(ready(4)) == [RenewalEnded(""), drain(2)]
    assert server.happen(Exited(2, 0)) == []
    assert server.ready == [3, 4]


def test_reload_that_fails() -> None:
    """A generation whose first worker fails leaves the old one serving, says why, and the next reload may succeed."""
    server = started(2)
    server.happen(RELOAD)
    assert server.happen(Exited(3, 4, "SyntaxError")) == [RenewalEnded("SyntaxError")]
    assert server.ready == [1, 2]
    assert server.wait(1) == []
    assert Spawn(4, 3) in server.happen(RELOAD)
    assert server.happen(ready(4)) == [drain(1)]


def test_reload_that_cannot_be_bound() -> None:
    """A generation whose addresses cannot be had is given up."""
    server = started(1)
    server.happen(RELOAD)
    assert server.happen(Unservable(2, "in use", 1)) == [Kill(2, signal.SIGKILL), RenewalEnded("in use")]
    assert server.happen(Exited(2, -9)) == []
    assert server.ready == [1]


def test_reload_that_hangs() -> None:
    """A generation that does not start within BOOT_TIMEOUT is given up."""
    server = started(1, replace(RULES, worker_timeout=0))
    server.happen(RELOAD)
    actions = server.wait(60)
    assert actions[0] == Kill(2, signal.SIGABRT)
    assert isinstance(actions[1], RenewalEnded)
    assert "BOOT_TIMEOUT" in actions[1].error
    assert server.ready == [1]


def test_reload_during_a_reload() -> None:
    """Code that is changed while a reload is under way needs another one, which follows."""
    server = started(1)
    server.happen(RELOAD, RELOAD, RELOAD)
    actions = server.happen(ready(2))
    assert actions == [RenewalEnded(""), RenewalBegan(Renewal.RELOAD), drain(1)]
    assert server.happen(Exited(1, 0)) == [Spawn(3, 3)]


def test_worker_that_dies_during_a_reload() -> None:
    """An old worker that dies while the new ones come is replaced by a new one."""
    server = started(3)
    server.happen(report(1), report(2), report(3), RELOAD)
    server.happen(Exited(2, -11))
    assert server.numbers(WorkerPhase.BOOTING) == [4]
    server.happen(ready(4))
    assert server.ready == [1, 3, 4]


def test_upgrade_is_checked_first() -> None:
    """The supervisor is replaced only after a preflight check; one that fails changes nothing."""
    server = started(1)
    assert CheckUpgrade() in server.happen(UPGRADE)
    assert server.happen(UpgradeChecked("no module")) == [RenewalEnded("no module")]
    assert CheckUpgrade() in server.happen(UPGRADE)
    assert server.happen(UpgradeChecked("")) == [ReplaceSupervisor()]
    assert server.happen(UpgradeChecked("cannot be executed")) == [RenewalEnded("cannot be executed")]


def test_reload_with_preload_is_an_upgrade() -> None:
    """Where the supervisor has loaded the app, new code needs a new supervisor."""
    server = started(1, replace(RULES, preload=True))
    assert CheckUpgrade() in server.happen(RELOAD)


def test_reload_while_stopping() -> None:
    """A server that stops declines to be renewed."""
    server = started(1)
    server.happen(Stop())
    assert server.happen(RELOAD) == [RenewalRejected("the server is stopping")]


@pytest.mark.parametrize("early", [[RELOAD], [RELOAD, RELOAD], [UPGRADE, RELOAD]])
def test_reload_while_starting(early: list[Event]) -> None:
    """A reload that is asked for before any worker is ready, however often, is carried out once when one is."""
    server = Server()
    server.happen(Tick())
    assert server.happen(*early) == []
    assert sum("requested during startup" in text for text in server.logged) == 1
    assert server.happen(Tick(), loaded(1, has_once=False), ready(1)) == []
    assert server.happen(Tick()) == [RenewalBegan(Renewal.RELOAD), Spawn(2, 2)]
    assert server.happen(ready(2)) == [RenewalEnded(""), drain(1)]
    assert server.happen(Tick(), Exited(1, 0), Tick()) == []
    assert server.state.next_renewal is None


@pytest.mark.parametrize("end", [Stop(), StopNow(131)])
def test_stop_after_an_early_reload(end: Event) -> None:
    """A server that is stopped before any worker is ready forgets the reload that it was asked for."""
    server = Server()
    server.happen(Tick(), RELOAD, end)
    assert RenewalBegan(Renewal.RELOAD) not in server.happen(loaded(1, has_once=False), ready(1), Tick())


# Numbers.


def test_scale() -> None:
    """More workers are started together; fewer go together, the newest first."""
    server = started(2)
    assert server.happen(Scale(4)) == [Spawn(3, 1), Spawn(4, 1)]
    server.happen(ready(3), ready(4))
    assert server.happen(Scale(1)) == [drain(4), drain(3), drain(2)]


# Stopping.


def test_stop() -> None:
    """A stop drains workers after DRAIN_DELAY, and ends with 0 once all have gone."""
    server = started(2, replace(RULES, drain_delay=5))
    assert server.happen(Stop()) == [drain(1, 5, last=True), drain(2, 5, last=True)]
    assert server.happen(Stop(), Exited(1, 0)) == []
    assert server.happen(Exited(2, 0)) == [Exit(0)]


def test_stop_by_ctrl_c() -> None:
    """Workers that drain after CTRL+C learn of it, also those that become ready only then, and also if a stop was under way."""
    server = started(1)
    server.happen(Scale(2))
    assert server.happen(Stop(interrupted=True)) == [Kill(2, signal.SIGTERM), drain(1, last=True, interrupted=True)]
    assert server.happen(Stop(), ready(2)) == [drain(2, last=True, interrupted=True)]
    server = started(1)
    server.happen(Scale(2))
    assert server.happen(Stop()) == [Kill(2, signal.SIGTERM), drain(1, last=True)]
    assert server.happen(Stop(interrupted=True), ready(2)) == [drain(2, last=True, interrupted=True)]


def test_stop_while_starting() -> None:
    """A worker that is still loading the app is told to end."""
    server = Server()
    server.happen(Tick())
    assert server.happen(Stop()) == [Kill(1, signal.SIGTERM)]
    assert server.happen(Exited(1, -signal.SIGTERM)) == [Exit(0)]


def test_stop_while_a_worker_gets_ready() -> None:
    """A worker that has begun to serve by then is told to drain, and may take as long as any; what is to be killed is not held up."""
    server = started(1, replace(RULES, drain_delay=5))
    assert server.happen(Scale(2)) == [Spawn(2, 1)]
    assert server.happen(Stop()) == [Kill(2, signal.SIGTERM), drain(1, 5, last=True)]
    assert server.happen(ready(2)) == [drain(2, 5, last=True)]
    assert server.wait(34.9) == []
    assert server.happen(Exited(1, 0), Exited(2, 0)) == [Exit(0)]
    server = started(1)
    server.happen(Scale(2), Stop())
    assert server.wait(KILL_SECONDS) == [Kill(2, signal.SIGKILL)]
    assert server.happen(ready(2)) == []


def test_stop_that_takes_too_long() -> None:
    """A worker that does not end after a stop is killed."""
    server = started(1, replace(RULES, drain_delay=5))
    server.happen(Stop())
    assert server.wait(34.9) == []
    assert server.wait(0.1) == [Kill(1, signal.SIGABRT)]
    assert server.wait(KILL_SECONDS) == [Kill(1, signal.SIGKILL)]


def test_stop_now() -> None:
    """Every worker is told to end now, also one that is draining, and killed if it does not; the exit code is the signal's."""
    server = started(2)
    server.happen(retiring(1, "r"), ready(3), retiring(2, "r"), Exited(1, 0))
    assert server.numbers(WorkerPhase.BOOTING) == [4]
    assert server.happen(StopNow(131)) == [abort(2), abort(3), Kill(4, signal.SIGKILL)]
    assert server.wait(KILL_SECONDS) == [Kill(2, signal.SIGKILL), Kill(3, signal.SIGKILL)]
    assert server.happen(*(Exited(number, -9) for number in (2, 3, 4))) == [Exit(131)]
    server = started(1)
    assert server.happen(Stop(), StopNow(130)) == [drain(1, last=True), abort(1)]
    assert server.happen(StopNow(130)) == [Kill(1, signal.SIGKILL)]
    assert server.happen(Exited(1, 0)) == [Exit(130)]


# What exactly one worker does.


def test_once_moves() -> None:
    """One worker is appointed; another one when it has released that, or has died."""
    server = Server()
    server.happen(Tick(), loaded(1, has_once=True), Scale(2))
    assert appoint(1) in server.happen(ready(1))
    assert server.happen(ready(2)) == []
    server.happen(RELOAD)
    assert server.happen(ready(3)) == [drain(1)]
    assert server.happen(released(1)) == [appoint(3)]
    server.happen(report(3))
    assert appoint(2) in server.happen(Exited(3, -9))


# Whatever happens.


@pytest.mark.parametrize("seed", range(300))
def test_whatever_happens(seed: int) -> None:
    """In any order of events: ready workers are only drained when more are ready than wanted, at most one replacement boots at a time,
    one worker at most is appointed, and the server ends once it has been told to.
    """
    chance = random.Random(seed)
    server = Server(replace(RULES, max_worker_lifetime=chance.choice([0, 40]), drain_delay=chance.choice([0, 3])))
    server.happen(Tick())
    appointed: set[int] = set()
    for _ in range(200):
        server.now += chance.choice([0, 0, 0.1, 1, 10])
        numbers = [worker.number for worker in server.state.workers]
        number = chance.choice(numbers) if numbers else 0
        before = server.state
        event = chance.choice(
            [
                Tick(),
                loaded(number, has_once=True),
                ready(number),
                ready(number),
                ready(number),
                report(number),
                retiring(number, "r"),
                released(number),
                Exited(number, chance.choice([0, 1, -9])),
                RELOAD,
                UPGRADE,
                UpgradeChecked("why"),
                Scale(chance.randint(1, 4)),
                Unservable(number, "u", 1) if chance.random() < 0.1 else Tick(),
            ]
        )
        if not before.ready_generation and isinstance(event, Exited | Unservable):
            event = ready(number)
        actions = server.happen(event)
        for action in actions:
            if isinstance(action, Exit):
                return
            if isinstance(action, Spawn):
                assert action.number > before.last_number
            if isinstance(action, ToWorker) and action.message == Appoint():
                appointed.add(action.number)
        drained = [action for action in actions if isinstance(action, ToWorker) and isinstance(action.message, Drain)]
        if drained:
            assert len(server.ready) >= server.state.wanted
        if isinstance(event, Exited) or event == released(number):
            appointed.discard(number)
        assert len(appointed & set(server.ready)) <= 1
        spare = len(server.numbers(WorkerPhase.BOOTING, WorkerPhase.READY)) - server.state.wanted
        if not isinstance(event, Scale) and before.wanted == server.state.wanted:
            spare_before = len(before.of(WorkerPhase.BOOTING, WorkerPhase.READY)) - before.wanted
            assert spare <= max(1, spare_before)
    server.happen(Stop())
    for _ in range(10):
        ended = [
            action
            for worker in server.state.workers
            for action in server.happen(Exited(worker.number, 0))
            if isinstance(action, Exit)
        ]
        if ended or not server.state.workers:
            break
    assert server.state.workers == ()
    assert server.happen(Tick()) == [Exit(server.state.exit_code or 0)]
