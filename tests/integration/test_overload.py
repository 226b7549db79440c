"""More requests than threads: QUEUE_TIMEOUT, and what the log and the load balancers are told."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask, Response

import internals
from flask_prodserve.engine.connection.connection import Connection
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get

QUEUE_TIMEOUT = 10
SMUGGLED = b"GET /held/2 HTTP/1.1\r\nHost: test\r\n\r\n"
"""A body that would do as a request."""

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]


@dataclass
class Held:
    """An app with a view that runs until the test lets it go."""

    app: Flask
    clock: ManualClock
    release: threading.Event = field(default_factory=threading.Event)
    running: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    called: list[int] = field(default_factory=list)

    def wait_for(self, count: int) -> None:
        """Until *count* more requests are inside the view."""
        for _ in range(count):
            assert self.running.acquire(timeout=PATIENCE)


def ask(wire: Wire, number: int = 0) -> None:
    wire.send(f"GET /held/{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


@pytest.fixture
def held() -> Iterator[Held]:
    app = Flask("overload")
    held = Held(app, ManualClock())

    @app.get("/held/<int:number>")
    def hold(number: int) -> str:
        held.called.append(number)
        held.running.release()
        assert held.release.wait(PATIENCE)
        return str(number)

    yield held
    held.release.set()


@dataclass
class Full:
    """A server whose threads are all busy, and clients."""

    served: Served
    stack: contextlib.ExitStack
    holders: list[Wire]

    def queue(self, *numbers: int) -> list[Wire]:
        """Requests that wait, in that order, each on a connection of its own."""
        wires = []
        for number in numbers:
            wire = self.stack.enter_context(Wire(self.served.address))
            before = internals.queued(self.served.engine)
            ask(wire, number)
            self.served.wait_for_queue(before + 1)
            wires.append(wire)
        return wires


@contextlib.contextmanager
def full(held: Held, *, threads: int = 1, **options: Any) -> Iterator[Full]:
    settings: dict[str, Any] = {"request_timeout": 0, "queue_timeout": QUEUE_TIMEOUT, "threads": threads, **options}
    with in_thread(held.app, clock=held.clock, **settings) as served, contextlib.ExitStack() as stack:
        served.look()
        holders = [stack.enter_context(Wire(served.address)) for _ in range(threads)]
        for wire in holders:
            ask(wire)
        held.wait_for(threads)
        try:
            yield Full(served, stack, holders)
        finally:
            held.release.set()


def test_shed_at_queue_timeout(held: Held) -> None:
    """Requests that wait longer than QUEUE_TIMEOUT, and not before, get 503 with Retry-After; the app never hears of them."""
    with full(held) as server:
        wires = server.queue(1, 2, 3)
        held.clock.advance(QUEUE_TIMEOUT - 1)
        server.served.look()
        assert internals.queued(server.served.engine) == 3
        assert server.served.done == []
        held.clock.advance(2)
        server.served.look()
        for wire in wires:
            response = wire.response()
            assert response.status == 503
            assert int(response.get("retry-after") or 0) > 0
            assert response.get("connection") is None, "the client may try again on the same connection"
        assert server.served.engine.limit_events.counts["QUEUE_TIMEOUT"] == 3
        held.release.set()
        assert server.holders[0].response().body == b"0"
        for number, wire in enumerate(wires, 10):
            ask(wire, number)
            assert wire.response().body == b"%d" % number
        assert held.called == [0, 10, 11, 12]
        wait_until(lambda: len(server.served.done) == 7)
        assert sorted(done.status for done in server.served.done) == [200] * 4 + [503] * 3
        assert {done.target for done in server.served.done if done.status == 503} == {"/held/1", "/held/2", "/held/3"}


def test_what_is_pipelined_behind_a_shed_request(held: Held) -> None:
    """The next request of a connection takes its own place in the queue when the one before has been shed."""
    with full(held) as server:
        (wire,) = server.queue(1)
        ask(wire, 2)
        held.clock.advance(QUEUE_TIMEOUT + 1)
        server.served.look()
        assert wire.response().status == 503
        server.served.wait_for_queue(1)
        server.served.look()
        held.release.set()
        assert wire.response().body == b"2"


@pytest.mark.parametrize(("length", "room", "status"), [(1000, 10, 413), (len(SMUGGLED), 1 << 20, 503)])
def test_refused_requests_are_not_shed(held: Held, length: int, room: int, status: int) -> None:
    """A request that is refused keeps that answer, however late it is, so that its body is never taken for the next request."""
    settings = {"queue_timeout": QUEUE_TIMEOUT, "request_timeout": 0, "max_connections": 1, "max_body_size": room}
    with in_thread(held.app, clock=held.clock, **settings) as served, contextlib.ExitStack() as stack:
        if status == 503:  # there is no room for another connection
            ask(stack.enter_context(Wire(served.address)))
            held.wait_for(1)
        wire = stack.enter_context(Wire(served.address))
        wait_until(lambda: len(served.table) == (2 if status == 503 else 1))
        served.settle()  # what ends the handshake is read: until then the client's system may hold back what follows

        def be_late() -> None:
            """In the loop, which reads what comes only when it would cut the client, and looks again before it has answered that."""
            wire.send(b"POST /held/1 HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % length)
            wire.send(SMUGGLED)
            held.clock.advance(100)
            internals.check_deadlines(served.engine)
            held.clock.advance(QUEUE_TIMEOUT + 1)
            internals.check_deadlines(served.engine)
            sent.set()

        sent = threading.Event()
        served.soon(be_late)
        assert sent.wait(PATIENCE)  # two threads must not use one TLS connection
        response = wire.response("POST")
        assert (response.status, response.get("connection")) == (status, "close")
        if status == 413:
            wire.send(SMUGGLED)
        assert wire.closed(), "one answer, and no more"
        held.release.set()
    assert 2 not in held.called
    assert not served.engine.limit_events.counts["QUEUE_TIMEOUT"]


def test_bodies_of_requests_that_are_not_run(held: Held) -> None:
    """What was kept of requests that are shed, or whose client left, is given back."""

    @held.app.post("/upload")
    def upload() -> str:
        raise AssertionError("called")

    with full(held) as server:
        spool = internals.spool(server.served.engine)
        wires = [server.stack.enter_context(Wire(server.served.address)) for _ in range(2)]
        for wire in wires:
            wire.send(b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
        server.served.wait_for_queue(2)
        assert spool.size == 2_000_000
        wires[0].socket.close()
        held.clock.advance(QUEUE_TIMEOUT + 1)
        server.served.look()
        assert wires[1].response("POST").status == 503
        wait_until(lambda: spool.size == 0, "the bodies to be given back")


def test_body_whose_client_leaves_when_the_request_before_it_ends(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is of a body behind a request is given back, also where the connection ends between that request and the loop's turn."""
    finish_turn = Connection.finish_turn
    kept: list[int] = []

    def leave(channel: Connection, *, in_loop: bool) -> None:
        """In a service thread, which has just looked whether the client is there, and has taken the body over."""
        kept.append(internals.spool(served.engine).size)
        served.soon(channel.close)
        wait_until(lambda: not channel.connected)
        finish_turn(channel, in_loop=in_loop)

    with in_thread(held.app, clock=held.clock, request_timeout=0) as served, Wire(served.address) as wire:
        behind = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000\r\n\r\n" + bytes(1000)
        wire.send(b"GET /held/1 HTTP/1.1\r\nHost: test\r\n\r\n" + behind)
        held.wait_for(1)
        served.settle()
        monkeypatch.setattr(Connection, "finish_turn", leave)
        held.release.set()
        assert wire.response().body == b"1"
        assert wire.closed()
        wait_until(lambda: internals.spool(served.engine).size == 0, "the body to be given back")
        assert kept == [1000]


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_client_that_left_the_queue(held: Held, how: str) -> None:
    """A request whose client left while it waited is dropped, without a word to the app, and is no sign of overload."""
    with full(held) as server:
        gone, staying = server.queue(1, 2)
        if how == "reset":
            gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.socket.close()
        held.clock.advance(2)

        def dropped() -> bool:
            server.served.look()
            return internals.queued(server.served.engine) == 1

        wait_until(dropped, "the server to see that it has gone")
        assert server.served.engine.limit_events.counts["client left"] == 1
        assert server.served.engine.limit_events.counts["QUEUE_TIMEOUT"] == 0
        assert get(server.served.address, "/readyz").status == 200
        held.release.set()
        assert staying.response().body == b"2"
        assert held.called == [0, 2]


