"""When a process leaves new connections to others, and when it checks again. Without sockets."""

from __future__ import annotations

import os

import pytest

from flask_prodserve.engine.connection.table import ConnectionTable
from flask_prodserve.engine.dispatch.balancing import (
    DEFER_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    Balancer,
)
from flask_prodserve.net.loads import Loads
from flask_prodserve.observe.limit_events import LimitEvents
from serving import ManualClock


class Crowd(ConnectionTable):
    """As many connections as the test says."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(10, 0, lambda address: True, LimitEvents(clock), clock)
        self.count = 0

    def __len__(self) -> int:
        return self.count

    @property
    def full(self) -> bool:
        return self.count >= 10


class Two:
    """Two processes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        descriptor = Loads.create(2)
        self.other = Loads(descriptor, 1, self.clock)
        self.crowd = Crowd(self.clock)
        self.balancer = Balancer(Loads(descriptor, 0, self.clock), self.crowd, self.clock)
        os.close(descriptor)
        self.other.publish(0)

    def defers(self, connections: int = 5, *, busy: bool = False) -> bool:
        """Tell whether the process, with so many *connections*, leaves new ones to others."""
        self.crowd.count = connections
        self.balancer.check(busy=busy)
        return self.balancer.defers_accepting


@pytest.fixture
def two() -> Two:
    return Two()


def test_few_connections(two: Two) -> None:
    """A process with no more connections than others accepts, and needs no check."""
    assert not two.defers(1)
    assert two.balancer.remaining() is None


def test_many_connections(two: Two) -> None:
    """A process leaves new connections to others while it has more than they have."""
    assert two.defers(2)
    two.other.publish(1)
    assert not two.defers(2)
    assert two.balancer.remaining() is None


def test_busy_threads(two: Two) -> None:
    """A process without a free thread leaves connections to one that has a free thread, and accepts if there is none."""
    two.other.publish(9)
    assert two.defers(3, busy=True)
    two.other.publish(9, 1)
    assert not two.defers(3, busy=True)


def test_no_room(two: Two) -> None:
    """At MAX_CONNECTIONS connections are left even to processes whose threads are all busy, before idle ones are closed for them."""
    two.other.publish(9, 1)
    assert two.defers(10)
    assert not two.defers(9)


def test_pauses_grow(two: Two) -> None:
    """It checks again soon, later if nothing changes, and never much later; changes in between do not put that off."""
    assert two.defers()
    pauses = []
    for _ in range(10):
        pause = two.balancer.remaining()
        assert pause is not None
        pauses.append(pause)
        two.clock.advance(pause / 2)
        assert two.defers(6)
        assert two.balancer.remaining() == pytest.approx(pause / 2)
        two.clock.advance(pause / 2 + 1e-6)
        assert two.balancer.remaining() == 0
        assert two.defers()
    assert pauses[0] == pytest.approx(SHORTEST_PAUSE_SECONDS)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS)


def test_what_nobody_takes(two: Two) -> None:
    """After DEFER_SECONDS it accepts for a moment, and then leaves connections to others again."""
    assert two.defers()
    two.clock.advance(DEFER_SECONDS)
    two.other.publish(0)
    assert not two.defers()
    assert not two.defers(6)
    two.clock.advance(SHORTEST_PAUSE_SECONDS + 1e-6)
    assert two.balancer.remaining() == 0
    assert two.defers(6)
    two.clock.advance(DEFER_SECONDS / 2)
    assert two.defers(6)
