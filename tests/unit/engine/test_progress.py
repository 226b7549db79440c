"""What a connection waits for, how fast its client is, and since when it is idle."""

from __future__ import annotations

import pytest

from flask_prodserve.engine.connection.progress import MEASURED_SECONDS, SILENT_SECONDS, ClientProgress, Snapshot
from flask_prodserve.protocol.deadlines import RATE_SECONDS, Phase, Progress, Waiting
from serving import ManualClock

RATE = 100
NEW = Snapshot(running=False, lingering=False, answered=0, unsent=0)
USED = NEW._replace(answered=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(clock: ManualClock) -> ClientProgress:
    return ClientProgress(clock(), RATE)


def end_turn(client: ClientProgress, now: float) -> None:
    """Do what a connection does when a response has been handed to the system."""
    client.acknowledged = False
    client.last_activity = client.idle_from = now


def check(client: ClientProgress, snapshot: Snapshot, now: float, *, taken: int, left: int) -> Waiting:
    assert client.must_take(snapshot)
    waiting = client.waiting(snapshot, now, taken=taken, left=left)
    assert waiting is not None
    return waiting


def test_new_connection(client: ClientProgress, clock: ManualClock) -> None:
    """A new connection waits for its first request since it was accepted."""
    clock.advance(5)
    assert not client.must_take(NEW)
    assert client.waiting(NEW, clock()) == Waiting(Phase.CONNECTED, 1000.0, 1000.0)


def test_first_head(client: ClientProgress, clock: ManualClock) -> None:
    """The first head is counted from accept, and not from its first byte."""
    clock.advance(5)
    client.last_activity = clock()
    assert client.waiting(NEW._replace(request_began=clock()), clock()) == Waiting(Phase.HEAD, 1000.0, 1005.0)


def test_later_head(client: ClientProgress, clock: ManualClock) -> None:
    """The head of a later request is counted from its first byte."""
    clock.advance(5)
    client.last_activity = clock()
    assert client.waiting(USED._replace(request_began=1003.0), clock()) == Waiting(Phase.HEAD, 1003.0, 1005.0)


def test_body(client: ClientProgress, clock: ManualClock) -> None:
    """A body is counted from the end of its head, and each check adds what has arrived."""
    body = Progress(clock(), RATE)
    clock.advance(2)
    client.last_activity = clock()
    snapshot = NEW._replace(request_began=1000.0, body=body, body_received=500)
    assert client.waiting(snapshot, clock()) == Waiting(Phase.BODY, 1000.0, 1002.0, body)
    assert (body.bytes, body.moved) == (500, 1002.0)


@pytest.mark.parametrize("state", [{"running": True}, {"lingering": True}])
def test_turn_of_the_server(client: ClientProgress, clock: ManualClock, state: dict[str, bool]) -> None:
    """While a request runs, and after the last response, the connection waits for nothing."""
    assert client.waiting(USED._replace(**state), clock()) is None


@pytest.mark.parametrize("running", [False, True])
def test_taking(client: ClientProgress, clock: ManualClock, running: bool) -> None:
    """A client owes bytes from the moment output is left for it, also while the app sends more."""
    end_turn(client, clock())
    snapshot = USED._replace(running=running, unsent=10_000)
    waiting = check(client, snapshot, clock(), taken=700, left=50)
    assert (waiting.phase, waiting.began, waiting.moved) == (Phase.SENDING, 1000.0, 1000.0)
    assert client.takes
    clock.advance(RATE_SECONDS)
    waiting = check(client, snapshot, clock(), taken=800, left=50)
    assert waiting.moved == clock()
    assert waiting.progress is not None
    assert waiting.progress.bytes == 100, "what it took before does not count"
    assert waiting.progress.is_too_slow(clock() + 0.5)


def test_flushing(client: ClientProgress, clock: ManualClock) -> None:
    """The client must acknowledge the end of a response, too, but owes nothing at first."""
    end_turn(client, clock())
    waiting = check(client, USED, clock(), taken=0, left=50)
    assert waiting.phase is Phase.FLUSHING
    assert waiting.progress is not None
    clock.advance(RATE_SECONDS + 0.5)
    check(client, USED, clock(), taken=1, left=49)
    assert not waiting.progress.is_too_slow(clock())


@pytest.mark.parametrize("state", [{"running": True}, {"request_began": 1000.0}])
def test_nothing_is_flushed_meanwhile(client: ClientProgress, clock: ManualClock, state: dict[str, object]) -> None:
    """While a request runs or arrives, missing acknowledgements do not count."""
    end_turn(client, clock())
    assert not client.must_take(USED._replace(**state))
    client.waiting(USED._replace(**state), clock())
    assert not client.acknowledged


def test_flushing_of_the_next_response(client: ClientProgress, clock: ManualClock) -> None:
    """The end of another response starts a new count; the end of the same one keeps its debt."""
    end_turn(client, clock())
    sending = check(client, USED._replace(unsent=10), clock(), taken=0, left=50)
    clock.advance(1)
    same = check(client, USED, clock(), taken=0, left=60)
    assert (same.phase, same.progress) == (Phase.FLUSHING, sending.progress)
    other = check(client, USED._replace(answered=2), clock(), taken=0, left=60)
    assert other.began == clock()
    assert other.progress is not sending.progress


def test_taking_of_several_responses(client: ClientProgress, clock: ManualClock) -> None:
    """Output left from one response to the next is one count: a new one forgives no debt."""
    end_turn(client, clock())
    first = check(client, USED._replace(unsent=10), clock(), taken=0, left=0)
    clock.advance(1)
    second = check(client, USED._replace(answered=2, unsent=10), clock(), taken=0, left=0)
    assert (second.began, second.progress) == (first.began, first.progress)


def test_acknowledged(client: ClientProgress, clock: ManualClock) -> None:
    """A client that has acknowledged all of a response is idle from the check that sees it."""
    end_turn(client, clock())
    check(client, USED, clock(), taken=0, left=50)
    clock.advance(3)
    assert client.must_take(USED)
    assert client.waiting(USED, clock(), taken=50, left=0) == Waiting(Phase.IDLE, 1003.0, 1000.0)
    assert client.acknowledged
    assert not client.takes
    assert not client.must_take(USED)
    assert client.idle_since(clock(), answered=1, lingering=False, pending=0) == 1003.0


def test_acknowledged_at_once(client: ClientProgress, clock: ManualClock) -> None:
    """A client that has acknowledged all by the first check is idle since its request ended."""
    end_turn(client, clock())
    clock.advance(3)
    assert client.waiting(USED, clock()) == Waiting(Phase.IDLE, 1000.0, 1000.0)
    assert client.acknowledged


def test_speed(client: ClientProgress, clock: ManualClock) -> None:
    """The speed is that of the response, or else of the body; it is unknown in the first second."""
    body = Progress(clock(), RATE)
    assert client.speed(clock(), None) is None
    assert client.speed(clock(), body) is None
    clock.advance(MEASURED_SECONDS)
    body.update(300, clock())
    assert client.speed(clock(), body) == body.speed > 0
    check(client, USED._replace(unsent=10_000), clock(), taken=0, left=0)
    assert client.speed(clock(), body) is None
    clock.advance(MEASURED_SECONDS)
    waiting = check(client, USED._replace(unsent=10_000), clock(), taken=5000, left=0)
    assert waiting.progress is not None
    assert client.speed(clock(), body) == waiting.progress.speed == 5000


def test_idle_since(client: ClientProgress, clock: ManualClock) -> None:
    """A connection is idle since its last response, or, a second after accept, without one."""
    assert client.idle_since(clock(), answered=0, lingering=False, pending=0) is None
    clock.advance(SILENT_SECONDS)
    assert client.idle_since(clock(), answered=0, lingering=False, pending=0) == 1000.0
    assert client.idle_since(clock(), answered=1, lingering=False, pending=1) is None
    client.idle_from = clock()
    assert client.idle_since(clock(), answered=1, lingering=False, pending=0) == clock()


def test_lingering_goes_first(client: ClientProgress, clock: ManualClock) -> None:
    """A connection whose last response is sent goes before all others."""
    since = client.idle_since(clock(), answered=1, lingering=True, pending=1)
    assert since is not None
    assert since < 0
