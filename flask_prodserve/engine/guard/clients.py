"""What the guard wants to know of a connection's client. Reads facts, changes none but the
progress.
"""

from __future__ import annotations

from ...protocol.deadlines import Waiting
from ..connection.connection import Connection
from ..connection.progress import Snapshot
from ..connection.sender import HIGH_WATERMARK


def waiting(connection: Connection, now: float) -> Waiting | None:
    """Return what the client has to do, if it is its turn.

    Progress is measured from call to call, so call it about every half second.
    """
    running, unsent = connection.running, connection.output.size
    request = None if running else connection.receiver.incoming
    snapshot = Snapshot(
        running,
        connection.lingering is not None,
        connection.answered,
        unsent,
        request.began if request is not None and request.started else None,
        None if request is None else request.body_progress,
        0 if request is None else request.body_received,
    )
    progress = connection.progress
    if not progress.must_take(snapshot):
        return progress.waiting(snapshot, now)
    try:
        left = connection.transport.unacknowledged
    except (OSError, ValueError):  # closed
        return None
    return progress.waiting(snapshot, now, taken=connection.sender.taken_by_system - left, left=left)


def kept(connection: Connection) -> int:
    """Return the bytes that are kept until the client does its part.

    They belong to a response, or to a body that is not complete.
    """
    request = connection.receiver.incoming
    body = 0 if request is None or connection.running else request.body_received
    return connection.output.kept + body


def speed(connection: Connection, now: float) -> float | None:
    """Return the bytes a second at which the client lately took what is kept for it, or sent it.

    None if too little is known.
    """
    request = None if connection.running else connection.receiver.incoming
    return connection.progress.speed(now, None if request is None else request.body_progress)


def holds_thread(connection: Connection) -> bool:
    """Tell whether the running thread waits until the client takes something."""
    return connection.running and connection.output.backlog > HIGH_WATERMARK


def queued_for(connection: Connection, now: float) -> float:
    """Return the seconds that the request has been waiting for a thread or others of its endpoint.

    If it has not waited, the seconds since it arrived.
    """
    queued_at = connection.queued_at
    return now - (connection.progress.last_activity if queued_at is None else queued_at)
