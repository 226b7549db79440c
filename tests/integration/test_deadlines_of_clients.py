"""Clients that are slow, in each phase of a connection: cut at their deadline and not before, and only where it is their fault."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from flask import Flask, Response, request

import internals
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.lingering import LINGER_BYTES, LINGER_SECONDS
from flask_prodserve.engine.exchange.request import RECEIVE_BYTES
from flask_prodserve.engine.guard import clients
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get, is_reset

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = 14_000_000
"""More than the system's buffers take, and less than a thread has to wait for."""

TOO_FAST = 10_000_000
"""A rate for a reader that is to be too slow, although its system goes on to take something by itself, some of it after a moment."""

release = threading.Event()


class Client(Wire):
    """Sends each byte at once."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        super().__init__(address)
        if not isinstance(address, str):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def make_app() -> Flask:
    app = Flask("deadlines")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.post("/echo")
    def echo() -> bytes:
        return request.get_data()

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(LARGE))

    @app.get("/held")
    def held() -> str:
        assert release.wait(PATIENCE)
        return "held"

    @app.get("/events")
    def events() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"one "
            assert release.wait(PATIENCE)
            yield b"two"

        return Response(chunks())

    return app


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    release.clear()
    yield ManualClock()
    release.set()


@pytest.fixture
def served(clock: ManualClock) -> Iterator[Served]:
    """With the defaults, but for requests that the app takes its time for."""
    with in_thread(make_app(), clock=clock, request_timeout=0) as served:
        yield served
        release.set()


def channel_of(served: Served) -> Connection:
    """The only connection, once it is there."""
    wait_until(lambda: len(served.table) == 1)
    (channel,) = served.connections
    return channel


def ask(wire: Client, served: Served) -> None:
    """One request and its answer, after which the connection is idle: the client's system acknowledges a little later."""
    wire.send(HEAD)
    assert wire.response().body == b"hello"
    wait_until(lambda: not channel_of(served).running and not channel_of(served).transport.unacknowledged)


def pass_time(served: Served, clock: ManualClock, seconds: float) -> None:
    """Have the server look, then *seconds* pass, and have it look again."""
    served.look()
    clock.advance(seconds)
    served.look()


def take(wire: Client, count: int) -> int:
    """Take *count* bytes of a response."""
    left = count
    while left:
        left -= len(wire.socket.recv(left))
    return count


def messages(caplog: pytest.LogCaptureFixture, setting: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage().startswith(f"{setting}: ")]


# The end of a connection.


def test_client_that_does_not_close(clock: ManualClock) -> None:
    """A connection that the server has shut down is closed after LINGER_SECONDS if its client does not close it, and not before."""
    with in_thread(make_app(), clock=clock, max_keepalive_requests=1) as served, Wire(served.address) as wire:
        wire.send(HEAD)
        response = wire.response()
        assert (response.body, response.get("connection")) == (b"hello", "close")
        assert wire.closed(), "the server has shut it down"
        channel = channel_of(served)
        wait_until(lambda: not channel.transport.unacknowledged, "the client's system to have the response")
        pass_time(served, clock, LINGER_SECONDS - 0.5)
        assert served.table
        clock.advance(1)
        # The client's system acknowledges the end a little later.
        wait_until(lambda: served.look() or not served.table, "the connection to be closed")


# The head of a request.


@pytest.mark.parametrize("nothing", [b"", b"\r\n"])
def test_nothing_after_connect(served: Served, clock: ManualClock, nothing: bytes) -> None:
    """A connection on which no request begins is closed at HEADER_TIMEOUT, without a status; blank lines are nothing."""
    with Client(served.address) as wire:
        channel = channel_of(served)
        for _ in range(2):
            wire.send(nothing)
            pass_time(served, clock, 7)
        assert channel.connected
        wire.send(nothing)
        pass_time(served, clock, 2)
        assert wire.closed()
    assert served.engine.limit_events.counts == {"HEADER_TIMEOUT": 1}
    assert served.done == []


