"""What is reported of the work that the server does. Immutable: an event crosses threads and is read by whoever is told of it.

What is made for every request is a tuple, since a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class RequestDone(NamedTuple):
    """A request that has been answered, or has failed, or was refused as malformed.

    Text is as WSGI has it: each character is a byte (latin-1), and all of it but *protocol* may be whatever the client sent. ``""`` is
    what there was not: *method*, *target* and *protocol* of a malformed request; *referer*, *user_agent* and *host* where the field
    is missing; *remote_addr* of a peer on a Unix socket. Behind a trusted proxy *remote_addr* is the client that the proxy named.
    """

    finished_at: float
    """Wall-clock time, in seconds since the epoch."""

    remote_addr: str
    method: str

    target: str
    """The request target as it was sent, with the query."""

    protocol: str
    """``HTTP/1.1``"""

    status: int

    response_bytes: int
    """Of the body, without the framing."""

    referer: str
    user_agent: str
    host: str

    app_seconds: float
    """Time inside the app: the call, and the iteration over what it returned."""

    total_seconds: float
    """From the first byte of the request to the last byte of the response that was handed on to be sent."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What goes on in one process at a moment."""

    served: int
    """Requests whose answer has begun since the start, whoever answers them: the app, or the server by itself."""

    connections: int
    """That are open, also those that are idle."""

    busy: int
    """Requests inside the app, without those that were given up."""

    queued: int
    """Requests that wait for a thread, or for others of their endpoint."""

    stuck: int
    """Threads in requests that were given up."""

    healthy: bool
    """Whether the process should go on; if not, too many threads are stuck."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How a process stopped serving.

    Counts requests since the stop began: *finished* ones, those *cut* at the deadline, and those *left* by their clients before the
    response was complete.
    """

    finished: int
    cut: int
    left: int = 0
