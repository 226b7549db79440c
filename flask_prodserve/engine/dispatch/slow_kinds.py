"""What is known of requests that keep a thread waiting, so that the lead is passed on before the next of their kind."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

FIRST_TRIAL = 16
"""Requests of a kind that are handed over before one is tried without. Doubled with each that fails, up to LAST_TRIAL."""

LAST_TRIAL = 1024

MOST_KINDS = 512
"""Kinds that are kept; the one that was added first goes first."""


class SlowKinds:
    """A bounded set of kinds of request, for any thread. While it is empty, as for an app of quick views, asking costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trials: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._trials)

    def __contains__(self, kind: Hashable) -> bool:
        return kind in self._trials

    def is_due(self, kind: Hashable) -> bool:
        """Whether this request of *kind* should show if the kind still waits."""
        with self._lock:
            left, interval = self._trials.get(kind, (0, FIRST_TRIAL))
            if left > 0:
                self._trials[kind] = left - 1, interval
            return left == 0

    def add(self, kind: Hashable) -> None:
        """A request of *kind* has kept the leader waiting."""
        with self._lock:
            _, interval = self._trials.get(kind, (0, FIRST_TRIAL // 2))
            interval = min(interval * 2, LAST_TRIAL)
            self._trials[kind] = interval, interval
            if len(self._trials) > MOST_KINDS:
                self._trials.popitem(last=False)

    def forget(self, kind: Hashable) -> None:
        """A request of *kind* has not kept the leader waiting."""
        with self._lock:
            self._trials.pop(kind, None)
