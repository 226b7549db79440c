"""Shares of endpoints: how many run, who waits, in which order they follow, and that no share is ever lost. Without sockets."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.engine.dispatch.admission import Admission, take_out
from flask_prodserve.settings.endpoint_limits import UNLIMITED, Endpoint, EndpointLimits, Route

ENDPOINTS = {
    "one": Endpoint("one", EndpointLimits(max_concurrency=1)),
    "two": Endpoint("two", EndpointLimits(max_concurrency=2)),
    "timed": Endpoint("timed", EndpointLimits(timeout=1.0)),
}


class Request:
    def __init__(self, endpoint: str | None, reply: object = None) -> None:
        self.head = endpoint
        self.reply = reply
        self.route = Route(endpoint or "", ENDPOINTS.get(endpoint or "", UNLIMITED))


class Asking:
    """As much of a channel as Admission looks at."""

    queued_at = 0.0

    def __init__(self, endpoint: str | None, reply: object = None) -> None:
        self.current = Request(endpoint, reply)

    def queue(self) -> None:
        self.queued_at = 42.0


@pytest.fixture
def admission() -> Admission:
    return make()


def make() -> Admission:
    return Admission()


def admit(admission: Admission, channel: Asking) -> bool:
    return admission.admit(cast(Any, channel))


def release(admission: Admission, channel: Asking) -> Asking | None:
    return cast("Asking | None", admission.release(cast(Any, channel)))


def test_up_to_the_share(admission: Admission) -> None:
    """As many as max_concurrency run; the next waits, and since when is noted."""
    first, second, third = (Asking("two") for _ in range(3))
    assert admit(admission, first)
    assert admit(admission, second)
    assert not admit(admission, third)
    assert admission.queued == 1
    assert third.queued_at == 42.0
    assert not admission.counts(cast(Any, third))


def test_those_that_wait_follow_in_order(admission: Admission) -> None:
    """Each that ends is followed by the one that has waited longest, which has its share already."""
    first, *waiting = (Asking("one") for _ in range(4))
    assert admit(admission, first)
    assert [admit(admission, channel) for channel in waiting] == [False] * 3
    running = first
    for expected in waiting:
        following = release(admission, running)
        assert following is expected
        assert not admission.counts(cast(Any, running))
        assert admit(admission, expected), "it has its share, and does not wait again"
        running = expected
    assert release(admission, running) is None
    assert admission.queued == 0
    assert admit(admission, Asking("one"))


def test_endpoints_do_not_share(admission: Admission) -> None:
    """What one endpoint has takes nothing away from another."""
    assert admit(admission, Asking("one"))
    assert not admit(admission, Asking("one"))
    assert admit(admission, Asking("two"))


@pytest.mark.parametrize("endpoint", ["timed", "unknown", None])
def test_without_max_concurrency(admission: Admission, endpoint: str | None) -> None:
    """Endpoints without such a limit, and requests without a head, always run, and have nothing to give back."""
    channels = [Asking(endpoint) for _ in range(50)]
    assert all(admit(admission, channel) for channel in channels)
    assert all(release(admission, channel) is None for channel in channels)


def test_replies_need_no_share(admission: Admission) -> None:
    """What is answered without the app waits for nobody."""
    assert admit(admission, Asking("one"))
    assert admit(admission, Asking("one", reply="refused"))


def test_giving_back_twice(admission: Admission) -> None:
    """A share is given back once, however often it is tried."""
    first, second = Asking("one"), Asking("one")
    assert admit(admission, first)
    release(admission, first)
    assert admit(admission, second)
    assert release(admission, first) is None
    assert not admit(admission, Asking("one"))


def test_withdraw(admission: Admission) -> None:
    """Those that are taken out never run; the others keep their order; no share is lost by it."""
    first, *waiting = (Asking("one") for _ in range(6))
    other, other_waiting = Asking("two"), [Asking("two") for _ in range(3)]
    for channel in [first, *waiting, other, *other_waiting]:
        admit(admission, channel)
    unwanted = {waiting[0], waiting[3], other_waiting[1]}
    taken = admission.withdraw(cast(Any, unwanted.__contains__))
    assert set(taken) == {waiting[0], waiting[3], other_waiting[1]}
    assert [release(admission, channel) for channel in (first, waiting[1], waiting[2], waiting[4])] == [
        waiting[1],
        waiting[2],
        waiting[4],
        None,
    ]
    assert admission.withdraw(lambda channel: True) == [other_waiting[2]]
    assert admission.queued == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two", "free"]), st.sampled_from(["start", "end", "leave"])), max_size=60
    )
)
def test_any_order(steps: list[tuple[str, str]]) -> None:
    """Whatever the order of events: never too many run, nobody waits while there is room, first come first served."""
    admission = make()
    running: dict[str, list[Asking]] = {"one": [], "two": [], "free": []}
    waiting: dict[str, list[Asking]] = {"one": [], "two": [], "free": []}
    for endpoint, step in steps:
        if step == "start":
            channel = Asking(endpoint)
            (running if admit(admission, channel) else waiting)[endpoint].append(channel)
        elif step == "end" and running[endpoint]:
            following = release(admission, running[endpoint].pop(0))
            if following is not None:
                assert following is waiting[endpoint].pop(0)
                running[endpoint].append(following)
        elif step == "leave" and waiting[endpoint]:
            gone = waiting[endpoint].pop(len(waiting[endpoint]) // 2)
            assert admission.withdraw(cast(Any, lambda channel, gone=gone: channel is gone)) == [gone]
        for name, most in (("one", 1), ("two", 2)):
            assert len(running[name]) <= most
            assert not waiting[name] or len(running[name]) == most
        assert not waiting["free"]
        assert admission.queued == sum(map(len, waiting.values()))


def test_threads(admission: Admission) -> None:
    """From many threads: never more than the share at a time, and each that waited is returned exactly once."""
    inside, most, served = [0], [0], []
    lock = threading.Lock()
    todo: deque[Asking] = deque(Asking("two") for _ in range(3000))

    def work() -> None:
        chance = random.Random()
        while True:
            try:
                channel: Asking | None = todo.popleft()
            except IndexError:
                return
            assert channel is not None
            if not admit(admission, channel):
                continue
            while channel is not None:
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    served.append(channel)
                for _ in range(chance.randrange(20)):
                    pass
                with lock:
                    inside[0] -= 1
                channel = release(admission, channel)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 2
    assert len(served) == len({id(channel) for channel in served}) == 3000
    assert admission.queued == 0


def test_take_out() -> None:
    """Each is asked once, in order, and both what is taken and what stays keep their order."""
    asked: list[int] = []
    queue = deque(range(10))

    def odd(number: Any) -> bool:
        asked.append(number)
        return bool(number % 2)

    assert take_out(cast(Any, queue), odd) == [1, 3, 5, 7, 9]
    assert list(queue) == [0, 2, 4, 6, 8]
    assert asked == list(range(10))


def test_what_is_given_up_keeps_its_share(admission: Admission) -> None:
    """A request that is given up counts until it is released; one that has been released before is not given up any more."""
    first, second, third = (Asking("one") for _ in range(3))
    assert admit(admission, first)
    admission.abandoned(cast(Any, first))
    assert not admit(admission, second)
    assert not admission.blocked, "the other one still waits"
    assert admission.withdraw(lambda channel: True) == [cast(Any, second)]
    assert admission.blocked
    assert release(admission, first) is None
    assert not admission.blocked
    admission.abandoned(cast(Any, first))
    assert admit(admission, third)
    assert not admit(admission, second)
    assert admission.withdraw(lambda channel: True) == [cast(Any, second)]
    assert not admission.blocked
