"""Short deadlines, small limits and clients of every kind, with threads held up at the worst places: in the end nothing is left over."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request

import internals
from flask_prodserve import ProdServe
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.sender import Sender
from flask_prodserve.engine.dispatch.admission import Admission
from flask_prodserve.engine.dispatch.dispatcher import Dispatcher
from flask_prodserve.engine.dispatch.leadership import Leadership
from flask_prodserve.engine.dispatch.portable import PortableLoop
from flask_prodserve.engine.exchange.task import Task
from holdups import delayed
from internals import books
from serving import PATIENCE, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

CLIENTS = 12
SECONDS = 2.0
"""How long it lasts; longer where the machine is so busy that fewer than ANSWERS are in time."""

ANSWERS = 50
THREADS = 4

HOLD_UP_SECONDS = 0.01

POINTS: dict[type, list[str]] = {
    Dispatcher: ["_run_queued", "_run", "_go_on", "_serve", "abandoned", "move_to_stream_budget", "withdraw"],
    Leadership: ["_begin", "_handle", "_take_over"],
    PortableLoop: ["submit"],
    Connection: [
        "answer",
        "finish_turn",
        "handle_write",
        "pause",
        "received",
        "close",
        "abandon",
        "refuse",
    ],
    Sender: ["write"],
    Admission: ["admit", "release", "withdraw"],
    Task: ["service"],
}
"""Where a thread may lose the processor between two steps."""


def make_app(inside: Counter[str], most: Counter[str]) -> Flask:
    app = Flask("everything")
    lock = threading.Lock()

    @contextlib.contextmanager
    def counted(kind: str) -> Iterator[None]:
        with lock:
            inside[kind] += 1
            most[kind] = max(most[kind], inside[kind])
        try:
            yield
        finally:
            with lock:
                inside[kind] -= 1

    @app.route("/<kind>/<token>", methods=["GET", "POST"])
    def work(kind: str, token: str) -> Response:
        seconds = {"quick": 0.0, "wait": 0.004, "hang": 0.16}.get(kind, 0.0) * random.random()
        if seconds:
            time.sleep(seconds)
        return answer(token)

    @app.route("/bounded/<token>", methods=["GET", "POST"])
    @ProdServe.limits(max_concurrency=2, queue_timeout=0.1, timeout=10)
    def bounded(token: str) -> Response:
        with counted("bounded"):
            time.sleep(random.random() * 0.01)
            return answer(token)

    @app.route("/bounded-hang/<token>", methods=["GET", "POST"])
    @ProdServe.limits(max_concurrency=1, timeout=0.04)
    def bounded_hang(token: str) -> Response:
        time.sleep(random.random() * 0.08)
        return answer(token)

    @app.route("/stream/<token>", methods=["GET", "POST"])
    def stream(token: str) -> Response:
        body = content(token, request.get_data())
        return Response(body[start : start + 7000] for start in range(0, len(body), 7000))

    def answer(token: str) -> Response:
        return Response(content(token, request.get_data()))

    return app


def content(token: str, body: bytes) -> bytes:
    seed = hashlib.sha256(token.encode() + body).digest()
    size = [0, 10, 5000, 200_000, 3_000_000][seed[0] % 5]
    return (seed * (size // len(seed) + 1))[:size]


def was_cut(error: Exception) -> bool:
    """Whether the connection ended before a response did, which is what slow clients get."""
    ends = (
        "closed before the response was complete",
        "closed connection without",
        "can't handle event type ConnectionClosed",
    )
    return isinstance(error, (ConnectionError, TimeoutError, ssl.SSLEOFError)) or any(
        text in str(error) for text in ends
    )


class Clock:
    """The system's, until the test stops it: nothing is too late from then on."""

    def __init__(self) -> None:
        self._stopped: float | None = None

    def __call__(self) -> float:
        return time.monotonic() if self._stopped is None else self._stopped

    def stop(self) -> None:
        self._stopped = time.monotonic()


