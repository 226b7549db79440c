"""How long a client may make the server wait, by the phase of its connection. Pure: times in, the
name of a setting out.

Only the client's turn is measured: while a request is queued or runs, there is no phase.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..settings.groups.limits import Timeouts

RATE_SECONDS = 5.0
"""How far a client can be ahead of its minimum rate, and how long it may be behind: together a
window of ten seconds.

Mobile clients pause for a few seconds, and a short message may come in bursts.
"""

SPEED_SECONDS = 5.0
"""Seconds over which a client's speed is averaged."""


class Phase(Enum):
    """What the client has to do next."""

    CONNECTED = "send a first request"
    HEAD = "send the rest of a head"
    BODY = "send the rest of a body"
    SENDING = "take the rest of a response"
    FLUSHING = "acknowledge the rest of a response"
    IDLE = "send another request"


class Progress:
    """Compares the speed of a client with a minimum *rate* in bytes a second (0: none). Updated
    every half second.

    This is not an average since the start. A client's credit grows by the bytes that it moves,
    shrinks by *rate* each second, and is at most what RATE_SECONDS cost. The client is too slow
    when it has been in debt for RATE_SECONDS. So a client that moves nearly everything at once, and
    then a byte now and then, is found after about ten seconds.

    A pause alone makes no debt, because pauses have their own timeout; the byte that ends the pause
    does. A message starts in debt if it *owes*.
    """

    __slots__ = ("_behind_since", "_credit", "_rate", "_seen", "began", "bytes", "moved", "speed")

    def __init__(self, now: float, rate: float, *, owes: bool = True) -> None:
        self.began = self.moved = self._seen = now
        self.bytes = 0
        self.speed = 0.0
        """Recent bytes per second."""
        self._rate = rate
        self._credit = 0.0 if owes else rate * RATE_SECONDS
        self._behind_since: float | None = now if owes else None

    def update(self, count: int, now: float, moved: float | None = None) -> None:
        """Record that *count* bytes have been moved so far. *moved* is the time of the client's
        last activity, if known.
        """
        gained = max(count - self.bytes, 0)
        if moved is None:
            moved = now if gained else self.moved
        is_active = gained > 0 or moved > self.moved
        elapsed = now - self._seen
        self.bytes += gained
        self.moved, self._seen = moved, now
        most = self._rate * RATE_SECONDS
        # A pause costs at most the debt of RATE_SECONDS. Else a client could not catch up after a
        # long one.
        self._credit = min(max(self._credit - elapsed * self._rate, -most) + gained, most)
        if self._credit >= self._rate:  # a second ahead: the client has caught up
            self._behind_since = None
        elif self._behind_since is None and is_active and self._credit < 0:
            self._behind_since = now
        span = min(max(now - self.began, elapsed, 0.5), SPEED_SECONDS)
        self.speed = self.speed * max(1 - elapsed / span, 0.0) + gained / max(span, elapsed)

    def is_too_slow(self, now: float) -> bool:
        return self._credit < 0 and self._behind_since is not None and now - self._behind_since > RATE_SECONDS


class Waiting(NamedTuple):
    """The phase of a connection: its start (*began*) and the client's last activity (*moved*), by
    the monotonic clock.

    In phases in which bytes move, *progress* has the client's speed.
    """

    phase: Phase
    began: float
    moved: float
    progress: Progress | None = None


def overdue(waiting: Waiting, limits: Timeouts, now: float) -> str | None:
    """Return the name of the setting that the client has exceeded, or None."""
    phase = waiting.phase
    if phase is Phase.IDLE:
        return "KEEPALIVE_TIMEOUT" if now - waiting.began > limits.keepalive_timeout else None
    if phase in (Phase.CONNECTED, Phase.HEAD):
        # The whole head, so that a byte now and then does not extend it.
        return "HEADER_TIMEOUT" if now - waiting.began > limits.header_timeout else None
    if phase is Phase.BODY:
        timeout, rate, seconds = "BODY_TIMEOUT", "MIN_BODY_RATE", limits.body_timeout
    else:
        timeout, rate, seconds = "SEND_TIMEOUT", "MIN_SEND_RATE", limits.send_timeout
    if now - waiting.moved > seconds:
        return timeout
    return rate if waiting.progress is not None and waiting.progress.is_too_slow(now) else None
