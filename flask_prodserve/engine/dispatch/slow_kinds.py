"""The kinds of request that keep a thread waiting. The leader hands the lead over before one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

FIRST_TRIAL = 16
"""Requests of a kind that are handed over before the leader tries one. Doubled with each trial that
fails, up to LAST_TRIAL.
"""

LAST_TRIAL = 1024

MOST_KINDS = 512
"""How many kinds are kept; the oldest goes first."""


class SlowKinds:
    """A bounded set.

    For any thread. While it is empty, as for an app of fast views, a look-up costs nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trials: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._trials)

    def __contains__(self, kind: Hashable) -> bool:
        return kind in self._trials

    def is_due(self, kind: Hashable) -> bool:
        """Tell whether the leader should try this request of *kind*. Counts the request."""
        with self._lock:
            left, interval = self._trials.get(kind, (0, FIRST_TRIAL))
            if left > 0:
                self._trials[kind] = left - 1, interval
            return left == 0

    def add(self, kind: Hashable) -> None:
        """Note that a request of *kind* has kept the leader waiting."""
        with self._lock:
            _, interval = self._trials.get(kind, (0, FIRST_TRIAL // 2))
            interval = min(interval * 2, LAST_TRIAL)
            self._trials[kind] = interval, interval
            if len(self._trials) > MOST_KINDS:
                self._trials.popitem(last=False)

    def forget(self, kind: Hashable) -> None:
        """Note that a request of *kind* has not kept the leader waiting."""
        with self._lock:
            self._trials.pop(kind, None)