class Client:
    """Sends requests of every kind until it is told to stop; whatever is answered with 200 must be right."""

    def __init__(self, served: Served, seed: int, stop: threading.Event) -> None:
        self.address = served.address
        self.random = random.Random(seed)
        self.stop = stop
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                with Wire(self.address) as wire:
                    self._use(wire)
            except Exception as error:
                if was_cut(error):
                    self.statuses[0] += 1
                else:
                    self.failures.append(repr(error))

    def _use(self, wire: Wire) -> None:
        for _ in range(self.random.choice([1, 2, 5, 20])):
            batch = [self._request() for _ in range(self.random.choice([1, 1, 1, 3]))]
            data = b"".join(sent for sent, _ in batch)
            chance = self.random.random()
            if chance < 0.06:
                wire.send(data[: self.random.randrange(len(data) + 1)])
                if self.random.random() < 0.5:
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            if chance < 0.1:  # stops in the middle, and waits to be told
                wire.send(data[: self.random.randrange(1, len(data))])
                wire.socket.settimeout(1)
                self.statuses[wire.response("POST").status] += 1
                return
            if chance < 0.14:  # does not read
                wire.send(data)
                threading.Event().wait(self.random.random() * 0.3)
            else:
                wire.send(data)
            for _, expected in batch:
                response = wire.response("POST")
                self.statuses[response.status] += 1
                if response.status == 200 and response.body != expected:
                    self.failures.append(f"{len(response.body)} bytes instead of {len(expected)}")
                if response.get("connection") == "close":
                    return

    def _request(self) -> tuple[bytes, bytes]:
        kind = self.random.choice(["quick"] * 4 + ["wait", "hang", "bounded", "bounded", "bounded-hang", "stream"])
        token = f"{self.random.randrange(10**12)}"
        body = self.random.randbytes(self.random.choice([0, 0, 100, 20_000, 700_000]))
        head = f"POST /{kind}/{token} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body, content(token, body)


@pytest.mark.parametrize("raises", [False, True])
def test_everything_at_once(monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    """Whatever comes together, answers are right, limits hold, and all that was taken is given back."""
    inside: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for owner, names in POINTS.items():
        for name in names:
            monkeypatch.setattr(owner, name, delayed(getattr(owner, name), HOLD_UP_SECONDS))
    settings: dict[str, Any] = {
        "threads": THREADS,
        "request_timeout": 0.08,
        "request_timeout_raise": raises,
        "queue_timeout": 0.1,
        "header_timeout": 0.2,
        "body_timeout": 0.2,
        "send_timeout": 0.1,
        "keepalive_timeout": 1,
        "max_connections": 10,
        "max_keepalive_requests": 30,
        "max_spool": "2MiB",
        "max_streams": 2,
        "slow_request": 0.05,
    }
    clock, stop = Clock(), threading.Event()
    with in_thread(make_app(inside, most), clock=clock, **settings) as served:
        clients = [Client(served, seed, stop) for seed in range(CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        began = time.monotonic()

        def over() -> bool:
            seconds = time.monotonic() - began
            enough = sum(client.statuses[200] for client in clients) > ANSWERS
            return seconds > (SECONDS if enough else PATIENCE)

        for thread in threads:
            thread.start()
        try:
            while not over():
                served.look()
        finally:
            stop.set()
        for thread in threads:
            thread.join()
        assert [client.failures for client in clients if client.failures] == []
        statuses = sum((client.statuses for client in clients), Counter[int]())
        assert statuses.keys() <= {0, 200, 408, 500, 503, 504}, statuses
        assert not statuses[500] or raises, "only a view that was interrupted has an excuse"
        assert statuses[200] > ANSWERS, statuses
        assert most["bounded"] <= 2

        connections, loop = served.table, served.loop
        wait_until(lambda: (served.look(), not connections)[1], "all connections to be closed")
        wait_until(lambda: loop.stuck == 0, "all threads to come back")
        wait_until(lambda: not connections.orphaned)
        wait_until(lambda: internals.spool(served.engine).size == 0, "all that was kept to be given back")
        assert internals.queued(served.engine) == 0
        assert not connections._turned_away
        shares = internals.shares(served.engine)
        assert shares
        for share in shares:
            wait_until(lambda share=share: share.running == 0, "all shares to be given back")
            assert not share.waiting
        assert books(served.engine).streams == 0
        wait_until(lambda: books(served.engine).busy == 0, "all threads to be free")
        clock.stop()
        for _ in range(10):
            assert get(served.address, "/quick/1").body == content("1", b"")
