"""Limits of single endpoints, from decorators and from ENDPOINT_LIMITS: timeout, max_body, max_concurrency, queue_timeout."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, request
from flask.views import MethodView

import internals
from flask_prodserve import ProdServe
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = pytest.mark.usefixtures("way")

limits = ProdServe.limits


@dataclass
class Bounded:
    """An app with bounded views that run until the test lets them go."""

    app: Flask
    clock: ManualClock
    release: threading.Event = field(default_factory=threading.Event)
    running: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    inside: int = 0
    most_inside: int = 0
    order: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.running.acquire(timeout=PATIENCE)

    def none_came(self) -> bool:
        return not self.running.acquire(blocking=False)

    @contextlib.contextmanager
    def counted(self, number: int) -> Iterator[None]:
        with self.lock:
            self.order.append(number)
            self.inside += 1
            self.most_inside = max(self.inside, self.most_inside)
        self.running.release()
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1


@pytest.fixture
def bounded() -> Iterator[Bounded]:
    app = Flask("bounded")
    bounded = Bounded(app, ManualClock())

    @app.route("/report/<int:number>", methods=["GET", "POST"])
    @limits(max_concurrency=2, queue_timeout=5)
    def report(number: int) -> str:
        with bounded.counted(number):
            request.get_data()
            assert bounded.release.wait(PATIENCE)
            return str(number)

    @app.get("/fails/<int:number>")
    @limits(max_concurrency=1)
    def fails(number: int) -> Response:
        with bounded.counted(number):
            if number % 4 == 0:
                raise RuntimeError("of the app")
            if number % 4 == 1:
                raise SystemExit
            if number % 4 == 2:
                return Response(bad_chunks())
            return Response("fine")

    def bad_chunks() -> Iterator[bytes]:
        yield b"one"
        raise RuntimeError("in the middle")

    @app.get("/quick/<int:number>")
    @limits(max_concurrency=2)
    def quick(number: int) -> str:
        with bounded.counted(number):
            if number % 3 == 0:
                time.sleep(0.003)
            return str(number)

    @app.get("/patient")
    @limits(timeout=300)
    def patient() -> str:
        return wait()

    @app.get("/hasty")
    @limits(timeout=5)
    def hasty() -> str:
        return wait()

    @app.get("/endless")
    @limits(timeout=0)
    def endless() -> str:
        return wait()

    @app.get("/usual")
    def usual() -> str:
        return wait()

    def wait() -> str:
        bounded.running.release()
        assert bounded.release.wait(PATIENCE)
        return "waited"

    @app.post("/small")
    @limits(max_body=1000)
    def small() -> str:
        return str(len(request.get_data()))

    @app.post("/large")
    @limits(max_body="1MiB")
    def large() -> str:
        return str(len(request.get_data()))

    @app.post("/none")
    @limits(max_body=0)
    def none() -> str:
        return str(len(request.get_data()))

    @app.post("/any")
    def any_size() -> str:
        return str(len(request.get_data()))

    @app.get("/")
    def index() -> str:
        return "hello"

    yield bounded
    bounded.release.set()


@contextlib.contextmanager
def serving(bounded: Bounded, **options: Any) -> Iterator[Served]:
    with in_thread(bounded.app, clock=bounded.clock, **{"threads": 6, **options}) as served:
        try:
            yield served
        finally:
            bounded.release.set()
            wait_until(lambda: served.stuck == 0)


def ask(wire: Wire, target: str) -> None:
    wire.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


def start(served: Served, stack: contextlib.ExitStack, *targets: str) -> list[Wire]:
    wires = [stack.enter_context(Wire(served.address)) for _ in targets]
    for wire, target in zip(wires, targets, strict=True):
        ask(wire, target)
    return wires


def queue(served: Served, stack: contextlib.ExitStack, *targets: str) -> list[Wire]:
    """Requests that wait, in that order."""
    wires = []
    for target in targets:
        before = internals.queued(served.engine)
        wires += start(served, stack, target)
        served.wait_for_queue(before + 1)
    return wires


# timeout


@pytest.mark.every_way
def test_timeout_of_an_endpoint(bounded: Bounded) -> None:
    """The endpoint's own timeout holds, whether it is shorter or longer than REQUEST_TIMEOUT, or none; others keep the general one."""
    with serving(bounded, request_timeout=60) as served, contextlib.ExitStack() as stack:
        hasty, usual, patient, endless = start(served, stack, "/hasty", "/usual", "/patient", "/endless")
        bounded.wait_for(4)
        stuck = []
        for seconds in (4, 2, 53, 2, 238, 2, 100_000):
            bounded.clock.advance(seconds)
            served.look()
            stuck.append(served.stuck)
        assert stuck == [0, 1, 1, 2, 2, 3, 3]
        assert [wire.response().status for wire in (hasty, usual, patient)] == [504] * 3
        bounded.release.set()
        assert endless.response().body == b"waited"


