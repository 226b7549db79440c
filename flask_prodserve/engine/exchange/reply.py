"""What the server answers by itself instead of the app: refusals, redirects and health checks."""

from __future__ import annotations

from typing import NamedTuple

RETRY_AFTER_SECONDS = 5
"""Sent as Retry-After with a 503."""


class Reply(NamedTuple):
    """*text* is for people and repeats nothing that a client sent. *closes*: the connection ends
    with this reply.
    """

    status: int
    text: str
    closes: bool = True
    retry_after: int | None = None
    """Seconds after which to try again."""
    location: str | None = None
    """The URL at which to try again."""


SPOOL_FULL = Reply(503, "The server keeps too much for other clients.", retry_after=RETRY_AFTER_SECONDS)
