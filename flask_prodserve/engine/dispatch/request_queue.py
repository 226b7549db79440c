"""What runs next: the requests that wait for a slot.

Requests that are known to keep a thread waiting have a queue of their own, the *slow* queue. While
fast requests arrive as well, the last free slot is kept for those, so that slow requests do not
stall them.

Not locked: :class:`~.dispatcher.Dispatcher` changes it under its lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...clock import monotonic
from ..connection.connection import Connection
from .admission import take_out
from .thread_budget import ThreadBudget

FAST_SECONDS = 1.0
"""How long the last slot is kept for fast requests after one of them was answered."""


class RequestQueue:
    """The ready queue and the slow queue.

    *budget* has the slots. ``fast_at``: when the leader last answered a fast request (monotonic).
    """

    __slots__ = ("_budget", "_ready", "_slow", "_slow_first", "fast_at")

    def __init__(self, budget: ThreadBudget) -> None:
        self._budget = budget
        self.fast_at = -FAST_SECONDS
        self._ready: deque[Connection] = deque()
        self._slow: deque[Connection] = deque()
        self._slow_first = False

    def __len__(self) -> int:
        return len(self._ready) + len(self._slow)

    def slow_must_wait(self, *, held: bool = False) -> bool:
        """Tell whether there is no slot for a slow request.

        *held*: the caller's own slot is free for it.
        """
        budget = self._budget
        kept = budget.threads > 1 and monotonic() - self.fast_at < FAST_SECONDS
        return budget.busy - held >= budget.threads - kept

    def add(self, connection: Connection, *, slow: bool = False) -> None:
        """Append the request of *connection*.

        *slow*: requests of its kind are known to keep a thread waiting.
        """
        connection.queue()
        (self._slow if slow else self._ready).append(connection)

    def put_first(self, connection: Connection) -> None:
        """Put the request of *connection* before all others: it has waited elsewhere."""
        self._ready.appendleft(connection)

    def next(self, *, held: bool = False) -> Connection | None:
        """Remove and return the request to run next, if there is a slot for one.

        *held*: the caller passes its own slot on. The two queues take turns.
        """
        self._slow_first = not self._slow_first
        if self._slow and (self._slow_first or not self._ready) and not self.slow_must_wait(held=held):
            return self._slow.popleft()
        if self._ready and self._budget.busy - held < self._budget.threads:
            return self._ready.popleft()
        return None

    def withdraw(self, unwanted: Callable[[Connection], bool]) -> list[Connection]:
        """Remove and return the requests for which *unwanted* is true."""
        return take_out(self._ready, unwanted) + take_out(self._slow, unwanted)
