"""What a load has found out about a server, and which part of that the server must answer for.

Rules:

- Every failed request is a problem, and so is every retry, but for what nobody can prevent:
  - A connection that comes between a server's last look at its listener and the moment in which the system closes that is reset by the
    system: where an end is expected, such a connection counts as refused. On Linux only Unix sockets have that moment.
  - A connection that its client has left idle for a second may be closed by a server that stops.
- Who is killed takes along what is inside, and nothing else: see :func:`unexplained`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from serving import PATIENCE

CLOSING_SECONDS = PATIENCE / 400
"""How long before the first refusal a connection to a Unix socket may have been made that is reset with the listener."""

IDLE_SECONDS = 0.9
"""Connections that are idle for a second may be closed by a server that stops, without a word. Clients that pause for so long have been
kept from running themselves.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    client: str
    number: int
    at: float
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What happened *at* that time to request *number*, on a connection *opened* then, which *pid* had answered on before and which had
    been *idle* for so many seconds at most: since its client had asked the last time.
    """

    kind: str
    client: str
    number: int
    opened: float
    at: float
    pid: int | None
    idle: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    answers: int
    answered: Counter[int]
    failures: list[Failure]
    retries: list[Failure]
    refused: Sequence[float] = ()
    closing_seconds: float = 0.0

    @property
    def problems(self) -> list[Failure]:
        """What a server must answer for."""
        closing = min(self.refused, default=math.inf) - self.closing_seconds
        failures = [
            failure
            for failure in self.failures
            if failure.kind != "reset" or failure.pid is not None or failure.opened < closing
        ]
        return [*failures, *(retry for retry in self.retries if retry.idle < IDLE_SECONDS)]


@dataclass(frozen=True, slots=True)
class Death:
    """A process that was ended by force: told so at *told*, and *gone* by then."""

    pid: int
    told: float
    gone: float


def unexplained(result: Result, deaths: list[Death]) -> list[Failure]:
    """The problems in *result* of requests that were not inside one of the processes that died.

    Inside was what was sent on a connection that the process had answered on, or on one that was there when it died and nobody had
    answered on yet; and such a connection ends, it is never refused.
    """
    return [
        problem
        for problem in result.problems
        if problem.kind not in ("reset", "ended")
        or not any(
            problem.at >= death.told
            and (problem.pid == death.pid or (problem.pid is None and problem.opened <= death.gone))
            for death in deaths
        )
    ]
