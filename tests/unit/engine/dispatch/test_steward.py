"""When the steward watches the leader, and when it takes the lead away."""

from __future__ import annotations

import random
import threading
import time

import pytest

from flask_prodserve.engine.dispatch import steward as module
from flask_prodserve.engine.dispatch.alarm import Alarm
from flask_prodserve.engine.dispatch.steward import AT_ONCE, PATIENCE, SUSPICION_SECONDS, Claim, Steward
from serving import PATIENCE as TEST_PATIENCE
from serving import ManualClock, wait_until

pytestmark = pytest.mark.skipif(not Alarm.available(), reason="there is no such loop here")


class AlarmByTheClock:
    """Rings by the clock of the test, and counts how often it was set."""

    def __init__(self, clock: ManualClock) -> None:
        self.times = 0
        self._clock = clock
        self._at = float("inf")

    def set(self, seconds: float) -> None:
        self.times += 1
        self._at = self._clock() + seconds

    @property
    def rings(self) -> bool:
        return self._clock() >= self._at


@pytest.mark.parametrize("request_seconds", [PATIENCE / 100, PATIENCE * 0.9])
def test_only_a_leader_that_stays_in_a_request_is_watched(
    request_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader with one fast request after the other puts the alarm off, now and then; one that stays in a request does not."""
    clock = ManualClock()
    monkeypatch.setattr(module, "monotonic", clock)
    steward = Steward(lambda claim, waits: None)
    alarm = steward._alarm = AlarmByTheClock(clock)  # type: ignore[assignment]  # all that watch() needs
    began = clock()
    for _ in range(1000):
        steward.watch([None])
        clock.advance(request_seconds)
        assert not alarm.rings
    assert alarm.times <= (clock() - began) / PATIENCE + 1, "each time costs a system call"
    steward.watch([None])
    clock.advance(2 * PATIENCE + 1e-9)
    assert alarm.rings, "a leader that stays in a request is not watched"


def test_it_is_suspicious_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a request that took longer than PATIENCE, each is watched from its beginning: others like it would put the alarm off."""
    clock = ManualClock()
    monkeypatch.setattr(module, "monotonic", clock)
    steward = Steward(lambda claim, waits: None)
    alarm = steward._alarm = AlarmByTheClock(clock)  # type: ignore[assignment]  # all that watch() needs
    steward.suspect(clock())
    for seconds, at_once in ((SUSPICION_SECONDS - PATIENCE, True), (2 * PATIENCE, False)):
        clock.advance(seconds)
        steward.watch([None])
        clock.advance(AT_ONCE)
        assert alarm.rings is at_once


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "computes"])
def test_it_takes_over(waits: bool) -> None:
    """The steward takes over from a leader that stays in a request, whether it waits or computes."""
    taken: list[tuple[Claim, bool]] = []
    stop = threading.Event()

    def take_over(claim: Claim, waits: bool) -> None:
        taken.append((claim, waits))
        stop.set()
        steward.wake()

    steward = Steward(take_over)
    claim: Claim = [None]

    def lead() -> None:
        steward.clock = time.pthread_getcpuclockid(threading.get_ident())
        steward.watch(claim)
        while not stop.wait(TEST_PATIENCE if waits else 0):
            pass

    leader = threading.Thread(target=lead)
    leader.start()
    steward.turn(TEST_PATIENCE)
    leader.join(TEST_PATIENCE)
    assert [one is claim for one, _ in taken] == [True]
    if waits:
        assert taken[0][1], "the steward mistook it for one that computes"
    assert steward._suspicious_until > 0


@pytest.mark.parametrize("interrupted", [True, False], ids=["interrupted", "alone"])
def test_no_leader_is_missed(interrupted: bool) -> None:
    """A leader that stays in a request loses the lead, whatever it was doing before, also if turns are ended meanwhile."""
    chance = random.Random(20261122)
    taken, over = threading.Semaphore(0), threading.Event()
    steward = Steward(lambda claim, waits: taken.release())
    missed: list[int] = []

    def lead() -> None:
        steward.clock = time.pthread_getcpuclockid(threading.get_ident())
        for number in range(300):
            for _ in range(chance.randrange(4)):
                claim: Claim = [None]
                steward.watch(claim)
                time.sleep(chance.random() * PATIENCE)
                claim.clear()
            taken.acquire(blocking=False)  # such a one has taken its time, too
            steward.watch([None])
            if not taken.acquire(timeout=TEST_PATIENCE):
                missed.append(number)
                break
            steward.claim = []
        over.set()
        steward.wake()

    def interrupt() -> None:
        while not over.wait(chance.random() * 2 * PATIENCE):
            steward.wake()

    threads = [threading.Thread(target=function) for function in ((lead, interrupt) if interrupted else (lead,))]
    for thread in threads:
        thread.start()
    while not over.is_set():
        steward.turn(TEST_PATIENCE)
    for thread in threads:
        thread.join()
    assert not missed


def test_thread_that_has_ended() -> None:
    """A leader whose thread has ended is ignored: its clock cannot be read any more."""
    steward = Steward(lambda claim, waits: None)

    def lead() -> None:
        steward.clock = time.pthread_getcpuclockid(threading.get_ident())

    leader = threading.Thread(target=lead)
    leader.start()
    leader.join()
    wait_until(lambda: clock_is_gone(steward.clock), "the system to forget the thread")
    steward.watch([None])
    threading.Timer(10 * PATIENCE, steward.wake).start()
    steward.turn(TEST_PATIENCE)


def clock_is_gone(clock: int) -> bool:
    try:
        time.clock_gettime(clock)
    except OSError:
        return True
    return False


def test_wake_ends_the_turn() -> None:
    """wake() ends the current turn, or the next one, and a leader that goes on with requests does not put that off."""
    stop = threading.Event()
    steward = Steward(lambda claim, waits: None)
    steward.wake()
    steward.turn(TEST_PATIENCE)

    def lead() -> None:
        while not stop.is_set():
            steward.watch([])

    leader = threading.Thread(target=lead)
    leader.start()
    try:
        for _ in range(100):
            turn = threading.Thread(target=steward.turn, args=[2 * TEST_PATIENCE])
            turn.start()
            steward.wake()
            turn.join(TEST_PATIENCE)
            assert not turn.is_alive()
    finally:
        stop.set()
        leader.join(TEST_PATIENCE)
