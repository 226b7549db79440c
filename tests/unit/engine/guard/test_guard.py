"""How checks are cut into slices, and what the process says of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from flask_prodserve.engine.connection.table import ConnectionTable
from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.guard import guard as guard_module
from flask_prodserve.engine.guard.guard import Guard
from flask_prodserve.engine.guard.health import SHED_SECONDS
from flask_prodserve.settings.groups.processes import Workers
from flask_prodserve.settings.table import Settings
from serving import ManualClock

THREADS = 4


class Loop:
    """As much of an event loop as the guard uses. The test runs what is to be called soon."""

    queued = 0
    stuck = 0

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def soon(self, function: Callable[[], object]) -> None:
        self.calls.append(function)

    def withdraw(self, unwanted: object) -> list[object]:
        return []

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Orphan:
    """A closed connection whose request has ended meanwhile. Counts how often it is checked."""

    connected = False
    checked = 0

    @property
    def task(self) -> None:
        self.checked += 1


class Admission:
    queued = 0
    blocked = False

    def withdraw(self, unwanted: object) -> list[object]:
        return []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def admission() -> Admission:
    return Admission()


@pytest.fixture
def orphans() -> list[Orphan]:
    return [Orphan() for _ in range(3)]


@pytest.fixture
def guard(loop: Loop, admission: Admission, clock: ManualClock, orphans: list[Orphan]) -> Guard:
    context = EngineContext.of(
        cast(Any, None),
        Settings(workers=Workers(threads=THREADS)),
        error_logger=logging.getLogger("guard"),
        clock=clock,
    )
    table = ConnectionTable(10, 0, bool, context.limit_events, clock)
    table.orphaned.update(cast(Any, orphans))
    return Guard(context, table, cast(Any, loop), cast(Any, admission), slow_request=0.0)


def test_check(guard: Guard, loop: Loop, orphans: list[Orphan]) -> None:
    """A check that takes less than a slice leaves nothing for later."""
    guard.check()
    assert [orphan.checked for orphan in orphans] == [1, 1, 1]
    assert not guard.has_work
    assert not loop.calls


def test_slices(guard: Guard, loop: Loop, orphans: list[Orphan], monkeypatch: pytest.MonkeyPatch) -> None:
    """Work beyond a slice is done in a later turn; another check meanwhile adds nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(guard_module, "WORK_SECONDS", 0.0)
        guard.check()
        guard.check()
        loop.turn()
        assert [orphan.checked for orphan in orphans] == [0, 0, 0]
        assert guard.has_work
    loop.turn()
    assert [orphan.checked for orphan in orphans] == [1, 1, 1]
    assert not guard.has_work


def test_health(guard: Guard, loop: Loop, admission: Admission) -> None:
    """A process is healthy unless over half of its threads are stuck or an endpoint is blocked."""
    loop.stuck = THREADS // 2
    assert guard.health.healthy
    assert guard.health.readiness().status == 200
    loop.stuck += 1
    assert not guard.health.healthy
    assert guard.health.readiness().status == 503
    loop.stuck = 0
    admission.blocked = True
    assert not guard.health.healthy
    assert guard.health.readiness().status == 200
    assert guard.health.liveness().status == 200


def test_readiness_after_shedding(guard: Guard, clock: ManualClock) -> None:
    """For two seconds after a request was shed the server is not ready."""
    guard._shedding.shed_at = clock()
    assert guard.health.readiness().status == 503
    clock.advance(SHED_SECONDS)
    assert guard.health.readiness().status == 200


def test_readiness_while_draining(guard: Guard) -> None:
    """A server that stops is not ready, and alive."""
    guard.health.draining = True
    assert guard.health.readiness().status == 503
    assert guard.health.liveness().status == 200


def test_activity(guard: Guard, loop: Loop, admission: Admission) -> None:
    """Queued are the requests that wait for a thread and those that wait for their endpoint."""
    loop.queued, admission.queued, loop.stuck = 2, 3, 1
    activity = guard.health.activity()
    assert (activity.queued, activity.stuck, activity.busy, activity.connections) == (5, 1, 0, 0)
    assert guard.queued == 5
