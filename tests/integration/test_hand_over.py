"""The engine under threads that stop at the worst places: thousands of requests, every byte of their responses checked."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request, send_file

import internals
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.sender import Sender
from flask_prodserve.engine.dispatch.dispatcher import Dispatcher
from flask_prodserve.engine.dispatch.leadership import Leadership
from flask_prodserve.engine.dispatch.portable import PortableLoop
from holdups import delayed
from profiles import sized
from serving import PATIENCE, ManualClock, in_thread, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

THREADS = 4
CLIENTS = 10
ROUNDS = 120
"""Batches of one to six requests for each client."""

SETTINGS: dict[str, object] = {"threads": THREADS, "max_connections": 200, "queue_timeout": 10 * PATIENCE}
"""No machine is too slow for this."""

HOLD_UP_SECONDS = 0.004
"""As long as it takes to lose the lead, and more."""

POINTS = {
    Dispatcher: ["_run_queued", "_run", "_go_on", "_serve"],
    Leadership: ["_begin", "_handle", "_take_over"],
    PortableLoop: ["submit", "update_interest"],
    Connection: ["answer", "finish_turn", "handle_write", "pause", "received", "close"],
    Sender: ["write"],
}
"""Where a thread may lose the processor between two steps of a hand-over."""


def make_app(folder: str) -> Flask:
    app = Flask("hand_over")
    running = threading.Semaphore(THREADS)

    def content(number: int, size: int) -> bytes:
        seed = hashlib.sha256(b"%d" % number + request.get_data()).digest()
        return (seed * (size // len(seed) + 1))[:size]

    @app.route("/<kind>/<int:number>/<int:size>", methods=["GET", "POST"])
    def work(kind: str, number: int, size: int) -> Response:
        assert running.acquire(blocking=False), "more requests than THREADS are inside the app"
        try:
            body = content(number, size)
            if kind == "wait":
                time.sleep(random.random() * 0.004)
            elif kind == "compute":
                until = time.perf_counter() + random.random() * 0.004
                while time.perf_counter() < until:
                    pass
            if kind == "stream":
                return Response((body[start : start + 9000] for start in range(0, size, 9000)), mimetype="text/plain")
            if kind == "file":
                path = os.path.join(folder, f"{number}")
                with open(path, "wb") as file:
                    file.write(body)
                return send_file(path, mimetype="text/plain")
            return Response(body)
        finally:
            running.release()

    return app


class Client:
    """Sends batches of pipelined requests, cut anywhere, and checks every response; sometimes leaves in the middle."""

    def __init__(self, address: Any, seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        try:
            rounds = ROUNDS
            while rounds:
                with Wire(self.address) as wire:
                    while rounds and self._round(wire):
                        rounds -= 1
                rounds -= bool(rounds)
        except BaseException as error:  # whatever it is, it is the finding
            self.failures.append(repr(error))

    def _round(self, wire: Wire) -> bool:
        """Returns whether the connection is still good."""
        chance = self.random.random()
        batch = [self._request() for _ in range(self.random.choice([1, 1, 1, 2, 6]))]
        data = b"".join(sent for sent, _ in batch)
        if chance < 0.1:  # leaves before it has sent everything, or before it has read everything
            wire.send(data[: self.random.randrange(len(data) + 1)])
            if self.random.random() < 0.5:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # with a reset
            return False
        for part in self._cut(data):
            wire.send(part)
        if chance > 0.9:
            wire.shut_down_sending()
        for _, expected in batch:
            response = wire.response("POST")
            if (response.status, response.body) != (200, expected):
                self.failures.append(f"{response.status}, {len(response.body)} instead of {len(expected)} bytes")
                return False
            self.answered += 1
        return chance <= 0.9

    def _request(self) -> tuple[bytes, bytes]:
        kind = self.random.choice(["quick"] * 6 + ["wait", "compute", "stream", "file"])
        number = self.random.randrange(10**9)
        size = self.random.choice([0, 10, 5000, 5000, 100_000, 3_000_000 if kind == "quick" else 50_000])
        body = self.random.randbytes(self.random.choice([0, 0, 100, 20_000]))
        seed = hashlib.sha256(b"%d" % number + body).digest()
        head = f"POST /{kind}/{number}/{size} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body, (seed * (size // len(seed) + 1))[:size]

    def _cut(self, data: bytes) -> Iterator[bytes]:
        if self.random.random() < 0.3:
            middle = self.random.randrange(len(data) + 1)
            yield data[:middle]
            data = data[middle:]
        yield data


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("files"))


def test_with_delays_at_every_hand_over(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the moment at which threads are held up, each request is answered once, whole and in order, and nothing is left over."""
    # Who has shut down its sending side gets its answer all the same.
    internals.keep_requests_of_clients_that_left(monkeypatch, PATIENCE)
    for owner, names in POINTS.items():
        for name in names:
            monkeypatch.setattr(owner, name, delayed(getattr(owner, name), HOLD_UP_SECONDS))
    with in_thread(make_app(folder), **SETTINGS) as served:
        runs: Any = served.loop
        clients = [Client(served.address, seed) for seed in range(CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [failure for client in clients for failure in client.failures] == []
        assert sum(client.answered for client in clients) > CLIENTS * ROUNDS
        wait_until(lambda: not served.table, "the connections to be closed")
        wait_until(lambda: runs._budget.busy == 0, "the threads to rest")
        assert runs.queued == 0
        assert internals.service_threads(served.engine) <= THREADS + internals.has_leader(served.engine)
        if internals.has_leader(served.engine):
            assert not runs._steward.claim
        assert get(served.address, "/quick/1/10").status == 200


def test_streams_do_not_hold_threads() -> None:
    """With every thread in a stream of more than a second, others are served; beyond MAX_STREAMS they count again."""
    release = threading.Event()
    app = Flask("streams")

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"first"
            release.wait(PATIENCE)
            yield b"last"

        return Response(chunks())

    @app.get("/")
    def index() -> str:
        return "hello"

    with in_thread(app, threads=2, max_streams=3) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(5)]
        for wire in wires:
            wire.send(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        waiting = stack.enter_context(Wire(served.address))
        waiting.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        for wire in wires:  # two run, three more take the places of those that stream; the last place stays taken
            assert wire.socket.recv(12) == b"HTTP/1.1 200"
            wire._read = b"HTTP/1.1 200"
        release.set()
        assert [wire.response().body for wire in wires] == [b"firstlast"] * 5
        assert waiting.response().body == b"hello"
        wait_until(lambda: internals.service_threads(served.engine) <= 3)


def test_streams_of_many_chunks_do_not_hold_threads() -> None:
    """A stream counts from its first chunk on: one that sends something every 0.6 seconds moves to MAX_STREAMS like any other."""
    clock, go_on = ManualClock(), threading.Semaphore(0)
    app = Flask("ticks")

    @app.get("/ticks")
    def ticks() -> Response:
        def chunks() -> Iterator[bytes]:
            for _ in range(3):
                yield b"tick"
                assert go_on.acquire(timeout=PATIENCE)

        return Response(chunks())

    with in_thread(app, clock=clock, threads=2) as served, Wire(served.address) as wire:
        wire.send(b"GET /ticks HTTP/1.1\r\nHost: test\r\n\r\n")
        received = b""
        for number in range(1, 4):
            while received.count(b"tick") < number:
                received += wire.socket.recv(65536)
            assert internals.moved_streams(served.engine) == (number > 2)
            clock.advance(0.6)
            served.look()
            go_on.release()


def test_a_client_that_left_releases_its_thread() -> None:
    """A thread that waits for a client to read is free as soon as the client has gone, and the app can see that it has."""
    app = Flask("left")
    running, noticed = threading.Event(), threading.Event()

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(1_000_000) for _ in range(1000))

    @app.get("/patient")
    def patient() -> str:
        running.set()
        wait_until(request.environ["waitress.client_disconnected"], "the client to leave")
        noticed.set()
        return ""

    @app.get("/")
    def index() -> str:
        assert not request.environ["waitress.client_disconnected"]()
        return "hello"

    with in_thread(app, threads=1) as served:
        for path in ("/large", "/patient"):
            wire = Wire(served.address)
            wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            if path == "/large":
                assert wire.socket.recv(12) == b"HTTP/1.1 200"
            else:
                assert running.wait(PATIENCE)
            wire.socket.close()
            assert get(served.address).body == b"hello"
        assert noticed.is_set()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_nothing_leaks(folder: str) -> None:
    """After mixed load with random disconnects the process has as many threads, descriptors and channels as before."""
    seconds = sized(1.0, 3.0, 60.0)
    with in_thread(make_app(folder), **SETTINGS) as served:

        def load(seed: int) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                client = Client(served.address, seed)
                client.run()
                assert client.failures == []
                seed += 100

        def channels() -> int:
            gc.collect()
            return sum(isinstance(thing, Connection) for thing in gc.get_objects())

        get(served.address, "/quick/1/10")
        wait_until(lambda: not served.table)
        served.settle()  # it may be in the middle of that
        gc.collect()  # what tests before this one have left is closed now, or not at all
        descriptors = len(os.listdir("/proc/self/fd"))
        threads = [threading.Thread(target=load, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: not served.table)
        wait_until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, "all descriptors to be closed")
        assert channels() <= THREADS + 1  # a thread that rests may still hold its last one
        assert internals.service_threads(served.engine) <= THREADS + 1