@pytest.mark.every_way
def test_timeout_without_a_general_one(bounded: Bounded) -> None:
    """Where REQUEST_TIMEOUT is off, an endpoint may have one all the same."""
    with serving(bounded, request_timeout=0) as served, contextlib.ExitStack() as stack:
        hasty, usual = start(served, stack, "/hasty", "/usual")
        bounded.wait_for(2)
        bounded.clock.advance(1000)
        served.look()
        assert hasty.response().status == 504
        bounded.release.set()
        assert usual.response().body == b"waited"


# max_body


def post(target: str, length: int, *fields: str) -> bytes:
    return "\r\n".join([f"POST {target} HTTP/1.1", "Host: test", f"Content-Length: {length}", *fields, "", ""]).encode()


@pytest.mark.parametrize(("target", "most"), [("/small", 1000), ("/large", 2**20), ("/any", 100_000), ("/none", 0)])
def test_max_body(bounded: Bounded, target: str, most: int) -> None:
    """The endpoint's own limit holds instead of MAX_BODY_SIZE, to the byte, and is applied to the head alone: no 100, no body."""
    with serving(bounded, max_body_size=100_000) as served:
        for fields in ((), ("Expect: 100-continue",)):
            with Wire(served.address) as wire:
                wire.send(post(target, most + 1, *fields))
                assert wire.socket.recv(12) == b"HTTP/1.1 413"
        with Wire(served.address) as wire:
            wire.send(post(target, most) + bytes(most))
            assert wire.response("POST").body == b"%d" % most


@pytest.mark.every_way
@pytest.mark.parametrize(("target", "most"), [("/small", 1000), ("/large", 2**20), ("/any", 100_000)])
def test_max_body_of_chunks(bounded: Bounded, target: str, most: int) -> None:
    """The same for a body whose length is not known."""
    head = f"POST {target} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with serving(bounded, max_body_size=100_000) as served:
        for size, status in ((most, 200), (most + 1, 413)):
            with Wire(served.address) as wire:
                wire.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)))
                assert wire.response("POST").status == status


def test_max_body_is_named(bounded: Bounded, caplog: pytest.LogCaptureFixture) -> None:
    """The log says that it was an endpoint's own limit, and whose; MAX_BODY_SIZE where there is none."""
    with serving(bounded, max_body_size=100_000) as served:
        for target in ("/small", "/small", "/any"):
            with Wire(served.address) as wire:
                wire.send(post(target, 2**20 + 1))
                assert wire.socket.recv(12) == b"HTTP/1.1 413"
        assert served.engine.limit_events.counts == {"max_body": 2, "MAX_BODY_SIZE": 1}
    assert [record.getMessage() for record in caplog.records if record.name == "flask_prodserve.limits"] == [
        "max_body: rejected request bodies over 1000 for small with 413",
        "MAX_BODY_SIZE: rejected request bodies over 100000 with 413",
    ]


