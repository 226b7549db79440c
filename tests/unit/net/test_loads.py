"""What processes know of one another's connections."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from flask_prodserve.net.loads import STALE_SECONDS, Loads
from serving import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def descriptor() -> Iterator[int]:
    descriptor = Loads.create(4)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def processes(descriptor: int, clock: ManualClock) -> list[Loads]:
    return [Loads(descriptor, slot, clock) for slot in range(4)]


def test_alone(processes: list[Loads]) -> None:
    """A process that is the only one leaves nothing to others, whatever it has."""
    processes[3].publish(1000, 3)
    assert not processes[3].others
    assert not processes[3].crowded(1000, 3)


@pytest.mark.parametrize(
    ("here", "there", "crowded"),
    [(0, 0, False), (1, 0, False), (2, 0, True), (0, 2, False), (17, 15, False), (18, 15, True), (113, 100, False)],
)
def test_connections(processes: list[Loads], here: int, there: int, crowded: bool) -> None:
    """A process is crowded that has more connections than any other, apart from a small difference."""
    for process, connections in zip(processes, [here, there, 500, 500], strict=True):
        process.publish(connections)
    assert processes[0].crowded(here) is crowded


def test_strain(processes: list[Loads]) -> None:
    """Who can do less with a connection leaves it to others that have many; among those of the same strain connections count."""
    processes[0].publish(0, 1)
    processes[1].publish(90, 0)
    assert processes[0].crowded(0, 1)
    assert not processes[1].crowded(90, 0)
    processes[1].publish(90, 1)
    assert not processes[0].crowded(0, 1)
    assert processes[1].crowded(90, 1)


def test_who_is_silent_does_not_count(processes: list[Loads], clock: ManualClock) -> None:
    """A process that has not said anything for a while is as good as dead, until it does."""
    processes[1].publish(0)
    assert processes[0].crowded(9)
    clock.advance(STALE_SECONDS)
    assert not processes[0].crowded(9)
    assert not processes[0].others
    processes[1].publish(0)
    assert processes[0].crowded(9)


def test_who_withdraws_does_not_count(processes: list[Loads]) -> None:
    """A process that takes no more connections is not counted on, and does not come back."""
    processes[1].publish(0)
    assert processes[0].others
    processes[1].withdraw()
    assert not processes[0].others
    processes[1].publish(0)
    assert not processes[0].others


def test_who_is_cleared_does_not_count(descriptor: int, processes: list[Loads], clock: ManualClock) -> None:
    """The supervisor can say that a process has ended; the next one in its place counts."""
    processes[1].publish(0)
    Loads.clear(descriptor, 1)
    assert not processes[0].others
    Loads(descriptor, 1, clock).publish(3)
    assert processes[0].crowded(9)


def test_slots_in_any_order(processes: list[Loads]) -> None:
    """A process sees those in slots before and behind its own, whoever came first."""
    processes[2].publish(0)
    processes[0].publish(9)
    assert processes[0].crowded(9)
    processes[3].publish(9)
    assert processes[3].crowded(9)


def test_nonsense_is_survived(descriptor: int, processes: list[Loads]) -> None:
    """Whatever another process may have written there, readers get an answer."""
    size = os.fstat(descriptor).st_size
    for garbage in (b"\xff", b"\x7f", b"\x00"):
        os.pwrite(descriptor, garbage * size, 0)
        assert processes[0].crowded(10) in (True, False)
    processes[1].publish(0)
    assert processes[0].crowded(10)


def test_memory_is_not_inherited(descriptor: int) -> None:
    """Programs that the app starts do not get it."""
    assert not os.get_inheritable(descriptor)
