"""The places for threads that run requests without the lead, and the two queues for them.

As many are busy as THREADS says, and no more. Requests that are known to keep a thread waiting have a queue of their own: while there are
quick ones as well, the last place is left to those, so that slow requests do not stall them.

Not locked: ``leadership`` does that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..clock import monotonic
from .admission import take_out

if TYPE_CHECKING:
    from .channel import Channel

QUICK_SECONDS = 1.0
"""How long the last place is kept for quick requests after one of them was there."""


class Places:
    """*most* is how many there are. ``quick_at`` is when the last quick request was answered, by the monotonic clock."""

    __slots__ = ("_patient", "_patient_first", "_ready", "busy", "most", "quick_at")

    def __init__(self, most: int) -> None:
        self.most = most
        self.busy = 0
        self.quick_at = -QUICK_SECONDS
        self._ready: deque[Channel] = deque()
        self._patient: deque[Channel] = deque()
        self._patient_first = False

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._ready) + len(self._patient)

    @property
    def taken(self) -> bool:
        """Whether all of them are."""
        return self.busy >= self.most

    @property
    def taken_for_patient(self) -> bool:
        """The same for a request that is known to wait."""
        kept = self.most > 1 and monotonic() - self.quick_at < QUICK_SECONDS
        return self.busy >= self.most - kept

    def add(self, channel: Channel, *, patient: bool = False) -> None:
        """The request of *channel* waits for a place; *patient*: it is known to keep a thread waiting."""
        channel.queue()
        (self._patient if patient else self._ready).append(channel)

    def put_first(self, channel: Channel) -> None:
        """The same, before all others: it has waited already."""
        self._ready.appendleft(channel)

    def next(self) -> Channel | None:
        """What is to be run next, if there is a place for it; of both queues in turns, where both have something."""
        self._patient_first = not self._patient_first
        if self._patient and (self._patient_first or not self._ready) and not self.taken_for_patient:
            return self._patient.popleft()
        if self._ready and not self.taken:
            return self._ready.popleft()
        return None

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        """Take those that wait and of which *unwanted* says so out of the queues."""
        return take_out(self._ready, unwanted) + take_out(self._patient, unwanted)
