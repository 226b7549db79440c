"""Clients that pipeline get one turn at a time while others wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from flask import Flask

from flask_prodserve.engine.dispatch.slow_kinds import SlowKinds
from serving import PATIENCE, ManualClock, in_thread, wait_until
from wire import Wire

pytestmark = [pytest.mark.usefixtures("way", "one_queue"), pytest.mark.every_way]


@pytest.fixture
def one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no rule remembered as one that waits: those have a queue of their own, and the two take turns."""
    monkeypatch.setattr(SlowKinds, "add", lambda memory, kind: None)


@dataclass
class Turns:
    """An app that notes in *order* what it runs. Views whose name is in *held* run until the test releases them."""

    app: Flask
    order: list[str] = field(default_factory=list)
    held: dict[str, threading.Event] = field(default_factory=dict)

    def hold(self, *names: str) -> None:
        for name in names:
            self.held[name] = threading.Event()

    def wait_for(self, name: str) -> None:
        wait_until(lambda: name in self.order, f"{name} to run")


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns(Flask("turns"))

    @turns.app.get("/<name>")
    def view(name: str) -> str:
        turns.order.append(name)
        if name in turns.held:
            assert turns.held[name].wait(PATIENCE)
        return name

    yield turns
    for event in turns.held.values():
        event.set()


def ask(wire: Wire, *names: str) -> None:
    """All in one segment, and over TLS in one record."""
    wire.send(b"".join(f"GET /{name} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for name in names))


def bodies(wire: Wire, count: int) -> list[str]:
    return [wire.response().body.decode() for _ in range(count)]


def test_others_come_in_between(turns: Turns) -> None:
    """A client with many requests gives way to others after its first, soon, and gets all its answers in order."""
    many = [f"a{number}" for number in range(50)]
    turns.hold("a0")
    with (
        in_thread(turns.app, threads=1) as served,
        Wire(served.address) as first,
        Wire(served.address) as second,
        Wire(served.address) as third,
    ):
        ask(first, *many)
        turns.wait_for("a0")
        ask(second, "b")
        served.wait_for_queue(1)
        ask(third, "c")
        served.wait_for_queue(2)
        turns.held["a0"].set()
        assert bodies(first, len(many)) == many
        assert bodies(second, 1) == ["b"]
        assert bodies(third, 1) == ["c"]
    assert turns.order[:3] == ["a0", "b", "c"]


def test_its_own_answers_of_the_server_wait_for_nobody(turns: Turns) -> None:
    """What the server answers itself, in between and in the end, keeps its place among the answers."""
    turns.hold("a0", "b")
    with in_thread(turns.app, threads=1) as served, Wire(served.address) as first, Wire(served.address) as second:
        ask(first, "a0", "livez", "a1", "livez", "bad HTTP/1.1\r\nno field\r\nx")
        turns.wait_for("a0")
        ask(second, "b")
        served.wait_for_queue(1)
        turns.held["a0"].set()
        turns.wait_for("b")
        assert first.response().body == b"a0"
        assert b"alive" in first.response().body
        served.wait_for_queue(1)
        turns.held["b"].set()
        assert first.response().body == b"a1"
        assert b"alive" in first.response().body
        assert first.response().status == 400
        assert bodies(second, 1) == ["b"]


@pytest.mark.parametrize("late", [False, True])
def test_time_in_the_queue_begins_with_the_turn(turns: Turns, late: bool) -> None:
    """QUEUE_TIMEOUT runs for a pipelined request from when the one before it is answered, and not from when both came."""
    clock = ManualClock()
    turns.hold("a0", "b")
    settings: dict[str, object] = {
        "threads": 1,
        "queue_timeout": "10s",
        "request_timeout": 0,
        "keepalive_timeout": "1h",
    }
    with (
        in_thread(turns.app, clock=clock, **settings) as served,
        Wire(served.address) as first,
        Wire(served.address) as second,
    ):
        ask(first, "a0", "a1", "a2")
        turns.wait_for("a0")
        clock.advance(9)
        ask(second, "b")
        served.wait_for_queue(1)
        turns.held["a0"].set()
        turns.wait_for("b")
        served.wait_for_queue(1)
        clock.advance(11 if late else 9)
        served.look()
        turns.held["b"].set()
        assert bodies(first, 1) == ["a0"]
        assert first.response().status == (503 if late else 200)
        assert bodies(first, 1) == ["a2"]
        assert bodies(second, 1) == ["b"]
    assert ("a1" in turns.order) is not late


def test_stop_between_turns(turns: Turns) -> None:
    """A server that stops answers what has been pipelined, also what waits for its turn, and says so with the last answer."""
    turns.hold("a0", "b")
    with in_thread(turns.app, threads=1) as served, Wire(served.address) as first, Wire(served.address) as second:
        ask(first, "a0", "a1", "a2")
        turns.wait_for("a0")
        ask(second, "b")
        served.wait_for_queue(1)
        turns.held["a0"].set()
        turns.wait_for("b")
        served.wait_for_queue(1)
        served.engine.stop()
        wait_until(lambda: served.is_draining, "the listener to close")
        turns.held["b"].set()
        assert bodies(first, 2) == ["a0", "a1"]
        last = first.response()
        assert (last.body, last.get("connection")) == (b"a2", "close")
        assert bodies(second, 1) == ["b"]
        wait_until(lambda: served.drained, "the end")
    assert served.drained is not None
    assert served.drained.cut == 0


def test_nothing_is_handed_over_while_none_waits(turns: Turns) -> None:
    """The thread that has run a client's first request runs the others as well if no other client waits."""
    threads: list[int] = []
    turns.app.before_request(lambda: threads.append(threading.get_ident()))
    turns.hold("a0")
    with in_thread(turns.app, threads=2) as served, Wire(served.address) as wire:
        ask(wire, "a0", *["a"] * 20)
        turns.wait_for("a0")
        served.settle()  # another thread has the lead
        turns.held["a0"].set()
        assert bodies(wire, 21) == ["a0", *["a"] * 20]
    assert len(set(threads)) == 1
