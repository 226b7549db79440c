"""Connections that were cut, and requests that were shed: counted by reason, and logged once per reason and minute."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from ..clock import Clock, monotonic

logger = logging.getLogger("flask_prodserve.cuts")

QUIET_SECONDS = 60.0
"""How long nothing more is logged of a reason."""


class Cuts:
    """May be used by any thread. A reason is the name of the setting that was applied."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}
        self.counts: Counter[str] = Counter()

    def count(self, reason: str, what: str, level: int = logging.WARNING) -> None:
        """Count one more for *reason*; *what* says what happened, and what to do about it."""
        now = self._clock()
        with self._lock:
            self.counts[reason] += 1
            count = self.counts[reason]
            at, logged = self._logged.get(reason, (None, 0))
            if at is not None and now - at < QUIET_SECONDS:
                return
            self._logged[reason] = now, count
        more = count - logged - 1
        logger.log(level, "%s: %s%s", reason, what, f" ({more} more since the last such line)" if more else "")