def test_max_body_of_what_is_no_endpoint(bounded: Bounded) -> None:
    """Paths and methods that no view has fall under MAX_BODY_SIZE."""
    with serving(bounded, max_body_size=100_000) as served:
        for target in ("/nothing", "/patient", "/large/"):
            with Wire(served.address) as wire:
                wire.send(post(target, 100_001))
                assert wire.socket.recv(12) == b"HTTP/1.1 413"


# max_concurrency


@pytest.mark.every_way
def test_share_of_an_endpoint(bounded: Bounded) -> None:
    """No more of an endpoint run than it may have; others are served meanwhile; those that wait follow in the order they came."""
    go = threading.Semaphore(0)

    @bounded.app.get("/step/<int:number>")
    @limits(max_concurrency=2)
    def step(number: int) -> str:
        with bounded.counted(number):
            assert go.acquire(timeout=PATIENCE)
            return str(number)

    with serving(bounded) as served, contextlib.ExitStack() as stack:
        first = start(served, stack, "/step/1", "/step/2")
        bounded.wait_for(2)
        later = queue(served, stack, *(f"/step/{number}" for number in range(3, 9)))
        for _ in range(20):
            assert get(served.address).body == b"hello"
        assert bounded.none_came()
        for _ in later:
            go.release()
            bounded.wait_for(1)
        go.release(2)
        assert [wire.response().body for wire in [*first, *later]] == [b"%d" % number for number in range(1, 9)]
        assert bounded.most_inside == 2
        assert sorted(bounded.order[:2]) == [1, 2]
        assert bounded.order[2:] == [3, 4, 5, 6, 7, 8]


@pytest.mark.every_way
def test_share_of_all_threads(bounded: Bounded) -> None:
    """Requests that wait for their share hold no thread: with as many as there are threads waiting, others are served."""
    with serving(bounded, threads=3) as served, contextlib.ExitStack() as stack:
        start(served, stack, "/report/1", "/report/2")
        bounded.wait_for(2)
        waiting = queue(served, stack, *(f"/report/{number}" for number in range(3, 13)))
        for _ in range(20):
            assert get(served.address).body == b"hello"
        bounded.release.set()
        assert [wire.response().status for wire in waiting] == [200] * 10


@pytest.mark.every_way
def test_queue_timeout_of_an_endpoint(bounded: Bounded) -> None:
    """Those that wait for their share get 503 after the endpoint's own queue_timeout; the server is ready all the same."""
    with serving(bounded, queue_timeout=60) as served, contextlib.ExitStack() as stack:
        start(served, stack, "/report/1", "/report/2")
        bounded.wait_for(2)
        waiting = queue(served, stack, "/report/3", "/report/4")
        bounded.clock.advance(4)
        served.look()
        late = queue(served, stack, "/report/5")
        assert internals.queued(served.engine) == 3
        bounded.clock.advance(2)
        served.look()
        for wire in waiting:
            response = wire.response()
            assert (response.status, response.get("connection")) == (503, None)
            assert int(response.get("retry-after") or 0) > 0
        assert served.engine.limit_events.counts == {"max_concurrency": 2}
        assert get(served.address, "/readyz").status == 200
        bounded.release.set()
        assert late[0].response().body == b"5"
        ask(waiting[0], "/")
        assert waiting[0].response().body == b"hello"
        assert sorted(bounded.order) == [1, 2, 5]


@pytest.mark.every_way
def test_queue_timeout_where_threads_are_busy(bounded: Bounded) -> None:
    """The endpoint's queue_timeout also holds for the wait for a thread."""
    with serving(bounded, threads=1, queue_timeout=60, request_timeout=0) as served, contextlib.ExitStack() as stack:
        start(served, stack, "/usual")
        bounded.wait_for(1)
        report, usual = queue(served, stack, "/report/1", "/usual")
        bounded.clock.advance(6)
        served.look()
        assert report.response().status == 503
        assert internals.queued(served.engine) == 1
        bounded.clock.advance(53)
        served.look()
        assert internals.queued(served.engine) == 1
        bounded.clock.advance(2)
        served.look()
        assert usual.response().status == 503


