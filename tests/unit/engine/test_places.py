"""Places for threads: who comes next, and what the last place is kept for. Without sockets."""

from __future__ import annotations

from typing import cast

from flask_prodserve.clock import monotonic
from flask_prodserve.engine.channel import Channel
from flask_prodserve.engine.places import Places


class Waiting:
    """As much of a channel as Places looks at."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queued = False

    def queue(self) -> None:
        self.queued = True


def waiting(name: str) -> Channel:
    return cast(Channel, Waiting(name))


def order(places: Places) -> str:
    """What is run, one after the other, where each is over before the next begins."""
    names = ""
    while (channel := places.next()) is not None:
        names += cast(Waiting, channel).name
    return names


def test_requests_are_run_in_the_order_in_which_they_came() -> None:
    """The first comes first, and one that has waited elsewhere comes before them."""
    places = Places(2)
    for name in "abc":
        places.add(waiting(name))
    places.put_first(waiting("0"))
    assert len(places) == 4
    assert order(places) == "0abc"


def test_what_is_added_knows_that_it_waits() -> None:
    """A channel is told that its request waits, whichever queue it is in."""
    places = Places(1)
    for patient in (False, True):
        channel = waiting("a")
        places.add(channel, patient=patient)
        assert cast(Waiting, channel).queued


def test_both_queues_take_turns() -> None:
    """Neither patient requests nor quick ones wait for all of the others, and what is left of one queue follows."""
    places = Places(2)
    for name in "abcd":
        places.add(waiting(name))
    for name in "AB":
        places.add(waiting(name), patient=True)
    assert order(places) in ("AaBbcd", "aAbBcd")


def test_nothing_is_run_without_a_place() -> None:
    """With as many threads busy as there may be, everything waits."""
    places = Places(2)
    places.busy = 2
    places.add(waiting("a"))
    places.add(waiting("A"), patient=True)
    assert places.taken
    assert places.taken_for_patient
    assert order(places) == ""
    places.busy = 1
    assert not places.taken
    assert sorted(order(places)) == ["A", "a"]


def test_the_last_place_is_kept_for_quick_requests() -> None:
    """While quick requests are there, those that are known to wait leave one place to them, unless there is only one."""
    places = Places(2)
    places.quick_at = monotonic() + 1000
    places.busy = 1
    places.add(waiting("A"), patient=True)
    assert places.taken_for_patient
    assert order(places) == ""
    places.add(waiting("a"))
    assert order(places) == "a"
    places.quick_at = monotonic() - 1000
    assert order(places) == "A"
    single = Places(1)
    single.quick_at = monotonic() + 1000
    single.add(waiting("A"), patient=True)
    assert order(single) == "A"


def test_what_nobody_wants_is_taken_out_of_both_queues() -> None:
    """Those that are withdrawn are returned, and the others stay in their order."""
    places = Places(2)
    for name in "abc":
        places.add(waiting(name))
        places.add(waiting(name.upper()), patient=True)
    withdrawn = places.withdraw(lambda channel: cast(Waiting, channel).name in "bB")
    assert sorted(cast(Waiting, channel).name for channel in withdrawn) == ["B", "b"]
    assert len(places) == 4
    assert sorted(order(places)) == ["A", "C", "a", "c"]