def test_streams_with_a_budget_of_their_own_are_not_reset(held: Held) -> None:
    """While requests wait for threads, slow takers are reset only if their responses hold such threads, and not a place of MAX_STREAMS."""
    size, chunk = 40, bytes(1_000_000)

    @held.app.get("/stream")
    def stream() -> Response:
        return Response(chunk for _ in range(size))

    settings: dict[str, Any] = {"send_timeout": "1h", "min_send_rate": 0, "queue_timeout": 1000}
    with (
        in_thread(held.app, clock=held.clock, threads=1, max_streams=1, request_timeout=0, **settings) as served,
        Wire(served.address) as taker,
        Wire(served.address) as holder,
        Wire(served.address) as waiting,
    ):
        taker.send(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: internals.threads_that_wait_for_clients(served.engine) == 1)
        held.clock.advance(1.5)
        served.look()
        assert internals.moved_streams(served.engine) == 1
        ask(holder)
        held.wait_for(1)
        ask(waiting, 1)
        served.wait_for_queue(1)
        for _ in range(4):
            held.clock.advance(1.5)
            served.look()
        assert served.engine.limit_events.counts == {"THREADS": served.engine.limit_events.counts["THREADS"]}
        assert len(taker.response().body) == size * len(chunk)
        held.release.set()
        assert [holder.response().body, waiting.response().body] == [b"0", b"1"]


