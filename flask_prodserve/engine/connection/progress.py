"""What one client has done, and when: what its connection waits for, its speed, its idle time.

Lives here: the decisions. The connection records facts and passes in what it is doing at the
moment. No socket, no lock, no clock.

The event loop's thread calls the methods. The thread that runs a request also sets ``acknowledged``
when it begins an answer, and ``last_activity`` and ``idle_from`` when its turn ends.
"""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.deadlines import Phase, Progress, Waiting

SILENT_SECONDS = 1.0
"""After this time a silent connection is closed before an idle one: an idle client has sent
requests, a silent one has not.
"""

MEASURED_SECONDS = 1.0
"""How long a client's bytes must have been counted before its speed means anything."""

_EXPENDABLE = -1.0
"""Before all times: a connection whose last response is sent."""


class Snapshot(NamedTuple):
    """What a connection is doing at one moment.

    While it is *running*, what it receives belongs to another thread and is left out.
    """

    running: bool
    lingering: bool
    """Whether its last response is sent and its sending side shut down."""
    answered: int
    """Responses begun so far."""
    unsent: int
    """Bytes of output that the system has not taken."""
    request_began: float | None = None
    """When the request that is being received began; None if there is none."""
    body: Progress | None = None
    """How the body of that request arrives; None if its head is not complete."""
    body_received: int = 0


class _Taking(NamedTuple):
    """How a client takes *response*, by number. *taken_before*: bytes that it had taken by then."""

    response: int
    taken_before: int
    progress: Progress


class ClientProgress:
    """The progress of one client. *min_send_rate* is MIN_SEND_RATE, in bytes a second."""

    __slots__ = ("_min_send_rate", "_taking", "accepted_at", "acknowledged", "idle_from", "last_activity")

    def __init__(self, now: float, min_send_rate: float) -> None:
        self.accepted_at = now
        self.last_activity = now
        """When the client last sent something or took something, or its request ended."""
        self.idle_from = now
        """When it last took something, as far as known, or its request ended."""
        self.acknowledged = True
        """Whether its system has acknowledged all responses."""
        self._min_send_rate = min_send_rate
        self._taking: _Taking | None = None

    @property
    def takes(self) -> bool:
        """Whether something was left for the client to take at the last check."""
        return self._taking is not None

    def must_take(self, snapshot: Snapshot) -> bool:
        """Tell whether something may be left to take, so that :meth:`waiting` needs the counts."""
        return snapshot.unsent > 0 or (not self.acknowledged and _only_flushes(snapshot))

    def waiting(self, snapshot: Snapshot, now: float, *, taken: int = 0, left: int = 0) -> Waiting | None:
        """Return what the client has to do, if it is its turn.

        Progress is measured from call to call, so call it about every half second. *taken*: bytes
        of output that the client has acknowledged. *left*: bytes that only the system has taken.
        """
        if self.must_take(snapshot):
            if snapshot.unsent or left:
                return self._wait_for_taking(snapshot, now, taken)
            self.acknowledged = True
            if self._taking is not None:
                self._taking.progress.moved = now  # at the last check something was left
        if self._taking is not None:
            self.idle_from = self._taking.progress.moved
            self._taking = None
        if snapshot.running or snapshot.lingering:
            return None
        if snapshot.request_began is None:
            return Waiting(Phase.IDLE if snapshot.answered else Phase.CONNECTED, self.idle_from, self.last_activity)
        if snapshot.body is None:
            began = snapshot.request_began if snapshot.answered else self.accepted_at
            return Waiting(Phase.HEAD, began, self.last_activity)
        snapshot.body.update(snapshot.body_received, now, self.last_activity)
        return Waiting(Phase.BODY, snapshot.body.began, self.last_activity, snapshot.body)

    def _wait_for_taking(self, snapshot: Snapshot, now: float, taken: int) -> Waiting:
        flushing = _only_flushes(snapshot)
        taking = self._taking
        if taking is None or (flushing and taking.response != snapshot.answered):
            # The end of a response owes nothing yet: its first packet may be lost.
            progress = Progress(now, self._min_send_rate, owes=not flushing)
            taking = self._taking = _Taking(snapshot.answered, taken, progress)
        progress = taking.progress
        progress.update(taken - taking.taken_before, now)
        return Waiting(Phase.FLUSHING if flushing else Phase.SENDING, progress.began, progress.moved, progress)

    def speed(self, now: float, body: Progress | None) -> float | None:
        """Return bytes a second that the client lately took of a response, or else sent of *body*.

        None if too little is known.
        """
        progress = body if self._taking is None else self._taking.progress
        return None if progress is None or now - progress.began < MEASURED_SECONDS else progress.speed

    def idle_since(self, now: float, *, answered: int, lingering: bool, pending: int) -> float | None:
        """Return since when a connection that is not silent is idle; None while it is in use.

        The lower, the sooner it may be closed. *pending*: requests and responses not complete.
        """
        if lingering:
            return _EXPENDABLE
        if pending or (not answered and now - self.accepted_at < SILENT_SECONDS):
            return None
        return self.idle_from


def _only_flushes(snapshot: Snapshot) -> bool:
    # What the system has taken counts until it is acknowledged, unless the app may be slow.
    return not (snapshot.running or snapshot.unsent or snapshot.request_began is not None)
