"""Watches the leader, and takes the lead away if it stays in one request. See ``leadership``.

Each check disturbs the leader: a thread that waits for the GIL is woken whenever the leader
releases it, with every system call, and mostly comes too late. With a check each millisecond, the
server sent a fifth fewer small files. So the steward sleeps until an alarm rings, and the leader
puts the alarm off again and again; it rings only if the leader does not come to that. After a
request that took longer than PATIENCE, each request is watched from its beginning for a while:
requests like it may end just before the alarm rings, or put it off.

No leader is missed, whatever happens between two steps of the two threads. The leader makes its
claim and then sets the alarm, if that is due. After a ring, the steward first makes it due to set
the alarm and then looks for a claim. To set the alarm again never disarms it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ...clock import Deadline, monotonic
from .alarm import Alarm

PATIENCE = 0.001
"""Seconds that a leader may wait inside a request. About the time that a hand-over is worth (and a
fast view takes a tenth of it).
"""

BURNING_PATIENCE = 0.010
"""Seconds that a leader may compute inside a request: under the GIL, a second thread would only
slow it down.
"""

SUSPICION_SECONDS = 0.25
"""How long requests are watched from their beginning after one has taken longer than PATIENCE."""

AT_ONCE = 1e-6
"""Seconds. An alarm that is set to 0 does not ring (timerfd_settime(2))."""

Claim = list[Any]
"""What a leader makes for each request that it runs, with the request in it. The thread that pops
the request has the lead.
"""


class Steward:
    """Watches the leader, and calls *take_over* if it stays in a request.

    *take_over* gets the leader's claim, and True if the leader waits, False if it computes.
    The thread that leads sets ``claim``, and ``clock``, which is the CPU clock of its thread.
    ``patience`` is for how many seconds a leader may compute.
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
        """Have the alarm ring if the leader, which begins the request of *claim*, stays in it.

        Returns the time.
        """
        self.claim = claim
        now = monotonic()
        if now >= self._put_off_at:
            self._put_off_at = now + PATIENCE
            self._alarm.set(AT_ONCE if self._woken or now < self._suspicious_until else 2 * PATIENCE)
        return now

    def suspect(self, now: float) -> None:
        """Watch requests from their beginning for a while: one has taken longer than PATIENCE."""
        self._suspicious_until = now + SUSPICION_SECONDS

    # The steward's thread.

    def turn(self, seconds: float) -> None:
        """Watch for *seconds*, or until :meth:`wake`.

        Ends a little later if the leader has to be watched closely.
        """
        deadline = Deadline(seconds)
        while not self._woken and not deadline.passed():
            if self._alarm.wait(deadline.remaining()):
                self._put_off_at = 0.0
                if self.claim:
                    self._watch_closely()
        self._woken = False

    def close(self) -> None:
        """Close the alarm. There must be no leader any more."""
        self._alarm.close()

    def _watch_closely(self) -> None:
        """Wait for the end of the leader's request, and take over if that takes too long."""
        # In this order: a thread makes its claims after it has become the leader.
        claim, clock = self.claim, self.clock
        try:
            waits = self._waits(claim, clock)
        except OSError:  # the thread has ended, and so has its request
            return
        if waits is not None:
            self.suspect(monotonic())
            self._take_over(claim, waits)

    def _waits(self, claim: Claim, clock: int) -> bool | None:
        """Tell whether the leader waits in the request of *claim*.

        Returns False if it computes for too long, None if it has finished in time.
        """
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
        """End the current turn, or the next one."""
        self._woken = True
        self._alarm.set(AT_ONCE)