def test_a_byte_in_the_moment_of_the_cut(served: Served, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends something just when the server closes sees an end, and no reset."""
    close = Connection.close

    def close_late(channel: Connection) -> None:
        if channel.connected:
            socket.socket.send(wire.socket, b"x")  # past TLS
        close(channel)

    with Client(served.address) as wire:
        channel_of(served)
        monkeypatch.setattr(Connection, "close", close_late)
        pass_time(served, clock, 16)
        assert wire.closed()


@pytest.mark.parametrize("request_before", [False, True])
def test_drip_of_a_head(
    served: Served, clock: ManualClock, caplog: pytest.LogCaptureFixture, request_before: bool
) -> None:
    """A byte now and then does not extend HEADER_TIMEOUT: 408 with the setting's name, and an end."""
    with Client(served.address) as wire:
        if request_before:
            ask(wire, served)
            pass_time(served, clock, 90)
        for byte in HEAD[:7]:
            wire.send(bytes([byte]))
            pass_time(served, clock, 2)
        assert channel_of(served).connected
        wire.send(HEAD[7:8])
        pass_time(served, clock, 2)
        response = wire.response()
        assert (response.status, response.get("connection")) == (408, "close")
        assert b"HEADER_TIMEOUT" in response.body
        assert wire.closed()
    (record,) = messages(caplog, "HEADER_TIMEOUT")
    assert record.levelno == logging.WARNING
    wait_until(lambda: [done.status for done in served.done][-1:] == [408])


def test_new_connection_counts_from_the_start(served: Served, clock: ManualClock) -> None:
    """On a new connection HEADER_TIMEOUT begins with the connection, not with the first byte."""
    with Client(served.address) as wire:
        channel_of(served)
        pass_time(served, clock, 14)
        wire.send(HEAD[:5])
        pass_time(served, clock, 2)
        assert wire.response().status == 408


def test_blank_line_between_requests_begins_nothing(served: Served, clock: ManualClock) -> None:
    """HEADER_TIMEOUT, and the time that the log gives, begin with the first byte of the request, not with a blank line before it."""
    with Client(served.address) as wire:
        ask(wire, served)
        wire.send(b"\r\n")
        pass_time(served, clock, 50)
        wire.send(HEAD[:10])
        pass_time(served, clock, 1)
        wire.send(HEAD[10:])
        assert wire.response().body == b"hello"
        wait_until(lambda: len(served.done) == 2)
        assert served.done[1].total_seconds == 1


def test_blank_lines_in_pieces(served: Served, clock: ManualClock) -> None:
    """They are what they are in one piece: four are overlooked, a fifth is refused, and so is one that does not end."""
    for pieces, status in [
        ([b"\r", b"\n" + HEAD], 200),
        ([b"\r\n", b"\r\n\r", b"\n\r", b"\n", HEAD], 200),
        ([b"\r\n"] * 5, 400),
        ([b"\r", HEAD], 400),
    ]:
        with Client(served.address) as wire:
            ask(wire, served)
            for piece in pieces:
                wire.send(piece)
                served.settle()
            assert wire.response().status == status


def test_slow_head_that_is_fast_enough(served: Served, clock: ManualClock) -> None:
    """A head that is complete within HEADER_TIMEOUT is served."""
    with Client(served.address) as wire:
        for start in range(0, len(HEAD), 4):
            wire.send(HEAD[start : start + 4])
            pass_time(served, clock, 14 / (len(HEAD) / 4 + 1))
        assert wire.response().body == b"hello"


def test_many_slow_heads(served: Served, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """A crowd of slow clients is cut at once, each is told so, and the log has one line."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Client(served.address)) for _ in range(180)]
        for wire in wires:
            wire.send(HEAD[:9])
        wait_until(lambda: len(served.table) == len(wires))
        pass_time(served, clock, 16)
        assert [wire.response().status for wire in wires] == [408] * len(wires)
        assert get(served.address).body == b"hello"
    assert len(messages(caplog, "HEADER_TIMEOUT")) == 1
    assert served.engine.limit_events.counts["HEADER_TIMEOUT"] == len(wires)


# The body of a request.

LENGTH = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("head", [LENGTH, CHUNKED])
def test_body_that_stops(served: Served, clock: ManualClock, head: bytes) -> None:
    """BODY_TIMEOUT without a byte, however much there was before, is 408."""
    with Client(served.address) as wire:
        wire.send(head + (b"fffff\r\n" if head is CHUNKED else b"") + bytes(50_000))
        pass_time(served, clock, 29)
        assert channel_of(served).connected
        pass_time(served, clock, 2)
        response = wire.response("POST")
        assert (response.status, response.get("connection")) == (408, "close")
        assert b"BODY_TIMEOUT" in response.body
        assert wire.closed()
    wait_until(lambda: internals.spool(served.engine).size == 0)
    assert [(done.method, done.status) for done in served.done] == [("POST", 408)]


def test_no_body_after_100_continue(served: Served, clock: ManualClock) -> None:
    """A client that asks whether it may send its body, and does not, is cut like one that does not ask."""
    with Client(served.address) as wire:
        wire.send(LENGTH[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        pass_time(served, clock, 31)
        assert wire.response("POST").status == 408


@pytest.mark.parametrize(
    ("head", "part", "status"),
    [
        (LENGTH, bytes(200), 408),
        (LENGTH, bytes(300), 200),
        (CHUNKED, b"c8\r\n" + bytes(200) + b"\r\n", 408),
        (CHUNKED, b"12c\r\n" + bytes(300) + b"\r\n", 200),
        (CHUNKED, b"1;" + b"x" * 200 + b"\r\nx\r\n", 408),  # what is no body does not count
    ],
)
def test_rate_of_a_body(served: Served, clock: ManualClock, head: bytes, part: bytes, status: int) -> None:
    """From five seconds on a body that is slower than MIN_BODY_RATE on average is 408, and one that is faster is not."""
    with Client(served.address) as wire:
        wire.send(head)
        for seconds in range(1, 21):
            wire.send(part)
            pass_time(served, clock, 1)
            if status == 408 and seconds == 5:
                assert channel_of(served).connected
            if status == 408 and seconds == 6:
                break
        if status == 200:
            wire.send(bytes(100_000 - 20 * 300) if head is LENGTH else b"0\r\n\r\n")
        response = wire.response("POST")
        assert response.status == status
        assert (b"MIN_BODY_RATE" in response.body) == (status == 408)


def test_body_that_comes_almost_at_once(served: Served, clock: ManualClock) -> None:
    """A client that sends almost all of its body at once, and then a byte now and then, is cut after ten seconds or a little more."""
    with Client(served.address) as wire:
        wire.send(LENGTH + bytes(90_000))
        seconds = 0
        while not served.engine.limit_events.counts:
            wire.send(b"x")
            pass_time(served, clock, 1)
            seconds += 1
            assert seconds < 20
        assert seconds > 10
        response = wire.response("POST")
        assert response.status == 408
        assert b"MIN_BODY_RATE" in response.body


def has_come(served: Served, count: int) -> bool:
    """Whether so many bytes of the only body have been read."""
    request = channel_of(served).receiver.incoming
    return request is not None and request.body_received == count


def test_pauses_of_a_body(served: Served, clock: ManualClock) -> None:
    """A client that pauses for long, and makes up for it when it comes back, is not too slow."""
    with Client(served.address) as wire:
        wire.send(LENGTH)
        for count, pause in enumerate((4, 9, 14, 29), 1):
            wire.send(bytes(20_000))
            wait_until(partial(has_come, served, 20_000 * count))
            pass_time(served, clock, pause)
        wire.send(bytes(20_000))
        assert len(wire.response("POST").body) == 100_000
    assert served.engine.limit_events.counts == {}


def test_rate_is_an_average(served: Served, clock: ManualClock) -> None:
    """A body may come in bursts: what came fast makes up for a pause."""
    with Client(served.address) as wire:
        wire.send(LENGTH + bytes(10_000))
        for _ in range(20):
            pass_time(served, clock, 1)
        assert channel_of(served).connected
        wire.send(bytes(90_000))
        assert len(wire.response("POST").body) == 100_000


def test_slow_body_without_rate(clock: ManualClock) -> None:
    """0 is no rate: a byte before each BODY_TIMEOUT is enough."""
    with in_thread(make_app(), clock=clock, min_body_rate=0) as served, Client(served.address) as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            pass_time(served, clock, 29)
            wire.send(b"x")
        assert wire.response("POST").body == b"x" * 10


# Between requests.


def test_idle(served: Served, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """A kept connection is closed at KEEPALIVE_TIMEOUT, without a status, and that is worth no more than a debug line."""
    caplog.set_level(logging.DEBUG)
    with Client(served.address) as wire:
        ask(wire, served)
        pass_time(served, clock, 99)
        ask(wire, served)
        pass_time(served, clock, 99)
        assert channel_of(served).connected
        pass_time(served, clock, 2)
        assert wire.closed()
    (record,) = messages(caplog, "KEEPALIVE_TIMEOUT")
    assert record.levelno == logging.DEBUG


def test_blank_lines_do_not_keep_a_connection(served: Served, clock: ManualClock) -> None:
    """A drip of blank lines between requests does not extend KEEPALIVE_TIMEOUT."""
    with Client(served.address) as wire:
        ask(wire, served)
        for _ in range(3):
            wire.send(b"\r\n")
            pass_time(served, clock, 30)
        assert channel_of(served).connected
        wire.send(b"\r\n")
        pass_time(served, clock, 11)
        assert wire.closed()
    assert served.engine.limit_events.counts == {"KEEPALIVE_TIMEOUT": 1}


@pytest.mark.parametrize(
    ("second", "left"), [(HEAD[:12], HEAD[12:]), (LENGTH + bytes(100), bytes(99_900)), (b"\r\n", HEAD)]
)
def test_pipelined_behind_a_long_request(served: Served, clock: ManualClock, second: bytes, left: bytes) -> None:
    """While a request runs, no deadline of the one that came behind it passes; it begins when it is that one's turn."""
    with Client(served.address) as wire:
        wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n" + second)
        wait_until(lambda: channel_of(served).running)
        pass_time(served, clock, 10_000)
        release.set()
        assert wire.response().body == b"held"
        pass_time(served, clock, 4)
        wire.send(left)
        assert wire.response().status == 200


def test_pipelined_head_that_does_not_end(served: Served, clock: ManualClock) -> None:
    """The rest of a pipelined head has HEADER_TIMEOUT from the moment at which it is its turn."""
    with Client(served.address) as wire:
        wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n" + HEAD[:12])
        wait_until(lambda: channel_of(served).running)
        pass_time(served, clock, 10_000)
        release.set()
        assert wire.response().body == b"held"
        wait_until(lambda: not channel_of(served).running)
        pass_time(served, clock, 14)
        assert channel_of(served).connected
        pass_time(served, clock, 2)
        assert wire.response().status == 408


def test_a_request_that_runs(served: Served, clock: ManualClock) -> None:
    """While the app works, or its stream has a pause, nobody expects anything of the client."""
    with Client(served.address) as plain, Client(served.address) as stream:
        plain.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        stream.send(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: sum(channel.running for channel in served.connections) == 2)
        for _ in range(5):
            pass_time(served, clock, 1000)
        release.set()
        assert plain.response().body == b"held"
        assert stream.response().body == b"one two"
    assert served.engine.limit_events.counts == {}


# Taking a response.


def start_large(sock: socket.socket, served: Served) -> Connection:
    """Ask for a large response, and read nothing of it; return when all of it is kept for the client."""
    sock.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
    channel = channel_of(served)
    wait_until(lambda: served.done and not channel.running, "the response to be kept")
    served.settle()
    assert channel.output.size
    return channel


def test_reader_that_stops(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Who takes nothing of a response for SEND_TIMEOUT is reset, and nothing is kept for it any longer."""
    with in_thread(make_app(), clock=clock, min_send_rate=0) as served, Client(served.address) as wire:
        channel = start_large(wire.socket, served)
        served.look()
        pass_time(served, clock, 29)
        assert internals.spool(served.engine).size > 0
        # Once more, where its system has taken something by itself meanwhile.
        wait_until(lambda: pass_time(served, clock, 2) or not served.table)
        assert clock.now - internals.last_taken(channel) <= 32
        assert internals.spool(served.engine).size == 0
        assert is_reset(wire.socket)
        assert len(messages(caplog, "SEND_TIMEOUT")) == 1


def test_reader_that_is_too_slow(clock: ManualClock, caplog: pytest.LogCaptureFixture, way: str) -> None:
    """From five seconds on who takes a response more slowly than MIN_SEND_RATE is reset, although it takes some of it."""
    if way == "tls":
        pytest.skip("a record is taken as a whole, however little of it is read")
    with in_thread(make_app(), clock=clock, min_send_rate=TOO_FAST) as served, socket.socket() as narrow:
        narrow.settimeout(PATIENCE)
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that its system takes little by itself
        narrow.connect(served.address)
        start_large(narrow, served)
        served.look()
        for _ in range(5):
            assert narrow.recv(100)
            pass_time(served, clock, 1)
        assert served.table
        pass_time(served, clock, 1)
        assert not served.table
        assert is_reset(narrow)
        assert len(messages(caplog, "MIN_SEND_RATE")) == 1


def test_reader_on_a_unix_socket(clock: ManualClock, tmp_path: Path) -> None:
    """Slow readers on a Unix socket are cut as well."""
    with in_thread(make_app(), clock=clock, bind=f"unix:{tmp_path}/s") as served, Client(served.address) as wire:
        start_large(wire.socket, served)
        served.look()
        pass_time(served, clock, 6)
        assert served.engine.limit_events.counts == {"MIN_SEND_RATE": 1}
        assert not served.table


def test_slow_reader_that_is_fast_enough(served: Served, clock: ManualClock) -> None:
    """Who takes a large response slowly, but faster than MIN_SEND_RATE, gets all of it."""
    with Client(served.address) as wire:
        start_large(wire.socket, served)
        served.look()
        received = 0
        while channel_of(served).output.size:
            received += take(wire, min(1 << 19, LARGE - received))
            served.settle()
            if channel_of(served).output.size:
                pass_time(served, clock, 7)
        assert served.engine.limit_events.counts == {}


def test_connection_after_a_slow_reader(clock: ManualClock) -> None:
    """A connection is idle from the moment at which its response has been taken, however long that took."""
    with (
        in_thread(make_app(), clock=clock, min_send_rate=0, send_timeout="24h") as served,
        Client(served.address) as wire,
    ):
        channel = start_large(wire.socket, served)
        served.look()
        received = 0
        while channel.output.size:
            received += len(wire.socket.recv(1 << 19))
            served.settle()
            clock.advance(10)
        served.look()
        assert channel.connected
        while received < LARGE:
            received += len(wire.socket.recv(1 << 20))
        wait_until(lambda: not channel.transport.unacknowledged)
        pass_time(served, clock, 99)
        wire.send(HEAD)
        while not (last := wire.socket.recv(1 << 16)).endswith(b"hello"):
            assert last


def test_connection_after_a_reader_that_paused(clock: ManualClock) -> None:
    """Time in which a client took nothing of its response is no idle time, although it took the rest between two looks."""
    with in_thread(make_app(), clock=clock, min_send_rate=0) as served, Client(served.address) as wire:
        channel = start_large(wire.socket, served)
        served.look()
        clock.advance(29)
        assert len(wire.response().body) == LARGE
        wait_until(lambda: not channel.transport.unacknowledged)
        pass_time(served, clock, 99)
        ask(wire, served)


def test_time_before_a_response_does_not_count(served: Served, clock: ManualClock) -> None:
    """The rate of a reader begins with the response: hours of idle time or work before it make nobody slow."""
    with Client(served.address) as wire:
        wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n" + b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: channel_of(served).running)
        pass_time(served, clock, 10_000)
        release.set()
        wait_until(lambda: len(served.done) == 2)
        served.look()
        pass_time(served, clock, 4)
        assert wire.response().body == b"held"
        assert len(wire.response().body) == LARGE


def test_readers_of_streams(clock: ManualClock) -> None:
    """A reader that stops in the middle of a stream is reset, the stream is closed, and its thread is free."""
    closed = threading.Event()
    app = make_app()

    @app.get("/endless")
    def endless() -> Response:
        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 16)
            finally:
                closed.set()

        return Response(chunks())

    with in_thread(app, clock=clock, threads=1, min_send_rate=TOO_FAST) as served, Client(served.address) as wire:
        wire.send(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
        channel = channel_of(served)
        wait_until(lambda: clients.holds_thread(channel), "the stream to wait for its reader")
        served.look()
        pass_time(served, clock, 6)
        assert not served.table
        assert is_reset(wire.socket)
        assert closed.wait(PATIENCE)
        assert get(served.address).body == b"hello"
        wait_until(lambda: internals.spool(served.engine).size == 0)


# After an early error.


def test_what_comes_after_an_early_error(served: Served, clock: ManualClock) -> None:
    """After a 414 the server reads two megabytes at most of what still comes; its client can read the response all the same."""
    with Client(served.address) as wire:
        wire.send(b"GET /" + bytes(9000).replace(b"\0", b"a"))
        channel = channel_of(served)
        wait_until(lambda: channel.lingering is not None)
        wire.socket.setblocking(False)

        def is_read() -> bool:
            with contextlib.suppress(BlockingIOError):
                socket.socket.send(wire.socket, bytes(1 << 16))  # past TLS
            return not channel.readable()

        wait_until(is_read, "the server to stop reading")
        for _ in range(20):
            is_read()
            served.settle()
        assert LINGER_BYTES <= channel.lingering.discarded < LINGER_BYTES + RECEIVE_BYTES
        wire.socket.settimeout(PATIENCE)
        assert wire.response().status == 414
        clock.advance(6)
        served.look()
        assert not channel.connected


# A server that is late.


def look_late(served: Served, clock: ManualClock, seconds: float, meanwhile: Callable[[], object]) -> None:
    """Hold the server up for *seconds*, in which the client does something, and have it look before it has seen that."""
    held, go = threading.Event(), threading.Event()

    def check() -> None:
        held.set()
        assert go.wait(PATIENCE)
        served.check()

    served.soon(check)
    assert held.wait(PATIENCE)
    meanwhile()
    clock.advance(seconds)
    go.set()
    served.settle()


@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [
        (b"", HEAD),
        (HEAD[:10], HEAD[10:]),
        (LENGTH + bytes(10), bytes(99_990)),
        (CHUNKED + b"10\r\n", bytes(16) + b"\r\n0\r\n\r\n"),
    ],
)
def test_bytes_that_the_server_has_not_seen(
    served: Served, clock: ManualClock, before: bytes, meanwhile: bytes
) -> None:
    """A client whose bytes are with this system already is not late: it is the server that is."""
    with Client(served.address) as wire:
        channel_of(served)
        wire.send(before)
        served.settle()
        look_late(served, clock, 1000, lambda: wire.send(meanwhile))
        assert wire.response().status == 200
    assert served.engine.limit_events.counts == {}


def test_request_on_an_idle_connection_that_the_server_has_not_seen(served: Served, clock: ManualClock) -> None:
    """A request that came before KEEPALIVE_TIMEOUT is answered, although the server sees it only after."""
    with Client(served.address) as wire:
        ask(wire, served)
        look_late(served, clock, 1000, lambda: wire.send(HEAD))
        assert wire.response().body == b"hello"


def test_large_body_that_the_server_has_not_seen(served: Served, clock: ManualClock) -> None:
    """Where only a part of what is there can be read at a time, the client is not cut either."""
    size = 1_000_000
    with Client(served.address) as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size)
        served.settle()
        look_late(served, clock, 25, lambda: wire.send(bytes(size)))
        assert len(wire.response("POST").body) == size


BEHIND = HELD + b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"


def expect_both(wire: Client, served: Served, body: bytes) -> None:
    """Nothing of *body*, which has a request in it, has been taken for one."""
    release.set()
    assert wire.response().body == b"held"
    assert wire.response("POST").body == body
    wait_until(lambda: len(served.done) == 3)  # each comes after its response
    assert [done.target for done in served.done] == ["/", "/held", "/echo"]
    assert served.engine.limit_events.counts == {}


def test_bytes_behind_a_request_that_the_server_has_not_seen(served: Served, clock: ManualClock) -> None:
    """The body of a request behind one that runs is not taken for a request, whatever the loop has been told before."""
    size = RECEIVE_BYTES + len(HEAD)
    body = (
        bytes(RECEIVE_BYTES - len(BEHIND % size)) + HEAD + bytes(len(BEHIND % size))
    )  # the first read ends before HEAD
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(PATIENCE)

    with Client(served.address) as wire:
        ask(wire, served)
        served.soon(hold)
        assert held.wait(PATIENCE)
        wire.send(BEHIND % size + body)
        served.soon(served.check)  # beside the event of the connection, which it makes stale
        clock.advance(1000)
        go.set()
        served.settle()
        expect_both(wire, served, body)


def test_client_that_would_be_cut_when_its_request_runs(
    served: Served, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a server finds no time to cut a client before it sends a request, what comes behind that request is left alone."""
    body = HEAD + HEAD
    with Client(served.address) as wire:
        ask(wire, served)
        served.look()
        clock.advance(1000)
        with monkeypatch.context() as patch:
            internals.find_late_clients_only(patch)
            served.soon(served.check)
            served.settle()
            assert internals.has_found_late_clients(served.engine)
            wire.send(BEHIND % len(body))
            wait_until(lambda: channel_of(served).task is not None)
            wire.send(body)
            served.settle()
        served.look()
        expect_both(wire, served, body)


def test_reader_that_the_server_has_not_seen(clock: ManualClock) -> None:
    """A client that has taken all that its system had room for is not slow: it is the server that has not sent more."""
    with in_thread(make_app(), clock=clock) as served, Client(served.address) as wire:
        channel = start_large(wire.socket, served)
        served.look()
        received = 0

        def take() -> None:
            nonlocal received
            wire.socket.settimeout(0.2)
            while channel.transport.unacknowledged:
                with contextlib.suppress(TimeoutError):  # in the middle of a record
                    received += len(wire.socket.recv(1 << 20))
            wire.socket.settimeout(PATIENCE)

        look_late(served, clock, 1000, take)
        assert channel.connected
        while received < LARGE:
            received += len(wire.socket.recv(1 << 20))


# By the server's own clock.


def test_by_itself() -> None:
    """Without anybody's help a slow client is cut soon after its deadline."""
    with in_thread(make_app(), header_timeout=0.1) as served, Client(served.address) as wire:
        wire.send(HEAD[:8])
        assert wire.response().status == 408