def test_one_warning_a_minute(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    """One line a minute says for how long all threads have been busy, how many wait, and which rules hold the threads, since when."""

    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith("THREADS: ")]

    with full(held, threads=2, queue_timeout=1000) as server:
        held.clock.advance(5)
        server.queue(1, 2, 3)
        server.served.look()
        assert warnings() == [], "nobody has waited for long"
        held.clock.advance(2)
        server.served.look()
        (warning,) = warnings()
        assert re.search(r"\b3\b.* the longest for 2\.0s", warning)
        assert "2 x GET /held/<int:number> (oldest 7.0s)" in warning
        assert "max_concurrency" in warning
        for _ in range(3):
            held.clock.advance(19)
            server.served.look()
        assert len(warnings()) == 1
        held.clock.advance(4)
        server.served.look()
        assert len(warnings()) == 2
        assert re.search(r"\(oldest 6\d\.0s\)", warnings()[1])
        assert re.search(r"\(\d+ more since the last such line\)", warnings()[1])


def test_a_warning_where_little_is_allowed(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    """Where QUEUE_TIMEOUT is short, the log says who holds the threads all the same."""
    with full(held, queue_timeout=0.5) as server:
        server.queue(1)
        held.clock.advance(0.6)
        server.served.look()
        assert "1 x GET /held/<int:number> (oldest 0.6s)" in caplog.text


def test_nobody_seems_to_run(held: Held, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """That threads are between two requests when they are looked at is no news; where it stays so, it is the processor they wait for."""

    def warns() -> bool:
        return "No request is running at this moment" in caplog.text

    with full(held, queue_timeout=1000) as server:
        server.queue(1)
        internals.hide_running_requests(monkeypatch)
        held.clock.advance(1.5)
        server.served.look()
        assert not warns()
        held.clock.advance(1)
        server.served.look()
        assert warns()


def test_standing_queue(held: Held) -> None:
    """Where the queue has not been empty for QUEUE_TIMEOUT, a tenth of it is allowed, but enough are kept for the threads."""
    with full(held) as server:
        first, *_ = server.queue(1)
        held.clock.advance(QUEUE_TIMEOUT - 1)
        second, third, fourth = server.queue(2, 3, 4)
        server.served.look()
        assert internals.queued(server.served.engine) == 4
        held.clock.advance(1.5)
        server.served.look()
        assert [wire.response().status for wire in (first, second, third)] == [503, 503, 503]
        assert internals.queued(server.served.engine) == 1
        held.release.set()
        assert fourth.response().body == b"4"
        assert held.called == [0, 4]


def test_a_queue_that_was_empty(held: Held) -> None:
    """Once the queue has been empty, all of QUEUE_TIMEOUT is allowed again."""
    with full(held) as server:
        server.queue(1)
        held.clock.advance(QUEUE_TIMEOUT + 1)
        server.served.look()
        assert internals.queued(server.served.engine) == 0
        server.served.look()
        server.queue(2, 3, 4)
        held.clock.advance(QUEUE_TIMEOUT - 1)
        server.served.look()
        assert internals.queued(server.served.engine) == 3


def test_readiness(held: Held) -> None:
    """For two seconds after a request was shed the server is not ready, so that balancers send requests elsewhere; it is alive."""
    with full(held) as server:
        address = server.served.address
        server.queue(1)
        assert get(address, "/readyz").status == 200
        held.clock.advance(QUEUE_TIMEOUT + 1)
        server.served.look()
        assert (get(address, "/readyz").status, get(address, "/livez").status) == (503, 200)
        held.clock.advance(1)
        assert get(address, "/readyz").status == 503
        held.clock.advance(1.5)
        assert get(address, "/readyz").status == 200


def test_steward_sees_the_queue_by_itself(held: Held) -> None:
    """Without anybody's help a request is shed soon after its time."""
    with (
        in_thread(held.app, threads=1, queue_timeout=0.3) as served,
        Wire(served.address) as first,
        Wire(served.address) as second,
    ):
        ask(first)
        held.wait_for(1)
        ask(second, 1)
        assert second.response().status == 503
        held.release.set()
        assert first.response().body == b"0"
        assert held.called == [0]
