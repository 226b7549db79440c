"""Which thread runs what: requests that wait, requests that compute, and the event loop while every thread is busy."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

import pytest
from flask import Flask, Response, request

import internals
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.dispatch import balancing, leadership, request_queue, steward
from flask_prodserve.engine.dispatch.leadership import Leadership
from flask_prodserve.engine.dispatch.request_queue import RequestQueue
from flask_prodserve.engine.dispatch.slow_kinds import SlowKinds
from flask_prodserve.engine.dispatch.steward import Steward
from flask_prodserve.engine.guard import clients
from flask_prodserve.net.loads import Loads
from serving import PATIENCE, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

THREADS = 3


@dataclass
class Held:
    """An app with a view that runs until the test lets it go."""

    app: Flask
    release: threading.Event = field(default_factory=threading.Event)
    running: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def ask(self, wire: Wire) -> None:
        wire.send(b"GET /held/1 HTTP/1.1\r\nHost: test\r\n\r\n")

    def wait_for(self, count: int) -> None:
        """Until *count* more requests are inside the view."""
        for _ in range(count):
            assert self.running.acquire(timeout=PATIENCE)


@pytest.fixture
def held() -> Iterator[Held]:
    app = Flask("dispatch")
    held = Held(app)

    @app.get("/held/<int:number>")
    def hold(number: int) -> str:
        held.running.release()
        assert held.release.wait(PATIENCE)
        return "held"

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(12_000_000))

    @app.post("/echo")
    def echo() -> bytes:
        return request.get_data()

    yield held
    held.release.set()


def get_hello(served: Served, count: int = 20) -> None:
    for _ in range(count):
        assert get(served.address).body == b"hello"


def takes_nothing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, stewards leave leaders alone."""
    monkeypatch.setattr(Steward, "_watch_closely", lambda self: time.sleep(steward.PATIENCE))


def test_requests_that_wait_for_a_moment(way: str) -> None:
    """Also those of little more than PATIENCE, one after the other, are seen to wait: or each would hold up all others."""
    if way == "portable":
        pytest.skip("requests are handed over anyway")
    app = Flask("moments")

    @app.get("/moment")
    def moment() -> str:
        time.sleep(1.5 * steward.PATIENCE)
        return "over"

    with in_thread(app, threads=THREADS) as served, Wire(served.address) as wire:

        def ask() -> bool:
            wire.send(b"GET /moment HTTP/1.1\r\nHost: test\r\n\r\n")
            assert wire.response().body == b"over"
            return internals.remembers(served.engine, "GET /moment")

        for _ in range(5):
            assert any(ask() for _ in range(100)), "each holds up the others"
            internals.forget_kind(served.engine, "GET /moment")


def test_requests_that_wait_do_not_stall_others(held: Held) -> None:
    """With all threads but one in requests that wait, others are answered as if nothing was."""
    with in_thread(held.app, threads=THREADS) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(THREADS - 1)]
        for wire in wires:
            held.ask(wire)
            held.wait_for(1)
            get_hello(served)
        held.release.set()
        assert [wire.response().body for wire in wires] == [b"held"] * len(wires)


def test_the_loop_works_while_all_threads_are_busy(held: Held) -> None:
    """With every thread busy, bodies are received, 100 is sent, and large responses go out; requests wait, and are all answered."""
    with in_thread(held.app, threads=THREADS) as served, contextlib.ExitStack() as stack:
        slow, body, late, *wires = [stack.enter_context(Wire(served.address)) for _ in range(THREADS + 3)]
        slow.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: served.done, "the large response to be kept")
        for wire in wires:
            held.ask(wire)
        held.wait_for(THREADS)
        assert len(slow.response().body) == 12_000_000
        body.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert body.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        body.send(b"body")
        held.ask(late)
        held.release.set()
        assert [wire.response().body for wire in [*wires, late]] == [b"held"] * (THREADS + 1)
        assert body.response("POST").body == b"body"


