"""Watches the leader (see ``leadership``), and has the lead taken from one that stays in a request.

Each look disturbs the leader: a thread that wants the GIL is woken each time the leader lets go of it, with every system call, and mostly
comes too late. With a look each millisecond, the server sent a fifth fewer small files. So the steward sleeps, and the leader puts off its
alarm again and again: it rings where a leader does not come to that. Only while there is reason to is each request looked at from its
beginning on: after one that has taken longer than PATIENCE. Others like it may end just before the alarm rings, or put it off.

No leader is overlooked, whatever happens between two steps of one of the two. It makes its claim and then sets the alarm, if that is due;
the steward, when that has rung, makes it due and then looks for a claim. And who sets the alarm anew never has it not ring.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...clock import Deadline, monotonic
from .alarm import Alarm

if TYPE_CHECKING:
    from ...protocol.request_head import RequestHead

PATIENCE = 0.001
"""Seconds that a leader may wait inside a request. About the time that a hand-over is worth (and a quick view takes a tenth of it)."""

BURNING_PATIENCE = 0.010
"""Seconds that a leader may compute inside a request: under the GIL, a second thread would only slow it down."""

SUSPICION_SECONDS = 0.25
"""How long there is reason to after such a request."""

AT_ONCE = 1e-6
"""Seconds: an alarm that is set to none does not ring (timerfd_settime(2))."""

Claim = list["RequestHead | None"]
"""What a leader makes for each request that it runs, with its head in it. Who takes that out, in one ``pop``, has the lead from then on."""


class Steward:
    """*take_over* is called with the claim of a leader that has lost its right to it, and whether it waits, and does not compute.

    *claim* is that of the leader, and *clock* the CPU clock of its thread: changed by whoever leads. *patience* is for how many seconds a
    leader may compute.
    """

    def __init__(self, take_over: Callable[[Claim, bool], object]) -> None:
        self.claim: Claim = []
        self.clock = 0
        self.patience = BURNING_PATIENCE if getattr(sys, "_is_gil_enabled", lambda: True)() else PATIENCE
        self._take_over = take_over
        self._alarm = Alarm()
        self._put_off_at = 0.0
        self._suspicious_until = 0.0
        self._woken = False

    # The leader.

    def watch(self, claim: Claim) -> float:
        """The leader begins with the request of *claim*; if it stays in there, the alarm rings. Returns the time."""
        self.claim = claim
        now = monotonic()
        if now >= self._put_off_at:
            self._put_off_at = now + PATIENCE
            self._alarm.set(AT_ONCE if self._woken or now < self._suspicious_until else 2 * PATIENCE)
        return now

    def suspect(self, now: float) -> None:
        """Look closely for a while: a request has taken longer than PATIENCE."""
        self._suspicious_until = now + SUSPICION_SECONDS

    # The steward's thread.

    def turn(self, seconds: float) -> None:
        """Watch for *seconds*, or until :meth:`wake`. Ends a little later where somebody has to be watched closely."""
        deadline = Deadline(seconds)
        while not self._woken and not deadline.passed():
            if self._alarm.wait(deadline.remaining()):
                self._put_off_at = 0.0
                if self.claim:
                    self._watch_closely()
        self._woken = False

    def close(self) -> None:
        """There is no leader any more, nor will there be."""
        self._alarm.close()

    def _watch_closely(self) -> None:
        """Wait for the end of the request that the leader is in; if that takes too long, take over."""
        claim, clock = self.claim, self.clock  # in this order: a leader makes its claims after it has become that
        try:
            waits = self._waits(claim, clock)
        except OSError:  # the thread has ended, so that its request has, too
            return
        if waits is not None:
            self.suspect(monotonic())
            self._take_over(claim, waits)

    def _waits(self, claim: Claim, clock: int) -> bool | None:
        """Whether the leader waits in the request of *claim*; False where it computes, for too long; None where it has finished in time."""
        began, computed_before = monotonic(), time.clock_gettime(clock)
        while True:
            time.sleep(PATIENCE)
            if not claim:
                return None
            now = monotonic()
            waits = time.clock_gettime(clock) - computed_before < (now - began) / 2
            if waits or now - began > self.patience:
                return waits

    # Any thread, and signal handlers.

    def wake(self) -> None:
        """End the turn."""
        self._woken = True
        self._alarm.set(AT_ONCE)
