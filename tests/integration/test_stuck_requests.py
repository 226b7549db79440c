"""Views that do not come back: REQUEST_TIMEOUT, what becomes of their threads, REQUEST_TIMEOUT_RAISE, SLOW_REQUEST."""

from __future__ import annotations

import contextlib
import logging
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, appcontext_pushed, g, request

import internals
from internals import books, has_leader, service_threads
from serving import PATIENCE, ManualClock, Served, defaults, flask, in_thread, run, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

TIMEOUT = 60
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER: close with a reset."""


@dataclass
class Stuck:
    """An app with views that hang until the test lets them go."""

    app: Flask
    clock: ManualClock
    release: threading.Event = field(default_factory=threading.Event)
    running: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    events: list[str] = field(default_factory=list)

    def wait_for(self, count: int) -> None:
        """Until *count* more requests are inside a view."""
        for _ in range(count):
            assert self.running.acquire(timeout=PATIENCE)

    def hang_in_python(self) -> None:
        """Where an exception can come. By itself: in CPython 3.13 one that comes at the end of a loop escapes the handlers of the same
        function (python/cpython#130279).
        """
        until = time.monotonic() + PATIENCE
        while not self.release.is_set() and time.monotonic() < until:
            time.sleep(0.001)

    def none_came(self) -> bool:
        """Whether no other request is inside a view."""
        return not self.running.acquire(blocking=False)


def ask(wire: Wire, target: str = "/hang/1", *fields: str) -> None:
    wire.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *fields, "", ""]).encode())


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    app = Flask("stuck")
    stuck = Stuck(app, ManualClock())

    @app.route("/hang/<int:number>", methods=["GET", "POST"])
    def hang(number: int) -> str:
        request.get_data()
        stuck.running.release()
        assert stuck.release.wait(PATIENCE)
        return "late"

    @app.get("/stream-late")
    def stream_late() -> Response:
        stuck.running.release()
        assert stuck.release.wait(PATIENCE)

        def chunks() -> Iterator[bytes]:
            try:
                for _ in range(1000):
                    yield bytes(10_000)
                stuck.events.append("streamed")
            finally:
                stuck.events.append("closed")

        return Response(chunks())

    @app.get("/stream-now")
    def stream_now() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"first "
            stuck.running.release()
            assert stuck.release.wait(PATIENCE)
            yield b"last"

        return Response(chunks())

    @app.get("/compute")
    def compute() -> str:
        stuck.running.release()
        try:
            stuck.hang_in_python()
        except Exception:
            stuck.events.append("swallowed")
        finally:
            stuck.events.append("cleaned up")
        return "late"

    @app.get("/")
    def index() -> str:
        return "hello"

    yield stuck
    stuck.release.set()


@contextlib.contextmanager
def serving(stuck: Stuck, **options: Any) -> Iterator[Served]:
    """Serve, and let everything go before the server is stopped."""
    with in_thread(stuck.app, clock=stuck.clock, **{"request_timeout": TIMEOUT, **options}) as served:
        try:
            yield served
        finally:
            stuck.release.set()
            wait_until(lambda: served.stuck == 0, "all stuck threads to come back")


def get_hello(served: Served, count: int = 5) -> None:
    for _ in range(count):
        assert get(served.address).body == b"hello"


def statuses(served: Served, count: int) -> list[int]:
    """Of the *count* requests that must have been reported, and no more."""
    wait_until(lambda: len(served.done) >= count, f"{count} requests to be reported")
    return sorted(done.status for done in served.done)


def sees_no_reset(served: Served) -> bool:
    """waitress's loop does not watch a channel while its request runs."""
    return not has_leader(served.engine)


def live_threads(served: Served) -> int:
    """Service threads that *served* has."""
    return service_threads(served.engine)


def test_504_and_what_the_log_says(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """At REQUEST_TIMEOUT, and not before, the client gets 504 and an end, and the log the rule, the id, the age and the line of code."""
    with serving(stuck, threads=2) as served, Wire(served.address) as wire:
        ask(wire, "/hang/7", "X-Request-ID: id-1")
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT - 1)
        served.look()
        assert served.done == []
        stuck.clock.advance(2)
        served.look()
        response = wire.response()
        assert (response.status, response.get("connection")) == (504, "close")
        assert wire.closed()
        (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert message.startswith(
            "REQUEST_TIMEOUT: GET /hang/<int:number> (X-Request-ID id-1) has been running for 61.0s"
        )
        assert "client got 504" in message
        assert re.search(rf'File "{__file__}", line \d+, in hang\n +assert stuck.release.wait', message)
        assert "flask_prodserve" not in message.replace(__file__, ""), "the server's own frames tell nobody anything"
        get_hello(served)
        stuck.release.set()
        wait_until(lambda: served.stuck == 0)
        assert statuses(served, 6) == [200] * 5 + [504]
        (done,) = [done for done in served.done if done.status == 504]
        assert (done.method, done.target, done.total_seconds) == ("GET", "/hang/7", 61.0)
        assert served.engine.limit_events.counts["REQUEST_TIMEOUT"] == 1


def test_a_view_that_hangs_behind_a_stream(stuck: Stuck) -> None:
    """A stream ends to count against MAX_STREAMS before the request behind it begins, whatever becomes of that one."""
    enough = threading.Event()

    @stuck.app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"first "
            stuck.running.release()
            assert enough.wait(PATIENCE)
            yield b"last"

        return Response(chunks())

    with serving(stuck, threads=1, max_streams=1) as served, Wire(served.address) as wire:
        loop: Any = served.loop
        ask(wire, "/stream")
        ask(wire, "/hang/1")
        stuck.wait_for(1)
        stuck.clock.advance(5)
        served.look()
        assert loop._budget.streams == 1
        enough.set()
        stuck.wait_for(1)
        assert loop._budget.streams == 0
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert wire.response().body == b"first last"
        assert wire.response().status == 504
        get_hello(served)
        stuck.release.set()
        wait_until(lambda: loop.stuck == 0, "the stuck thread to come back")
        assert loop._budget.streams == 0
        wait_until(lambda: loop._budget.busy == 0, "all threads to be free")


def test_request_id_cannot_forge_log_lines(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """What a client calls its request is one line of printable text in the log."""
    with serving(stuck) as served, Wire(served.address) as wire:
        wire.send(b"GET /hang/7 HTTP/1.1\r\nHost: test\r\nX-Request-ID: \x85\xff\t\xe2\x80\xa8\r\n\r\n")
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert wire.response().status == 504
        (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert message.splitlines()[0].isascii()
        assert "X-Request-ID \\x85\\xff\\t\\xe2\\x80\\xa8)" in message.splitlines()[0]


def test_what_comes_late_is_discarded(stuck: Stuck) -> None:
    """What a view that was given up returns is not sent, whole or as a stream, whose iterator is closed; nothing else is disturbed."""
    with serving(stuck, threads=2) as served, Wire(served.address) as plain, Wire(served.address) as stream:
        ask(plain)
        ask(stream, "/stream-late")
        stuck.wait_for(2)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        stuck.release.set()
        for wire in (plain, stream):
            assert wire.response().status == 504
            assert wire.closed()
        wait_until(lambda: served.stuck == 0)
        assert stuck.events == ["closed"]
        get_hello(served)
        assert statuses(served, 7) == [200] * 5 + [504] * 2


def test_pipelined_behind_a_stuck_request(stuck: Stuck) -> None:
    """What a client had sent behind a request that was given up is dropped with its connection, and never reaches the app."""
    with serving(stuck) as served, Wire(served.address) as wire:
        wire.send(b"GET /hang/1 HTTP/1.1\r\nHost: test\r\n\r\n" * 3)
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert wire.response().status == 504
        assert wire.closed()
        stuck.release.set()
        wait_until(lambda: served.stuck == 0)
        get_hello(served)
        assert stuck.none_came()
        assert statuses(served, 6) == [200] * 5 + [504]


def test_bodies_of_stuck_requests_are_given_back(stuck: Stuck) -> None:
    """The body of a request that was given up counts as kept until its view has come back."""
    with serving(stuck) as served, Wire(served.address) as wire:
        wire.send(b"POST /hang/1 HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert wire.response("POST").status == 504
        stuck.release.set()
        wait_until(lambda: internals.spool(served.engine).size == 0, "the body to be given back")


def test_all_threads_stuck(stuck: Stuck) -> None:
    """With every thread in a view that hangs, /livez answers at once; from REQUEST_TIMEOUT on others are served by fresh threads."""
    with serving(stuck, threads=3, queue_timeout=1000) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(3)]
        for wire in wires:
            ask(wire)
        stuck.wait_for(3)
        assert get(served.address, "/livez").status == 200
        waiting = stack.enter_context(Wire(served.address))
        ask(waiting, "/")
        served.wait_for_queue(1)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert [wire.response().status for wire in wires] == [504] * 3
        assert waiting.response().body == b"hello"
        get_hello(served)
        assert get(served.address, "/livez").status == 200


def test_capacity_is_kept(stuck: Stuck) -> None:
    """As many requests run as before, and not more, once those that are stuck have been replaced; and again when they have returned."""
    threads = 3
    with serving(stuck, threads=threads, queue_timeout=1000) as served, contextlib.ExitStack() as stack:
        stuck_wires = [stack.enter_context(Wire(served.address)) for _ in range(2)]
        for wire in stuck_wires:
            ask(wire)
        stuck.wait_for(2)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        for _ in range(2):
            wires = [stack.enter_context(Wire(served.address)) for _ in range(threads + 2)]
            for wire in wires:
                ask(wire)
            stuck.wait_for(threads)
            served.wait_for_queue(2)
            served.look()
            assert stuck.none_came()
            stuck.release.set()
            assert [wire.response().body for wire in wires] == [b"late"] * len(wires)
            stuck.wait_for(2)
            wait_until(lambda: served.stuck == 0)
            stuck.release.clear()
        stuck.release.set()
        assert [wire.response().status for wire in stuck_wires] == [504, 504]
        wait_until(lambda: live_threads(served) <= threads + 1, "the threads on top to end")


def test_threads_that_are_given_up_are_bounded(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """Four times THREADS are given up; the next ones keep their places, one message says so, and it ends when they return."""
    threads = 2
    with serving(stuck, threads=threads, queue_timeout=10_000) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(6 * threads)]
        for wire in wires:
            ask(wire)
        for _ in range(5):
            stuck.wait_for(threads)
            stuck.clock.advance(TIMEOUT + 1)
            served.look()
        assert served.stuck == 4 * threads
        served.look()
        assert stuck.none_came()
        assert len([record for record in caplog.records if record.levelno == logging.CRITICAL]) == 1
        assert get(served.address, "/livez").status == 200
        stuck.release.set()
        assert sorted(wire.response().status for wire in wires) == [200] * (2 * threads) + [504] * (4 * threads)
        get_hello(served)
        wait_until(lambda: live_threads(served) <= threads + 1, "the threads on top to end")


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_client_that_left(stuck: Stuck, how: str) -> None:
    """The thread of a request whose client has gone is replaced at REQUEST_TIMEOUT as well, and the access log has its line."""
    with serving(stuck, threads=1) as served:
        with Wire(served.address) as wire:
            ask(wire)
            stuck.wait_for(1)
            if how == "reset":
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if how == "reset":
            wait_until(lambda: sees_no_reset(served) or not served.table, "the server to see the reset")
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert served.stuck == 1
        get_hello(served)
        stuck.release.set()
        wait_until(lambda: served.stuck == 0)
        wait_until(lambda: not served.table.orphaned)
        assert len([done for done in served.done if done.target == "/hang/1"]) == 1


def test_client_that_left_a_request_that_ends(stuck: Stuck) -> None:
    """A request whose client has gone, and that ends before its deadline, leaves nothing behind."""
    with serving(stuck, threads=1) as served:
        with Wire(served.address) as wire:
            ask(wire)
            stuck.wait_for(1)
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        wait_until(lambda: sees_no_reset(served) or len(served.table.orphaned) == 1)
        stuck.release.set()
        assert len(statuses(served, 1)) == 1
        wait_until(lambda: not books(served.engine).open, "the thread to be free")
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert served.stuck == 0
        assert len(statuses(served, 1)) == 1


def test_a_response_that_has_begun_is_not_cut(stuck: Stuck) -> None:
    """From the first byte of its response on a request may take as long as it likes."""
    with serving(stuck, threads=1) as served, Wire(served.address) as wire:
        ask(wire, "/stream-now")
        stuck.wait_for(1)
        stuck.clock.advance(100 * TIMEOUT)
        served.look()
        stuck.release.set()
        assert wire.response().body == b"first last"
        assert served.engine.limit_events.counts["REQUEST_TIMEOUT"] == 0


def test_no_timeout(stuck: Stuck) -> None:
    """0 is no limit."""
    with serving(stuck, request_timeout=0) as served, Wire(served.address) as wire:
        ask(wire)
        stuck.wait_for(1)
        stuck.clock.advance(100_000)
        served.look()
        stuck.release.set()
        assert wire.response().body == b"late"


def test_time_in_the_queue_does_not_count(stuck: Stuck) -> None:
    """REQUEST_TIMEOUT begins when the app is called."""
    with (
        serving(stuck, threads=1, queue_timeout=1000) as served,
        Wire(served.address) as first,
        Wire(served.address) as second,
    ):
        ask(first)
        stuck.wait_for(1)
        ask(second)
        served.wait_for_queue(1)
        stuck.clock.advance(TIMEOUT - 1)
        stuck.release.set()
        assert first.response().body == b"late"
        stuck.wait_for(1)
        stuck.release.clear()
        assert second.response().body == b"late"
        ask(first)
        ask(second)
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT - 1)
        stuck.release.set()
        assert [first.response().body, second.response().body] == [b"late", b"late"]
        assert statuses(served, 4) == [200] * 4


def test_health(stuck: Stuck) -> None:
    """More than half of THREADS stuck: not healthy and not ready, but alive; and healthy again when they have returned."""
    with serving(stuck, threads=4) as served, contextlib.ExitStack() as stack:
        for count in (1, 2, 3):
            wire = stack.enter_context(Wire(served.address))
            ask(wire)
            stuck.wait_for(1)
            stuck.clock.advance(TIMEOUT + 1)
            served.look()
            assert wire.response().status == 504
            assert served.engine.healthy == (count < 3)
            assert get(served.address, "/readyz").status == (200 if count < 3 else 503)
            assert get(served.address, "/livez").status == 200
        get_hello(served)
        stuck.release.set()
        wait_until(lambda: served.engine.healthy)
        assert get(served.address, "/readyz").status == 200


def test_a_stuck_thread_that_returns_while_another_runs(stuck: Stuck) -> None:
    """A thread that was given up and returns in the middle of another's request takes nothing away from that: all is counted right."""
    threads = 2

    @stuck.app.get("/free")
    def free() -> str:
        """Lets the stuck one go, and computes, for less than it takes to lose the lead, while it returns."""
        stuck.release.set()
        until = time.perf_counter() + 0.008
        while time.perf_counter() < until:
            pass
        return "freed"

    with serving(stuck, threads=threads, queue_timeout=1000) as served, contextlib.ExitStack() as stack:
        for _ in range(20):
            with Wire(served.address) as wire:
                ask(wire)
                stuck.wait_for(1)
                if has_leader(served.engine):
                    wait_until(lambda: not served.loop._steward.claim, "the steward to take over")  # type: ignore[attr-defined]
                stuck.clock.advance(TIMEOUT + 1)
                served.look()
                assert wire.response().status == 504
            assert get(served.address, "/free").body == b"freed"
            wait_until(lambda: served.stuck == 0, "the stuck thread to be counted off")
            stuck.release.clear()
        wires = [stack.enter_context(Wire(served.address)) for _ in range(threads + 2)]
        for wire in wires:
            ask(wire)
        stuck.wait_for(threads)
        served.wait_for_queue(2)
        assert stuck.none_came()
        stuck.release.set()
        assert [wire.response().body for wire in wires] == [b"late"] * len(wires)


APP = """
import threading
from flask import Flask
app = Flask(__name__)

@app.get("/hang")
def hang():
    while True:
        threading.Event().wait(0.1)
"""
WITHOUT_EPOLL = "import select\nvars(select).pop('epoll', None)\n"


def test_server_with_stuck_threads_stops(tmp_path: Path, way: str) -> None:
    """Threads that never come back do not keep a server from stopping, and are nobody's request any more."""
    (tmp_path / "app.py").write_text((WITHOUT_EPOLL if way == "portable" else "") + APP)
    arguments = ["--port", "0", "--threads", "3", "--request-timeout", "200ms", *defaults()]
    with run(flask("serve", *arguments), cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(server.address)) for _ in range(3)]
        for wire in wires:
            ask(wire, "/hang")
        assert [wire.response().status for wire in wires] == [504] * 3
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert "stopped; 0 requests finished, 0 cut" in server.output
        assert server.output.count("REQUEST_TIMEOUT: GET /hang has been running for") == 3
        assert server.output.count('"GET /hang HTTP/1.1" 504') == 3


# REQUEST_TIMEOUT_RAISE


def test_raise_unwinds_the_view(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """The view's finally runs although it is not let go, except Exception does not see it, it is logged once, and the thread comes back."""
    with serving(stuck, threads=1, request_timeout_raise=True) as served, Wire(served.address) as wire:
        ask(wire, "/compute")
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert wire.response().status == 504
        wait_until(lambda: served.stuck == 0, "the thread to come back")
        assert stuck.events == ["cleaned up"]
        get_hello(served)
        assert statuses(served, 6) == [200] * 5 + [504]
        assert [record.getMessage()[:15] for record in caplog.records if record.levelno >= logging.ERROR] == [
            "REQUEST_TIMEOUT"
        ]
        wait_until(lambda: live_threads(served) <= 2, "the thread on top to end")


def test_raise_when_the_call_returns(stuck: Stuck) -> None:
    """A view that waits inside a call of the system gets the exception once that returns, and what it would have sent is discarded."""
    with serving(stuck, threads=1, request_timeout_raise=True) as served, Wire(served.address) as wire:
        ask(wire)
        stuck.wait_for(1)
        stuck.clock.advance(TIMEOUT + 1)
        served.look()
        assert wire.response().status == 504
        assert served.stuck == 1
        get_hello(served)
        stuck.release.set()
        wait_until(lambda: served.stuck == 0)
        get_hello(served)
        assert statuses(served, 11) == [200] * 10 + [504]


def test_views_that_swallow_the_exception(stuck: Stuck) -> None:
    """A view that goes on after the exception is no worse than one that hangs: 504 once, and nothing of what it returns."""

    @stuck.app.get("/stubborn")
    def stubborn() -> str:
        stuck.running.release()
        while not stuck.release.is_set():
            with contextlib.suppress(BaseException):
                stuck.hang_in_python()
        return "late"

    @stuck.app.get("/translates")
    def translates() -> str:
        stuck.running.release()
        try:
            stuck.hang_in_python()
        except BaseException as error:
            stuck.events.append("translated")
            raise ValueError("something else") from error
        return "late"

    with serving(stuck, threads=2, request_timeout_raise=True) as served:
        with Wire(served.address) as one, Wire(served.address) as other:
            ask(one, "/stubborn")
            ask(other, "/translates")
            stuck.wait_for(2)
            stuck.clock.advance(TIMEOUT + 1)
            served.look()
            wait_until(lambda: stuck.events == ["translated"])
            stuck.release.set()
            for wire in (one, other):
                assert wire.response().status == 504
                assert wire.closed()
            wait_until(lambda: served.stuck == 0)
        get_hello(served)
        assert statuses(served, 7) == [200] * 5 + [504] * 2


def test_raise_around_the_deadline(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """Of many requests that end around their deadline each gets its own answer or 504, and none the exception of another."""
    clients, rounds = 6, 40
    answers: list[tuple[int, bool]] = []
    mixed: list[str] = []
    stop = threading.Event()

    @stuck.app.get("/about/<int:number>")
    def about(number: int) -> str:
        mixed.extend(f"{number} sees g of {other}" for other in (g.get("number"),) if other is not None)
        g.number = number
        until = time.monotonic() + random.random() * 0.02
        while time.monotonic() < until:
            if number % 2:
                time.sleep(0.0002)
        return str(number)

    def client(first: int) -> None:
        for number in range(first, first + rounds):
            response = get(served.address, f"/about/{number}")
            answers.append((response.status, response.body == str(number).encode()))

    def look() -> None:
        while not stop.is_set():
            served.look()

    with in_thread(
        stuck.app, threads=4, request_timeout=0.01, request_timeout_raise=True, queue_timeout=1000
    ) as served:
        threads = [threading.Thread(target=client, args=[1000 * number]) for number in range(clients)]
        looking = threading.Thread(target=look)
        for thread in [*threads, looking]:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        looking.join()
        wait_until(lambda: served.stuck == 0, "all threads to come back")
        assert set(answers) == {(200, True), (504, False)}
        assert len(answers) == clients * rounds
        assert statuses(served, clients * rounds) == sorted(status for status, _ in answers)
        assert mixed == []
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.name for record in errors} == {"flask_prodserve.engine"}
    assert len(errors) == [status for status, _ in answers].count(504)


def test_raise_leaves_no_context_of_flask(stuck: Stuck) -> None:
    """A view that is interrupted where Flask has half set up its context leaves nothing of it to the next request in its thread."""
    seen: list[object] = []

    def pushed(sender: Flask, **extra: object) -> None:
        if request_is_first():
            g.secret = "of the first"
            stuck.running.release()
            stuck.hang_in_python()

    first = threading.Lock()

    def request_is_first() -> bool:
        return first.acquire(blocking=False)

    @stuck.app.get("/secret")
    def secret() -> str:
        seen.append(g.get("secret"))
        return "seen"

    appcontext_pushed.connect(pushed, stuck.app)
    with serving(stuck, threads=1, request_timeout_raise=True) as served:
        with Wire(served.address) as wire:
            ask(wire, "/secret")
            stuck.wait_for(1)
            stuck.clock.advance(TIMEOUT + 1)
            served.look()
            assert wire.response().status == 504
            wait_until(lambda: served.stuck == 0, "the thread to come back")
        for _ in range(20):
            get(served.address, "/secret")
    assert set(seen) == {None}


# SLOW_REQUEST


def test_slow_request(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """The stack of a request that passes SLOW_REQUEST is logged once, while it runs; it may end as ever."""
    with serving(stuck, slow_request=2) as served, Wire(served.address) as wire, Wire(served.address) as stream:
        ask(wire, "/hang/1", "X-Request-ID: slow")
        ask(stream, "/stream-now")
        stuck.wait_for(2)
        for seconds in (1.5, 1, 10, 10):
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING] or seconds != 1
            stuck.clock.advance(seconds)
            served.look()
        (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert message.startswith(
            "SLOW_REQUEST: GET /hang/<int:number> (X-Request-ID slow) has been running for 2.5s. Its stack:\n"
        )
        assert "in hang\n" in message
        stuck.release.set()
        assert wire.response().body == b"late"
        assert stream.response().body == b"first last"


def test_slow_request_that_times_out(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    """A slow request is logged as slow, and later as timed out, once each."""
    with serving(stuck, slow_request=2) as served, Wire(served.address) as wire:
        ask(wire)
        stuck.wait_for(1)
        for _ in range(14):
            stuck.clock.advance(5)
            served.look()
        assert wire.response().status == 504
        first_words = [
            record.getMessage().partition(":")[0] for record in caplog.records if record.levelno >= logging.WARNING
        ]
        assert first_words == ["SLOW_REQUEST", "REQUEST_TIMEOUT"]
