"""The order of requests that wait for a slot, and for which of them the last slot is kept. Without sockets."""

from __future__ import annotations

from typing import cast

from flask_prodserve.clock import monotonic
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.dispatch.request_queue import RequestQueue
from flask_prodserve.engine.dispatch.thread_budget import ThreadBudget


class Waiting:
    """As much of a channel as a RequestQueue needs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queued = False

    def queue(self) -> None:
        self.queued = True


def waiting(name: str) -> Connection:
    return cast(Connection, Waiting(name))


def make(threads: int, *, busy: int = 0) -> RequestQueue:
    return RequestQueue(budget(threads, busy=busy))


def budget(threads: int, *, busy: int = 0) -> ThreadBudget:
    made = ThreadBudget(threads, max_streams=0)
    made.busy = busy
    return made


def order(queue: RequestQueue) -> str:
    """Run what waits, one request after the other, and return their names."""
    names = ""
    while (channel := queue.next()) is not None:
        names += cast(Waiting, channel).name
    return names


def test_first_in_first_out() -> None:
    """Requests run in the order in which they came; one that has waited elsewhere comes before them."""
    queue = make(2)
    for name in "abc":
        queue.add(waiting(name))
    queue.put_first(waiting("0"))
    assert len(queue) == 4
    assert order(queue) == "0abc"


def test_what_is_added_knows_that_it_waits() -> None:
    """A channel learns that its request waits, in both queues."""
    queue = make(1)
    for slow in (False, True):
        channel = waiting("a")
        queue.add(channel, slow=slow)
        assert cast(Waiting, channel).queued


def test_both_queues_take_turns() -> None:
    """Neither slow requests nor others wait for the whole other queue, and the rest of one queue follows."""
    queue = make(2)
    for name in "abcd":
        queue.add(waiting(name))
    for name in "AB":
        queue.add(waiting(name), slow=True)
    assert order(queue) in ("AaBbcd", "aAbBcd")


def test_nothing_runs_without_a_slot() -> None:
    """With THREADS threads busy, everything waits."""
    slots = budget(2, busy=2)
    queue = RequestQueue(slots)
    queue.add(waiting("a"))
    queue.add(waiting("A"), slow=True)
    assert slots.full
    assert queue.slow_must_wait()
    assert order(queue) == ""
    slots.busy = 1
    assert not slots.full
    assert sorted(order(queue)) == ["A", "a"]


def test_the_last_slot_is_kept_for_fast_requests() -> None:
    """While fast requests arrive, slow ones leave the last slot to them, unless there is only one."""
    queue = make(2, busy=1)
    queue.fast_at = monotonic() + 1000
    queue.add(waiting("A"), slow=True)
    assert queue.slow_must_wait()
    assert order(queue) == ""
    queue.add(waiting("a"))
    assert order(queue) == "a"
    queue.fast_at = monotonic() - 1000
    assert order(queue) == "A"
    single = make(1)
    single.fast_at = monotonic() + 1000
    single.add(waiting("A"), slow=True)
    assert order(single) == "A"


def test_withdraw_takes_from_both_queues() -> None:
    """Withdrawn requests are returned, and the others keep their order."""
    queue = make(2)
    for name in "abc":
        queue.add(waiting(name))
        queue.add(waiting(name.upper()), slow=True)
    withdrawn = queue.withdraw(lambda channel: cast(Waiting, channel).name in "bB")
    assert sorted(cast(Waiting, channel).name for channel in withdrawn) == ["B", "b"]
    assert len(queue) == 4
    assert sorted(order(queue)) == ["A", "C", "a", "c"]


def test_a_slot_that_is_passed_on() -> None:
    """A thread that holds a slot takes the next request for it while no other slot is free; slow ones leave the last slot all the same."""
    queue = make(2, busy=2)
    queue.fast_at = monotonic() + 1000
    queue.add(waiting("a"))
    queue.add(waiting("A"), slow=True)
    assert queue.next() is None
    names = [cast(Waiting, channel).name for _ in range(2) if (channel := queue.next(held=True)) is not None]
    assert sorted(names) == ["a"]
    assert queue.slow_must_wait(held=True)
    queue.fast_at = monotonic() - 1000
    assert cast(Waiting, queue.next(held=True)).name == "A"