@pytest.mark.every_way
def test_both_queues_count_as_one(bounded: Bounded) -> None:
    """A request that has waited for its share either has a thread then, or may wait for one only for the rest of its queue_timeout."""
    gate = threading.Event()

    @bounded.app.get("/gate/<int:number>")
    @limits(max_concurrency=1, queue_timeout=5)
    def gated(number: int) -> str:
        bounded.running.release()
        assert gate.wait(PATIENCE)
        return str(number)

    with serving(bounded, threads=2, queue_timeout=60, request_timeout=0) as served, contextlib.ExitStack() as stack:
        first, _ = start(served, stack, "/gate/1", "/usual")
        bounded.wait_for(2)
        second, _ = queue(served, stack, "/gate/2", "/usual")
        bounded.clock.advance(4)
        gate.set()
        assert first.response().body == b"1"
        bounded.wait_for(1)
        bounded.clock.advance(2)
        served.look()
        response = second.response()
        assert (response.status, response.body) == (200, b"2") or response.status == 503


@pytest.mark.every_way
def test_share_is_given_back_after_errors(bounded: Bounded) -> None:
    """However a request ends, its share goes to the next one."""
    with serving(bounded) as served:
        for number in range(24):
            with Wire(served.address) as wire:
                ask(wire, f"/fails/{number}")
                assert wire.socket.recv(12) == b"HTTP/1.1 %d" % (500 if number % 4 < 2 else 200)
        assert bounded.most_inside == 1
        assert len(bounded.order) == 24


@pytest.mark.every_way
def test_share_is_kept_after_timeouts(bounded: Bounded) -> None:
    """Requests that are given up keep their share until their view ends: what it protects is still in use."""
    with serving(bounded, request_timeout=60, queue_timeout=1000) as served, contextlib.ExitStack() as stack:
        stuck = start(served, stack, "/report/1", "/report/2")
        bounded.wait_for(2)
        bounded.clock.advance(58)
        waiting = queue(served, stack, "/report/3", "/report/4", "/report/5")
        bounded.clock.advance(3)
        served.look()
        assert [wire.response().status for wire in stuck] == [504, 504]
        assert served.stuck == 2
        assert internals.queued(served.engine) == 3
        assert bounded.none_came()
        assert get(served.address).body == b"hello"
        bounded.release.set()
        assert [wire.response().body for wire in waiting] == [b"3", b"4", b"5"]
        wait_until(lambda: served.stuck == 0)
        assert bounded.most_inside == 2
        bounded.wait_for(3)
        bounded.release.clear()
        start(served, stack, "/report/6", "/report/7", "/report/8")
        bounded.wait_for(2)
        served.wait_for_queue(1)
        assert bounded.none_came()


@pytest.mark.every_way
def test_an_endpoint_that_is_blocked(bounded: Bounded) -> None:
    """A server whose endpoint has nothing but requests that were given up, and sends others away for them, would be better replaced.

    It is ready for everything else meanwhile, and well again when one of them ends.
    """
    with serving(bounded, request_timeout=60) as served, contextlib.ExitStack() as stack:
        start(served, stack, "/report/1", "/report/2")
        bounded.wait_for(2)
        bounded.clock.advance(61)
        served.look()
        assert served.stuck == 2
        assert served.engine.healthy, "nobody waits for it"
        (waiting,) = queue(served, stack, "/report/3")
        bounded.clock.advance(6)
        served.look()
        assert waiting.response().status == 503
        assert not served.engine.healthy
        assert get(served.address, "/readyz").status == 200
        bounded.release.set()
        wait_until(lambda: served.engine.healthy)
        assert get(served.address, "/report/4").body == b"4"


