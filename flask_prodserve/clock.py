"""One monotonic clock, which tests replace, and deadlines on it.

A number of seconds becomes a :class:`Deadline` once, where the wait starts. The deadline is passed
on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

Clock = Callable[[], float]
"""Returns seconds that never decrease; only differences are meaningful."""

monotonic: Clock = time.monotonic


class Deadline:
    """The point in time at which something is cut off."""

    __slots__ = ("_at", "_clock")

    def __init__(self, seconds: float, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def remaining(self) -> float:
        """Return the remaining seconds, never negative."""
        return max(0.0, self._at - self._clock())

    def passed(self) -> bool:
        return self._clock() >= self._at


class Throttle:
    """Passes one event of each kind per *seconds*: for log lines that a client can cause. May be
    used by any thread.

    It remembers every kind, so the caller must limit their number.
    """

    def __init__(self, seconds: float, clock: Clock = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def passes(self, kind: Hashable) -> int | None:
        """Return how many events of *kind* were held back since the last one passed, or None if
        this one is held back.
        """
        now = self._clock()
        with self._lock:
            at, held_back = self._kinds.get(kind, (None, 0))
            if at is not None and now - at < self._seconds:
                self._kinds[kind] = at, held_back + 1
                return None
            self._kinds[kind] = now, 0
        return held_back
