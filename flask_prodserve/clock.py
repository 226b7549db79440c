"""Time, as the server sees it: one monotonic clock that tests replace, and deadlines on it.

A number of seconds is turned into a :class:`Deadline` once, where the waiting begins, and the deadline is what is passed on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds that never go back; only differences mean anything."""

monotonic: Clock = time.monotonic


class Deadline:
    """A point in time at which something is cut off."""

    __slots__ = ("_at", "_clock")

    def __init__(self, seconds: float, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def remaining(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self._at - self._clock())

    def passed(self) -> bool:
        return self._clock() >= self._at
