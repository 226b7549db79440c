"""Counts what was cut or rejected at a limit, by reason, and logs it once per reason and minute."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from ..clock import Clock, Throttle, monotonic

logger = logging.getLogger("flask_prodserve.limits")

QUIET_SECONDS = 60.0
"""Minimum time between two log lines for one reason."""


class LimitEvents:
    """Counts events by reason, usually the name of a setting. May be used by any thread."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._lock = threading.Lock()
        self._throttle = Throttle(QUIET_SECONDS, clock)
        self.counts: Counter[str] = Counter()

    def count(self, reason: str, what: str, level: int = logging.WARNING) -> None:
        """Count one event for *reason*; *what* says what happened and what to do about it."""
        with self._lock:
            self.counts[reason] += 1
        more = self._throttle.passes(reason)
        if more is None:
            return
        logger.log(level, "%s: %s%s", reason, what, f" ({more} more since the last such line)" if more else "")
