"""When the steward looks at the leader, and what it makes of what it sees."""

from __future__ import annotations

import threading
import time

import pytest

from flask_prodserve.engine import steward as module
from flask_prodserve.engine.steward import PATIENCE, SUSPICION_SECONDS, Claim, Steward
from serving import PATIENCE as TEST_PATIENCE
from serving import ManualClock, wait_until

pytestmark = pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="there is no such loop here")


class Watching(Steward):
    """A steward to whom the test's clock tells the time. With each look a new request begins, which is over at the next."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(lambda claim, waits: None)
        self.rests: list[float] = []
        """How long it has rested between looks, in seconds."""
        self.close_looks = 0
        self._clock = clock
        self._bed = self  # type: ignore[assignment]  # all that a steward needs of a lock is here
        self._most = 0

    def acquire(self, timeout: float) -> bool:
        self.rests.append(timeout)
        self._clock.advance(timeout)
        self.watch([None])
        self._woken = len(self.rests) == self._most
        return False

    def _watch_closely(self) -> None:
        self.close_looks += 1
        self._clock.advance(PATIENCE)
        self.claim.clear()

    def look(self, times: int) -> None:
        self.rests, self.close_looks, self._most = [], 0, times
        self.turn(TEST_PATIENCE)


def test_it_looks_closely_only_with_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each millisecond at the start and after a request that took longer; less often, and only in passing, while all are quick."""
    clock = ManualClock()
    monkeypatch.setattr(module, "monotonic", clock)
    steward = Watching(clock)
    steward.patience = 0.010  # also on a Python without the GIL
    for _ in range(2):
        steward.look(10)
        assert steward.rests == [PATIENCE] * 10
        assert steward.close_looks >= 9
        clock.advance(SUSPICION_SECONDS)
        steward.look(10)
        assert steward.rests == [steward.patience] * 10
        assert steward.close_looks <= 1
        steward.suspect(clock())


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "computes"])
def test_it_takes_over(waits: bool) -> None:
    """From a request that began while nothing was suspected: whether that one waits or computes; and it is suspicious from then on."""
    taken: list[tuple[Claim, bool]] = []
    stop = threading.Event()

    def take_over(claim: Claim, waits: bool) -> None:
        taken.append((claim, waits))
        stop.set()
        steward.wake()

    steward = Steward(take_over)
    steward._suspicious_until = 0.0
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
        assert taken[0][1], "it is taken for one that computes"
    assert steward._suspicious_until > 0


def test_it_lies_down_and_is_roused() -> None:
    """Where nothing happens it rests until a leader begins with a request, or somebody wakes it."""
    steward = Steward(lambda claim, waits: steward.wake())
    steward._suspicious_until = 0.0
    for rouse in (lambda: steward.watch([None]), steward.wake):
        thread = threading.Thread(target=steward.turn, args=[TEST_PATIENCE])
        steward.clock = time.pthread_getcpuclockid(threading.get_ident())
        steward.claim = []
        thread.start()
        wait_until(lambda: steward._lies, "it to lie down")
        rouse()
        thread.join(TEST_PATIENCE)
        assert not thread.is_alive()