@pytest.mark.every_way
@pytest.mark.parametrize("how", ["reset", "closed"])
def test_share_is_given_back_by_clients_that_left(bounded: Bounded, how: str) -> None:
    """Clients that leave while they wait are dropped, and those whose request runs lose their share when it ends."""
    with serving(bounded) as served, contextlib.ExitStack() as stack:
        running = start(served, stack, "/report/1", "/report/2")
        bounded.wait_for(2)
        waiting = queue(served, stack, *(f"/report/{number}" for number in range(3, 8)))
        for wire in [*running, *waiting[:4]]:
            if how == "reset":
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.socket.close()
        bounded.clock.advance(2)

        def dropped() -> bool:
            served.look()
            return internals.queued(served.engine) == 1

        wait_until(dropped)
        bounded.release.set()
        assert waiting[4].response().body == b"7"
        assert sorted(bounded.order) == [1, 2, 7]
        for number in range(10, 20):
            assert get(served.address, f"/report/{number}").body == b"%d" % number


@pytest.mark.every_way
def test_share_is_given_back_by_shed_requests(bounded: Bounded) -> None:
    """Requests that have their share and are shed while they wait for a thread give it back: the endpoint answers again afterwards."""
    with serving(bounded, threads=1, queue_timeout=60, request_timeout=0) as served, contextlib.ExitStack() as stack:
        start(served, stack, "/usual")
        bounded.wait_for(1)
        waiting = queue(served, stack, "/report/1", "/report/2")
        bounded.clock.advance(6)
        served.look()
        assert [wire.response().status for wire in waiting] == [503, 503]
        bounded.release.set()
        for number, wire in enumerate([*start(served, stack, "/report/3", "/report/4"), *waiting], 3):
            if number > 4:
                ask(wire, f"/report/{number}")
            assert wire.response().body == b"%d" % number


@pytest.mark.every_way
def test_pipelined_request_for_a_full_endpoint(bounded: Bounded) -> None:
    """A request that was pipelined behind another one waits when its endpoint is full, also where its thread could go on with it."""
    gate = threading.Event()

    @bounded.app.get("/gate")
    def gated() -> str:
        bounded.running.release()
        assert gate.wait(PATIENCE)
        return "gate"

    with serving(bounded, request_timeout=0, queue_timeout=60) as served, contextlib.ExitStack() as stack:
        running = start(served, stack, "/report/1", "/report/2")
        bounded.wait_for(2)
        wire = stack.enter_context(Wire(served.address))
        wire.send(b"".join(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % target for target in (b"/gate", b"/report/3")))
        bounded.wait_for(1)
        assert get(served.address).body == b"hello"  # so that another thread runs the loop by now
        gate.set()
        assert wire.response().body == b"gate"
        wait_until(lambda: internals.queued(served.engine) == 1 or bounded.inside > 2, "the pipelined request")
        assert bounded.inside == 2
        bounded.release.set()
        assert [one.response().body for one in [*running, wire]] == [b"1", b"2", b"3"]


@pytest.mark.every_way
def test_share_of_pipelined_requests(bounded: Bounded) -> None:
    """Pipelined requests of one connection take a share each, one after the other, and answers stay in order."""
    with serving(bounded) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(4)]
        for number, wire in enumerate(wires):
            wire.send(
                b"".join(
                    f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
                    for target in (f"/quick/{number}", "/", f"/report/{number}", "/", f"/quick/{number}")
                )
            )
        bounded.release.set()
        for number, wire in enumerate(wires):
            expected = [b"%d" % number, b"hello", b"%d" % number, b"hello", b"%d" % number]
            assert [wire.response().body for _ in expected] == expected
        assert internals.queued(served.engine) == 0


