"""Watches the leader (see ``leadership``), and has the lead taken from one that stays in a request.

Each look disturbs the leader: a thread that wants the GIL is woken each time the leader lets go of it, with every system call, and mostly
comes too late. With a look each millisecond, the server sent a fifth fewer small files. So the steward looks that often only while there
is reason to: after a rest, and when a request has taken as long as that.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..clock import Deadline, monotonic

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead

PATIENCE = 0.001
"""Seconds that a leader may wait inside a request. About the time that a hand-over is worth (and a quick view takes a tenth of it)."""

BURNING_PATIENCE = 0.010
"""Seconds that a leader may compute inside a request: under the GIL, a second thread would only slow it down. And how often the steward
looks where it suspects nothing, which is how long the first request that waits may hold up others.
"""

SUSPICION_SECONDS = 0.25
"""How long it looks closely after a request that took longer than PATIENCE."""

SLEEPLESS_LOOKS = 20
"""How often it looks in vain before it lies down: waking it costs more than looking."""

Claim = list["RequestHead | None"]
"""What a leader makes for each request that it runs, with its head in it. Who takes that out, in one ``pop``, has the lead from then on."""


class Steward:
    """*take_over* is called with the claim of a leader that has lost its right to it, and whether it waits, and does not compute.

    *claim* is that of the leader, and *clock* the CPU clock of its thread: changed by whoever leads. *patience* is for how many seconds a
    leader may compute, and how often it is looked at where nothing is suspected.
    """

    def __init__(self, take_over: Callable[[Claim, bool], object]) -> None:
        self.claim: Claim = []
        self.clock = 0
        self.patience = BURNING_PATIENCE if getattr(sys, "_is_gil_enabled", lambda: True)() else PATIENCE
        self._take_over = take_over
        self._claimed_at = 0.0
        self.suspect(monotonic())
        self._bed = threading.Lock()
        self._bed.acquire()
        self._lies = False
        self._woken = False

    # The leader.

    def watch(self, claim: Claim) -> float:
        """The leader begins with the request of *claim*. Returns the time."""
        now = self._claimed_at = monotonic()
        self.claim = claim
        if self._lies:
            self._rouse()
        return now

    def suspect(self, now: float) -> None:
        """Look closely for a while: a request has taken longer than PATIENCE, or nothing is known of what comes."""
        self._suspicious_until = now + SUSPICION_SECONDS

    # The steward's thread.

    def turn(self, seconds: float) -> None:
        """Watch for *seconds*, or until :meth:`wake`."""
        deadline = Deadline(seconds)
        vain = 0
        while not self._woken and not deadline.passed():
            now = monotonic()
            suspicious = now < self._suspicious_until
            if self.claim and (suspicious or now - self._claimed_at > PATIENCE):
                vain = 0
                self._watch_closely()
            elif vain < SLEEPLESS_LOOKS:
                vain = 0 if self.claim else vain + 1
                self._bed.acquire(timeout=PATIENCE if suspicious else self.patience)
            else:
                self._lie_down(deadline)
                vain = 0
        self._woken = False

    def _watch_closely(self) -> None:
        """Wait for the end of the request that the leader is in; if that takes too long, take over."""
        claim, clock = self.claim, self.clock  # in this order: a leader makes its claims after it has become that
        began, computed_before = monotonic(), time.clock_gettime(clock)
        while not self._woken:
            time.sleep(PATIENCE)
            if not claim:
                return
            now = monotonic()
            waits = time.clock_gettime(clock) - computed_before < (now - began) / 2
            if waits or now - began > self.patience:
                self.suspect(now)
                self._take_over(claim, waits)
                return

    def _lie_down(self, deadline: Deadline) -> None:
        """Rest until there is something to watch. A claim that is made in this very moment is seen when the turn ends, and no later."""
        self._lies = True
        if not self.claim and not self._woken:
            self._bed.acquire(timeout=deadline.remaining())
        self._lies = False
        self.suspect(monotonic())

    # Any thread, and signal handlers.

    def wake(self) -> None:
        """End the turn."""
        self._woken = True
        self._rouse()

    def _rouse(self) -> None:
        with contextlib.suppress(RuntimeError):  # awake already
            self._bed.release()
