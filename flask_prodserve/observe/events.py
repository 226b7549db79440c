"""Reports about the server's work. They are immutable, because they cross threads.

A report made for every request is a tuple: a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class RequestDone(NamedTuple):
    """A request that was answered, failed, or was refused as malformed.

    Texts are WSGI strings: each character is a byte (latin-1). All but *protocol* may have any
    bytes from the client. A text is ``""`` if it is unknown: *method*, *target* and *protocol* of a
    malformed request; *referer*, *user_agent* and *host* if the field is missing; *remote_addr* of
    a peer on a Unix socket. Behind a trusted proxy, *remote_addr* is the client that the proxy
    named.
    """

    finished_at: float
    """Wall-clock time in seconds since the epoch."""

    remote_addr: str
    method: str

    target: str
    """The request target as sent, with the query."""

    protocol: str
    """``HTTP/1.1``"""

    status: int

    response_bytes: int
    """Bytes of the body, without the framing."""

    referer: str
    user_agent: str
    host: str

    app_seconds: float
    """Time inside the app: the call, and the iteration over what it returned."""

    total_seconds: float
    """Time from the first byte of the request until the last byte of the response was passed on for
    sending.
    """


@dataclass(frozen=True, slots=True)
class Activity:
    """A snapshot of the work in one process."""

    served: int
    """Requests that got a response so far, from the app or from the server itself; counted when it
    starts.
    """

    connections: int
    """Open connections, including idle ones."""

    busy: int
    """Requests inside the app, without stuck ones."""

    queued: int
    """Requests that wait for a thread, or for other requests of their endpoint."""

    stuck: int
    """Threads in stuck requests."""

    healthy: bool
    """Whether the process should continue; False if too many threads are stuck."""


@dataclass(frozen=True, slots=True)
class Drained:
    """How a process stopped serving.

    Counts requests since the stop began: *finished* ones, those *cut* at the deadline, and those
    *left* by their clients before the response was complete.
    """

    finished: int
    cut: int
    left: int = 0
