"""How long a client may make the server wait, by the phase that its connection is in. Pure: times go in, the name of a setting comes out.

Only time in which it is the client's turn is measured: while a request is queued or runs there is no phase.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..settings.table import Timeouts

RATE_SECONDS = 5.0
"""How long a phase goes on before its rate is looked at: a short message may come in bursts."""


class Phase(Enum):
    """What the client is to do next."""

    CONNECTED = "send a first request"
    HEAD = "send the rest of a head"
    BODY = "send the rest of a body"
    SENDING = "take the rest of a response"
    FLUSHING = "acknowledge the rest of a response"
    IDLE = "send another request"


class Waiting(NamedTuple):
    """What a connection waits for: since when (*began*), when its client last did something (*moved*), and how many *bytes* it has moved
    in this phase. Times by the monotonic clock.
    """

    phase: Phase
    began: float
    moved: float
    bytes: int

    def rate(self, now: float) -> float:
        """Bytes a second."""
        return self.bytes / max(now - self.began, 0.001)


def overdue(waiting: Waiting, limits: Timeouts, now: float) -> str | None:
    """The setting that the client has gone beyond, if it has."""
    phase = waiting.phase
    if phase is Phase.IDLE:
        return "KEEPALIVE_TIMEOUT" if now - waiting.began > limits.keepalive_timeout else None
    if phase in (Phase.CONNECTED, Phase.HEAD):
        # The whole head, so that a byte now and then does not extend it.
        return "HEADER_TIMEOUT" if now - waiting.began > limits.header_timeout else None
    if phase is Phase.FLUSHING:
        # No rate: it is the last of it, and may be a packet that was lost.
        return "SEND_TIMEOUT" if now - waiting.moved > limits.send_timeout else None
    if phase is Phase.BODY:
        timeout, rate = "BODY_TIMEOUT", "MIN_BODY_RATE"
        seconds, bytes_a_second = limits.body_timeout, limits.min_body_rate
    else:
        timeout, rate = "SEND_TIMEOUT", "MIN_SEND_RATE"
        seconds, bytes_a_second = limits.send_timeout, limits.min_send_rate
    if now - waiting.moved > seconds:
        return timeout
    return rate if now - waiting.began > RATE_SECONDS and waiting.rate(now) < bytes_a_second else None