def test_a_queued_client_that_leaves(held: Held) -> None:
    """A request whose client left while it was queued never reaches the app."""
    with in_thread(held.app, threads=1) as served, Wire(served.address) as first:
        held.ask(first)
        held.wait_for(1)
        with Wire(served.address) as queued:
            held.ask(queued)
            wait_until(lambda: sum(channel.running for channel in served.connections) == 2)
            queued.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # with a reset
        wait_until(lambda: served.loop.__class__ is not Leadership or len(served.table) == 1)
        served.settle()  # it may be in the middle of that
        held.release.set()
        assert first.response().body == b"held"
        get_hello(served, 1)
        if served.has_leader:
            assert not held.running.acquire(blocking=False)


def test_what_waits_is_remembered(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule whose requests wait is handed over from then on, and forgotten when they have become quick."""
    with in_thread(held.app, threads=THREADS) as served:
        loop = served.loop
        if not isinstance(loop, Leadership):
            return
        loop._steward.patience = PATIENCE  # a first request may compute for long where the machine is busy
        with Wire(served.address) as wire:
            held.ask(wire)
            held.wait_for(1)
            wait_until(lambda: internals.remembers(served.engine, "GET /held/<int:number>"), "the steward to take over")
            held.release.set()
            assert wire.response().body == b"held"
            takes_nothing_over(monkeypatch)  # a busy machine makes slow requests of quick ones
            get_hello(served)

            def trusted() -> bool:
                held.ask(wire)
                wire.response()
                return not internals.remembers(served.engine, "GET /held/<int:number>")

            wait_until(trusted, "quick requests to be trusted again")


def test_answers_need_no_other_event(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop learns at once that a service thread has finished with a connection, and goes on with what is left to send."""
    internals.check_rarely(monkeypatch, 10 * PATIENCE)
    with in_thread(held.app, threads=THREADS) as served, Wire(served.address) as wire:
        for _ in range(3):
            wire.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until(
                lambda: set(internals.books(served.engine).open) == {"spool"},
                "a part to be kept, and the thread to be free",
            )
            assert len(wire.response().body) == 12_000_000
            wait_until(lambda: not internals.books(served.engine).open, "all to be sent")


def test_one_thread_serves_a_quiet_app(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are started when they are needed: a client of quick requests needs one."""
    takes_nothing_over(monkeypatch)  # a busy machine makes slow requests of quick ones
    with in_thread(held.app, threads=64) as served:
        if not served.has_leader:
            return
        with Wire(served.address) as wire:
            for _ in range(50):
                wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                wire.response()
        assert internals.service_threads(served.engine) == 1


def test_a_thread_that_computes_does_not_stop_the_others(held: Held) -> None:
    """A request that computes for long loses the lead as well, so that others go on beside it."""
    stop = threading.Event()

    @held.app.get("/compute")
    def compute() -> str:
        held.running.release()
        until = time.monotonic() + PATIENCE
        while not stop.is_set() and time.monotonic() < until:
            pass
        return "computed"

    with in_thread(held.app, threads=THREADS) as served, Wire(served.address) as wire:
        wire.send(b"GET /compute HTTP/1.1\r\nHost: test\r\n\r\n")
        held.wait_for(1)
        get_hello(served)
        stop.set()
        assert wire.response().body == b"computed"


def test_what_computes_is_not_remembered(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule whose requests lose the lead since they compute is not handed over from then on: a second thread would only slow it down."""
    internals.take_all_for_computing(monkeypatch)
    with in_thread(held.app, threads=THREADS) as served, Wire(served.address) as wire:
        if not internals.has_leader(served.engine):
            return
        held.ask(wire)
        held.wait_for(1)
        get_hello(served)  # by another thread, which leads now
        assert not internals.remembers(served.engine, "GET /held/<int:number>")
        held.release.set()
        assert wire.response().body == b"held"


def test_a_long_response_is_written_without_the_lead(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that keeps what a client does not take has passed the lead on by itself."""
    takes_nothing_over(monkeypatch)
    held.app.add_url_rule("/longer", view_func=lambda: bytes(40_000_000))
    with in_thread(held.app, threads=THREADS) as served, Wire(served.address) as wire:
        wire.send(b"GET /longer HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(
            lambda: any(clients.holds_thread(channel) for channel in served.connections),
            "a thread to wait for the client",
        )
        get_hello(served)
        assert wire.response().body == bytes(40_000_000)


def test_requests_that_wait_take_turns(held: Held) -> None:
    """Where more clients ask for what waits than there are threads, all of them get about as much."""
    stop = threading.Event()

    @held.app.get("/wait")
    def wait() -> str:
        time.sleep(0.003)
        return "waited"

    with in_thread(held.app, threads=2) as served:
        answered = [0] * 6
        start = threading.Barrier(len(answered))

        def client(number: int) -> None:
            with Wire(served.address) as wire:
                start.wait(PATIENCE)
                while not stop.is_set():
                    wire.send(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n")
                    wire.response()
                    answered[number] += 1

        clients = [threading.Thread(target=client, args=[number]) for number in range(len(answered))]
        for thread in clients:
            thread.start()
        wait_until(lambda: sum(answered) > 400 and min(answered) > max(answered) / 2, "all to get about as much")
        stop.set()
        for thread in clients:
            thread.join()


class KnowsHeld(SlowKinds):
    """Knows beforehand which requests wait, so that a busy machine cannot deceive it."""

    def __bool__(self) -> bool:
        return True

    def __contains__(self, kind: Hashable) -> bool:
        return "held" in str(kind)

    def is_due(self, kind: Hashable) -> bool:
        return False

    def add(self, kind: Hashable) -> None:
        pass


def test_fast_requests_keep_a_slot(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast requests are answered while more slow ones wait than there are threads."""
    monkeypatch.setattr(leadership, "SlowKinds", KnowsHeld)
    monkeypatch.setattr(request_queue, "FAST_SECONDS", PATIENCE)
    with in_thread(held.app, threads=THREADS) as served, contextlib.ExitStack() as stack:
        loop = served.loop
        if not isinstance(loop, Leadership):
            return
        wires = [stack.enter_context(Wire(served.address)) for _ in range(THREADS + 3)]
        for wire in wires[: THREADS - 1]:
            held.ask(wire)
        held.wait_for(THREADS - 1)
        wait_until(
            lambda: get_hello(served, 1) or loop._queue.fast_at > 0, "a quick request that the leader has answered"
        )
        for wire in wires[THREADS - 1 :]:
            held.ask(wire)
        wait_until(lambda: len(loop._queue) == 4, "the others to queue")
        get_hello(served)
        held.release.set()
        assert [wire.response().body for wire in wires] == [b"held"] * len(wires)


def test_a_slot_that_is_passed_on_is_never_free(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that goes on with a queued request keeps its slot: the leader looks without the lock, and must not see it free."""
    busy: list[int] = []
    take_next = RequestQueue.next

    def watched(queue: RequestQueue, *, held: bool = False) -> Connection | None:
        channel = take_next(queue, held=held)
        if held and channel is not None:
            busy.append(internals.books(served.engine).busy)
        return channel

    with in_thread(held.app, threads=1) as served, Wire(served.address) as first, Wire(served.address) as second:
        held.ask(first)
        held.wait_for(1)
        monkeypatch.setattr(RequestQueue, "next", watched)
        held.ask(second)
        served.wait_for_queue(1)
        held.release.set()
        assert [wire.response().body for wire in (first, second)] == [b"held"] * 2
    assert busy == [1]


def test_processes_share_a_listener(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """While all threads of one process are busy, new connections go to the other one; afterwards both accept again."""
    # No process is ever mistaken for one that has died.
    monkeypatch.setattr(balancing, "DEFER_SECONDS", PATIENCE)
    monkeypatch.setattr("flask_prodserve.net.loads.STALE_SECONDS", PATIENCE)
    descriptor = Loads.create(2)
    loads = [Loads(descriptor, slot) for slot in range(2)]
    os.close(descriptor)
    with in_thread(held.app, threads=1, loads=loads[0]) as first:
        if not first.has_leader:
            return
        with (
            in_thread(held.app, threads=1, loads=loads[1], beside=first.listeners) as second,
            Wire(first.address) as wire,
        ):
            held.ask(wire)
            held.wait_for(1)
            busy = first if first.table else second
            wait_until(lambda: busy.loop._budget.busy == 1, "the steward to take over")
            wait_until(lambda: not any(internals.accepts(busy.engine)), "it to leave the listener")
            takes_nothing_over(monkeypatch)  # or a busy machine could make both of them busy
            get_hello(first)
            assert len(busy.table) == 1
            held.release.set()
            assert wire.response().body == b"held"
            wait_until(lambda: all(internals.accepts(busy.engine)), "it to accept again")
