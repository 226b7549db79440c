"""A stop that is announced: not ready at once, stopped a while later. And what a server tells of itself every half second meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from flask_prodserve.engine import engine
from flask_prodserve.observe.events import Activity
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers check their deadlines, and report, at once and not every half second."""
    monkeypatch.setattr(engine, "CHECK_SECONDS", 0.01)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def app(release: threading.Event) -> Flask:
    app = Flask("delayed")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/held")
    def held() -> str:
        release.wait(PATIENCE)
        return "held"

    return app


def ask(wire: Wire, path: str = "/") -> None:
    wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


def told(served: Served, seen: Callable[[Activity], bool]) -> None:
    """Wait until *seen* holds of the last report."""
    wait_until(lambda: served.activities and seen(served.activities[-1]), "a report")


def stopped(served: Served) -> bool:
    return served.drained is not None


def test_ready_until_told_to_stop(app: Flask, clock: ManualClock) -> None:
    """From the call on the server is not ready, and serves as before, new clients, too; when the time is over, it stops."""
    with in_thread(app, clock=clock) as served:
        assert get(served.address, "/readyz").status == 200
        served.engine.stop(delay=30)
        assert get(served.address, "/readyz").status == 503
        assert get(served.address, "/livez").status == 200
        clock.advance(29.9)
        response = get(served.address)
        assert (response.body, response.get("connection")) == (b"hello", None)
        assert not stopped(served)
        clock.advance(0.2)
        wait_until(lambda: stopped(served), "the end of the delay")
        with pytest.raises(OSError, match=r"refused|reset"):
            get(served.address)


def test_the_shorter_delay_counts(app: Flask, clock: ManualClock) -> None:
    """Of several calls, a later one with more time changes nothing, and one with less time does."""
    with in_thread(app, clock=clock) as served:
        served.engine.stop(delay=30)
        served.engine.stop(delay=60)
        clock.advance(20)
        served.engine.stop(delay=5)
        served.engine.stop(delay=11)
        assert get(served.address).status == 200
        clock.advance(5.1)
        wait_until(lambda: stopped(served), "the end of the shortest delay")


@pytest.mark.parametrize("how", ["stop", "abort"])
def test_a_delay_is_cut_short(app: Flask, clock: ManualClock, how: str) -> None:
    """Whoever does not want to wait any more calls again without a delay."""
    with in_thread(app, clock=clock) as served:
        served.engine.stop(delay=3600)
        getattr(served.engine, how)()
        wait_until(lambda: stopped(served), "the stop")


@pytest.mark.usefixtures("often")
def test_activity(app: Flask, release: threading.Event) -> None:
    """It tells how many requests it has answered, on connections that are closed, too, and what is going on at the moment."""
    with in_thread(app, threads=1) as served, Wire(served.address) as holder, Wire(served.address) as waiter:
        for _ in range(3):
            assert get(served.address).status == 200
        assert get(served.address, "/livez").status == 200
        ask(holder, "/held")
        told(served, lambda activity: activity.busy == 1)
        ask(waiter)
        told(served, lambda activity: activity.queued == 1)
        activity = served.activities[-1]
        assert (activity.served, activity.connections, activity.busy, activity.queued) == (5, 2, 1, 1)
        assert (activity.stuck, activity.healthy) == (0, True)
        release.set()
        assert [holder.response().body, waiter.response().body] == [b"held", b"hello"]
        told(served, lambda activity: activity.busy == activity.queued == 0)
        assert served.activities[-1].served == 6


@pytest.mark.usefixtures("often")
def test_activity_of_stuck_requests(app: Flask, release: threading.Event, clock: ManualClock) -> None:
    """Requests that were given up are not told of as busy, but as stuck threads; with too many of them the server is not healthy."""
    with in_thread(app, clock=clock, threads=1, request_timeout="1s") as served, Wire(served.address) as wire:
        ask(wire, "/held")
        told(served, lambda activity: activity.busy == 1)
        clock.advance(1.1)
        told(served, lambda activity: activity.stuck == 1)
        assert wire.response().status == 504
        assert (served.activities[-1].busy, served.activities[-1].healthy) == (0, False)
        release.set()


@pytest.mark.usefixtures("often")
def test_activity_while_stopping(app: Flask, release: threading.Event) -> None:
    """A server that finishes its last requests goes on telling that it is alive."""
    with in_thread(app) as served, Wire(served.address) as wire:
        ask(wire, "/held")
        told(served, lambda activity: activity.busy == 1)
        served.engine.stop()
        wait_until(lambda: served.is_draining, "the stop")
        before = len(served.activities)
        wait_until(lambda: len(served.activities) >= before + 2, "signs of life")
        release.set()
        assert wire.response().body == b"held"