@pytest.mark.every_way
def test_share_under_load(bounded: Bounded) -> None:
    """Thousands of requests for bounded and unbounded views, quick and slow, are all answered, never more at a time than may be."""
    failures: list[object] = []
    with serving(bounded) as served:

        def client(seed: int) -> None:
            with Wire(served.address) as wire:
                for number in range(seed * 1000, seed * 1000 + 120):
                    target, expected = (f"/quick/{number}", b"%d" % number) if number % 4 else ("/", b"hello")
                    ask(wire, target)
                    response = wire.response()
                    if response.body != expected:
                        failures.append((target, response))

        clients = [threading.Thread(target=client, args=[seed]) for seed in range(8)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert failures == []
        assert bounded.most_inside <= 2
        (share,) = [share for share in internals.shares(served.engine) if share.most == 2]
        wait_until(lambda: share.running == 0, "all shares to be given back")
        assert not share.waiting


# Where they are said


def test_config_is_stronger(bounded: Bounded) -> None:
    """ENDPOINT_LIMITS in app.config overrules the decorator, bounds views that have none, and leaves alone what it does not name."""
    bounded.app.config["PRODSERVE_ENDPOINT_LIMITS"] = {
        "small": {"max_body": "2KiB"},
        "report": {"max_concurrency": 1},
        "usual": {"timeout": "7s"},
    }
    with serving(bounded, max_body_size=100_000, queue_timeout=60) as served, contextlib.ExitStack() as stack:
        with Wire(served.address) as wire:
            wire.send(post("/small", 2048) + bytes(2048))
            assert wire.response("POST").body == b"2048"
        (usual,) = start(served, stack, "/usual")
        (first,) = start(served, stack, "/report/1")
        bounded.wait_for(2)
        (second,) = queue(served, stack, "/report/2")
        bounded.clock.advance(6)  # beyond the queue_timeout that the decorator says
        served.look()
        assert second.response().status == 503
        bounded.clock.advance(2)
        served.look()
        assert usual.response().status == 504
        bounded.release.set()
        assert first.response().body == b"1"


def test_blueprint_and_class(bounded: Bounded) -> None:
    """Limits of a blueprint hold for each of its views by itself, and those of a view class for all of its methods together."""
    blueprint = Blueprint("shop", __name__, url_prefix="/shop")
    limits(max_concurrency=1, max_body=10)(blueprint)

    @blueprint.get("/one/<int:number>")
    def one(number: int) -> str:
        with bounded.counted(number):
            assert bounded.release.wait(PATIENCE)
            return str(number)

    @blueprint.get("/two/<int:number>")
    def two(number: int) -> str:
        return one(number)

    @limits(max_concurrency=1)
    class Item(MethodView):
        def get(self) -> str:
            return one(100)

        def post(self) -> str:
            return one(101)

    bounded.app.register_blueprint(blueprint)
    bounded.app.add_url_rule("/item", view_func=Item.as_view("item"))
    with serving(bounded, queue_timeout=1000) as served, contextlib.ExitStack() as stack:
        start(served, stack, "/shop/one/1", "/shop/two/2", "/item")
        bounded.wait_for(3)
        queue(served, stack, "/shop/one/3", "/shop/two/4")
        poster = stack.enter_context(Wire(served.address))
        poster.send(b"POST /item HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
        served.wait_for_queue(3)
        with Wire(served.address) as wire:
            wire.send(b"GET /shop/one/9 HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n")
            assert wire.socket.recv(12) == b"HTTP/1.1 413"
        bounded.release.set()
        assert poster.response("POST").body == b"101"


def test_hosts_that_are_none() -> None:
    """A Host that no name can have is the app's to refuse, also where rules are for hosts, and disturbs nobody else."""
    app = Flask("hosts", host_matching=True, static_folder=None)

    @app.get("/", host="test")
    @limits(max_concurrency=1)
    def index() -> str:
        time.sleep(0.02)  # long enough to be remembered as one that waits
        return "hello"

    with in_thread(app, threads=2) as served:
        for _ in range(3):
            assert get(served.address).body == b"hello"
            for host in ("a..b", "x" * 70, f"{'x' * 70}.test", ".", "test:99999"):
                with Wire(served.address) as wire:
                    wire.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    assert wire.response().status in (400, 404), host
            assert get(served.address).body == b"hello"
