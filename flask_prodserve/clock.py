"""Time, as the server sees it: one monotonic clock that tests replace, and deadlines on it.

A number of seconds is turned into a :class:`Deadline` once, where the waiting begins, and the deadline is what is passed on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

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


class Throttle:
    """Lets an event of each kind through once in *seconds*: for log lines that a client can cause. May be used by any thread.

    It keeps every kind, so the caller bounds how many there are.
    """

    def __init__(self, seconds: float, clock: Clock = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def passes(self, kind: Hashable) -> int | None:
        """How many events of *kind* were held back since the last one that passed; None if this one is held back, too."""
        now = self._clock()
        with self._lock:
            at, held_back = self._kinds.get(kind, (None, 0))
            if at is not None and now - at < self._seconds:
                self._kinds[kind] = at, held_back + 1
                return None
            self._kinds[kind] = now, 0
        return held_back
