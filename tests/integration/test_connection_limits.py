"""As many connections as there may be: who makes room, who is told to come back, and how it goes on afterwards."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from flask import Flask, request

from flask_prodserve.engine.connection.table import SLACK
from serving import PATIENCE, ManualClock, Served, defaults, flask, in_thread, run, wait_until
from wire import RESETS, Response, Wire, get, secure

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n"
MOST = 5

release = threading.Event()


def make_app() -> Flask:
    app = Flask("limits")

    @app.route("/", methods=["GET", "POST"])
    def index() -> str:
        return f"hello {request.remote_addr}"

    @app.get("/held")
    def held() -> str:
        assert release.wait(PATIENCE)
        return "held"

    return app


@pytest.fixture(autouse=True)
def held_requests() -> Iterator[None]:
    release.clear()
    yield
    release.set()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@contextlib.contextmanager
def serving(clock: ManualClock, **options: Any) -> Iterator[Served]:
    with in_thread(make_app(), clock=clock, **{"max_connections": MOST, "threads": 8, **options}) as served:
        try:
            yield served
        finally:
            release.set()


def connect(served: Served, stack: contextlib.ExitStack, **options: Any) -> Wire:
    """A connection that the server knows."""
    before = len(served.table)
    wire = stack.enter_context(Wire(served.address, **options))
    wait_until(lambda: len(served.table) != before)
    return wire


def rest(served: Served, clock: ManualClock, running: int = 0) -> None:
    """Let a second pass in which nothing happens but *running* requests."""
    channels = served.table.connections
    wait_until(lambda: sum(channel.running for channel in list(channels.values())) == running)
    served.settle()
    clock.advance(1)


def use(wire: Wire, head: bytes = HEAD) -> Response:
    wire.send(head)
    return wire.response()


def said(wire: Wire) -> bytes | None:
    """What a client has been told that has asked for nothing: nothing yet, or ``b""`` where the server has hung up."""
    wire.socket.setblocking(False)
    try:
        return wire.socket.recv(100)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    finally:
        wire.socket.settimeout(PATIENCE)


def is_open(wire: Wire) -> bool:
    return said(wire) is None


def expect_503(response: Response) -> None:
    assert response.status == 503
    assert response.get("connection") == "close"
    assert int(response.get("retry-after") or 0) > 0


# MAX_CONNECTIONS


def test_the_longest_idle_goes_first(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """At the limit each new connection takes the place of the one that has been idle for longest, and nobody else's."""
    caplog.set_level(logging.INFO)
    with serving(clock) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(MOST)]
        order = [3, 0, 4, 1, 2]
        for number in order:
            assert use(wires[number]).status == 200
            rest(served, clock)
        for count, number in enumerate(order, 1):
            clock.advance(1)
            assert use(stack.enter_context(Wire(served.address))).status == 200
            assert wires[number].closed()
            assert sum(is_open(wire) for wire in wires) == MOST - count
        assert len(served.table) == MOST
        assert served.engine.limit_events.counts == {"idle": MOST}
    assert len([record for record in caplog.records if record.getMessage().startswith("idle: ")]) == 1


def test_an_idle_connection_that_closes_by_itself(clock: ManualClock) -> None:
    """Clients of idle connections may leave at any time; new ones are served as before."""
    with serving(clock, max_connections=3) as served, contextlib.ExitStack() as stack:
        first, second, _ = (stack.enter_context(Wire(served.address)) for _ in range(3))
        for wire in (first, second, _):
            assert use(wire).status == 200
            rest(served, clock)
        assert use(stack.enter_context(Wire(served.address))).status == 200
        assert first.closed()
        second.socket.close()
        wait_until(lambda: len(served.table) == 2)
        for _ in range(5):
            clock.advance(1)
            assert use(stack.enter_context(Wire(served.address))).status == 200


def test_a_connection_that_is_used_again_is_not_idle(clock: ManualClock) -> None:
    """What was idle when somebody had to go, and has been used since, is spared."""
    with serving(clock, max_connections=3) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(3)]
        for wire in wires:
            assert use(wire).status == 200
            rest(served, clock)
        assert use(stack.enter_context(Wire(served.address))).status == 200
        assert wires[0].closed()
        clock.advance(1)
        assert use(wires[1]).status == 200
        rest(served, clock)
        assert use(stack.enter_context(Wire(served.address))).status == 200
        assert wires[2].closed()
        assert is_open(wires[1])


def test_silent_connections_make_room(clock: ManualClock) -> None:
    """Silent connections shut nobody out: the oldest is closed at once for each client, with no time in between."""
    with serving(clock) as served, contextlib.ExitStack() as stack:
        silent = [connect(served, stack, handshake=False) for _ in range(MOST)]
        for count in range(1, MOST + 1):
            assert use(stack.enter_context(Wire(served.address))).status == 200
            assert silent[count - 1].closed()
            assert sum(is_open(wire) for wire in silent[count:]) == MOST - count
            if 2 * (MOST - count) <= MOST:
                break
        assert served.engine.limit_events.counts == {"silent": count}


def test_twice_as_many_silent_connections(clock: ManualClock) -> None:
    """Of twice as many silent connections as there may be, which come without a pause, none costs another client its answer."""
    with serving(clock, max_connections=10) as served, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Wire(served.address, handshake=False))
            assert get(served.address).status == 200
            served.settle()  # else the end of this client's connection could make the room
        assert set(served.engine.limit_events.counts) == {"silent"}
        assert len(served.table) <= 10


def test_none_is_idle(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Where no connection is idle, new ones get 503 with Retry-After at once, and service as soon as there is room again."""
    with serving(clock) as served, contextlib.ExitStack() as stack:
        kinds = [HELD, HELD, HELD, HEAD[:10], b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc"]
        wires = [stack.enter_context(Wire(served.address)) for _ in kinds]
        for wire, sent in zip(wires, kinds, strict=True):
            wire.send(sent)
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == MOST)
        for _ in range(10):
            clock.advance(0.2)
            with Wire(served.address) as turned_away:
                expect_503(use(turned_away))
                assert turned_away.closed()
        assert served.engine.limit_events.counts == {"MAX_CONNECTIONS": 10}
        assert len([record for record in caplog.records if record.getMessage().startswith("MAX_CONNECTIONS: ")]) == 1
        wires[3].send(HEAD[10:])
        assert wires[3].response().status == 200
        rest(served, clock, running=3)
        assert get(served.address).status == 200
        wires[4].send(b"0123456")
        assert wires[4].response("POST").status == 200
        release.set()
        assert [wire.response().body for wire in wires[:3]] == [b"held"] * 3
        wait_until(lambda: [done.status for done in served.done].count(200) == 6)
        assert [done.status for done in served.done].count(503) == 10


def test_those_that_are_turned_away_make_no_room(clock: ManualClock) -> None:
    """A client that has had its 503 and does not close takes no place, and leaves none to the next one when it is closed for it."""
    with serving(clock) as served, contextlib.ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(Wire(served.address)).send(HEAD[:10])
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == MOST)
        for _ in range(10):
            clock.advance(0.2)
            expect_503(use(stack.enter_context(Wire(served.address))))
            served.settle()


def test_health_of_a_full_server(clock: ManualClock) -> None:
    """Whoever asks for the server's health is answered although there is no room for more connections."""
    with serving(clock) as served, contextlib.ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(Wire(served.address)).send(HELD)
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == MOST)
        response = get(served.address, "/livez")
        assert (response.status, response.get("connection")) == (200, "close")


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_upload_where_there_is_no_room(clock: ManualClock, expect: str) -> None:
    """An upload for which there is no room is refused when its head is there: promptly means before the body."""
    with serving(clock, max_connections=1) as served, Wire(served.address) as holder:
        holder.send(HELD)
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == 1)
        with Wire(served.address) as wire:
            wire.send(f"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n{expect}\r\n".encode())
            assert wire.socket.recv(12) == b"HTTP/1.1 503"


def test_more_than_can_be_told_why(clock: ManualClock, way: str) -> None:
    """Beyond those that wait to be told, new clients get a short 503 without being read, or over TLS nothing, and the server serves on."""
    with serving(clock, max_connections=1) as served, contextlib.ExitStack() as stack:
        holder = stack.enter_context(Wire(served.address))
        holder.send(HELD)
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == 1)
        told = [connect(served, stack) for _ in range(SLACK)]
        for _ in range(20):
            if way == "tls":
                with pytest.raises(RESETS):
                    Wire(served.address)
                continue
            with Wire(served.address) as wire:
                expect_503(wire.response())
                assert wire.closed()
        assert len(served.table) == 1 + SLACK
        for wire in told:
            expect_503(use(wire))
        release.set()
        assert holder.response().body == b"held"
        rest(served, clock)
        assert get(served.address).status == 200


def test_those_that_are_turned_away_and_say_nothing(clock: ManualClock) -> None:
    """Who is turned away and does not even ask is closed at HEADER_TIMEOUT."""
    with serving(clock, max_connections=1) as served, contextlib.ExitStack() as stack:
        stack.enter_context(Wire(served.address)).send(HELD)
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == 1)
        silent = connect(served, stack)
        clock.advance(16)
        served.look()
        assert silent.closed()


def test_a_request_that_arrives_in_time_is_not_lost(clock: ManualClock, way: str) -> None:
    """A connection on which a request arrives in the moment in which it would be closed for another is spared."""
    with serving(clock, max_connections=1) as served, Wire(served.address) as idle:
        assert use(idle).status == 200
        rest(served, clock)
        clock.advance(10)
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            assert go.wait(PATIENCE)

        served.soon(hold)
        assert held.wait(PATIENCE)
        with Wire(served.address, handshake=False) as other:
            idle.send(HEAD)
            if way != "tls":
                other.send(HEAD)
            go.set()
            if way == "tls":  # the handshake takes the server's answer
                other.begin(b"", HEAD)
            assert idle.response().status == 200
            assert other.response().status in (200, 503)


def test_a_connection_that_is_about_to_close(clock: ManualClock) -> None:
    """Between its last response and its end a connection is not idle, and nothing that came behind is run."""
    with serving(clock) as served, Wire(served.address) as wire:
        wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" + HEAD)
        rest(served, clock, running=1)
        (channel,) = served.connections
        wire.send(HEAD)
        served.settle()
        evicted = []

        def evict() -> None:
            """In the loop, which therefore does not close it."""
            release.set()
            wait_until(lambda: not channel.running)
            evicted.append(served.table.evict())

        served.soon(evict)
        assert wire.response().body == b"held"
        assert wire.closed()
        assert evicted == [False]
    assert [done.target for done in served.done] == ["/held"]


def test_churn_at_the_limit() -> None:
    """Clients that come, stay for a while and go at the limit all get an answer, and the counts are right in the end."""
    statuses: list[int] = []
    with in_thread(make_app(), max_connections=8, threads=4) as served:

        def client(seed: int) -> None:
            wires: list[Wire] = []
            for number in range(60):
                wire = Wire(served.address)
                wires.append(wire)
                # A request may cross the 503, or the end of a connection that made room before it had sent anything.
                with contextlib.suppress(*RESETS, h11.RemoteProtocolError):
                    statuses.append(use(wire).status)
                if (number + seed) % 3 == 0:
                    while wires:
                        wires.pop().socket.close()
            for wire in wires:
                wire.socket.close()

        clients = [threading.Thread(target=client, args=[seed]) for seed in range(6)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        wait_until(lambda: not served.table, "all connections to be closed")
        assert not served.table._turned_away
        assert get(served.address).status == 200
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 100


# MAX_CONNECTIONS_PER_CLIENT


def test_connections_of_one_address(clock: ManualClock) -> None:
    """Beyond MAX_CONNECTIONS_PER_CLIENT an address gets 503, idle or not, others do not, and each close makes room."""
    with serving(clock, max_connections=100, max_connections_per_client=2) as served, contextlib.ExitStack() as stack:
        wires = [connect(served, stack, source="127.0.0.2") for _ in range(2)]
        assert use(wires[0]).body == b"hello 127.0.0.2"
        for _ in range(3):
            expect_503(get(served.address, source="127.0.0.2"))
        assert get(served.address, source="127.0.0.3").status == 200
        wires[0].socket.close()
        wait_until(lambda: served.table._by_client["127.0.0.2"] == 1)
        assert get(served.address, source="127.0.0.2").status == 200
        wires[1].socket.close()
        wait_until(lambda: not served.table._by_client)
        assert served.engine.limit_events.counts == {"MAX_CONNECTIONS_PER_CLIENT": 3}


def test_proxies_and_unix_sockets_are_exempt(clock: ManualClock, tmp_path: Path) -> None:
    """Trusted proxies and peers on Unix sockets speak for many, and have no such limit."""
    bind = ["127.0.0.1:0", f"unix:{tmp_path}/s"]
    with (
        serving(
            clock, max_connections=100, max_connections_per_client=1, trusted_proxies="127.0.0.2", bind=bind
        ) as served,
        contextlib.ExitStack() as stack,
    ):
        assert isinstance(served.addresses[1], str)
        for _ in range(4):
            assert use(connect(served, stack, source="127.0.0.2")).status == 200
            unix = stack.enter_context(Wire(served.addresses[1]))
            assert use(unix).status == 200
        assert use(connect(served, stack, source="127.0.0.3")).status == 200
        expect_503(get(served.address, source="127.0.0.3"))


# MAX_KEEPALIVE_REQUESTS


@pytest.mark.parametrize("pipelined", [False, True])
def test_requests_on_one_connection(clock: ManualClock, pipelined: bool) -> None:
    """The last of MAX_KEEPALIVE_REQUESTS says so and closes; what came behind it is not answered, and never reaches the app."""
    with serving(clock, max_keepalive_requests=3) as served, Wire(served.address) as wire:
        if pipelined:
            wire.send(HEAD * 10)
        for number in range(3):
            if not pipelined:
                wire.send(HEAD)
            response = wire.response()
            assert response.status == 200
            assert response.get("connection") == ("close" if number == 2 else None)
        assert wire.closed()
        wait_until(lambda: len(served.done) == 3)
        assert get(served.address).status == 200
        wait_until(lambda: len(served.done) == 4)


# Descriptors

APP = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return "hello"
"""
WITHOUT_EPOLL = "import select\nvars(select).pop('epoll', None)\n"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU time is read from /proc")
def test_no_descriptors_left(tmp_path: Path, way: str) -> None:
    """Where the process can open no more files it sheds load and does not spin, and it serves as before once there are some."""
    (tmp_path / "app.py").write_text((WITHOUT_EPOLL if way == "portable" else "") + APP)
    limit = 64
    arguments = [
        "--workers",
        "0",
        "--port",
        "0",
        "--max-connections",
        "1000",
        "--access-log",
        "off",
        "--header-timeout",
        "60s",
        *defaults(),
    ]
    command = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *flask("serve", *arguments)]
    with run(command, cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        address = server.address
        assert "MAX_CONNECTIONS is 1000, but this process may open only 64 files" in server.output
        assert get(address).body == b"hello"
        wires = []
        attempts = 3 * limit
        for _ in range(attempts):
            with contextlib.suppress(RESETS):  # over TLS nothing can be said
                wires.append(stack.enter_context(Wire(address)))
                wires[-1].send(HEAD[:10])  # not idle

        def refused_by_now() -> int:
            wires[:] = [wire for wire in wires if not _is_refused(wire)]
            return attempts - len(wires)

        wait_until(lambda: refused_by_now() >= limit, "the others to be told")
        pause = threading.Event()
        before = cpu_seconds(server.process.pid)
        pause.wait(2)
        assert cpu_seconds(server.process.pid) - before < 0.5
        assert server.process.poll() is None
        for wire in wires:
            wire.socket.close()

        def serves() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                return get(address).status == 200
            return False

        wait_until(serves, "it to serve again")
        for _ in range(10):
            assert get(address).body == b"hello"
        assert "Traceback" not in server.output


def _is_refused(wire: Wire) -> bool:
    try:
        told = said(wire)
    except RESETS:
        return True
    return told is not None and (not told or told.startswith(b"HTTP/1.1 503"))


def test_descriptors_taken_by_the_app(clock: ManualClock) -> None:
    """Where the app has taken all descriptors, an idle connection is closed for a new one, and nobody hangs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(clock, max_connections=1000) as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.address)) for _ in range(5)]
        for wire in wires:
            assert use(wire).status == 200
        rest(served, clock)
        late = [stack.enter_context(socket.socket()) for _ in range(3)]
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            for sock in late:
                sock.settimeout(PATIENCE)
                sock.connect(served.address)  # type: ignore[arg-type]  # a pair
                client = stack.enter_context(secure(sock))
                client.sendall(HEAD)
                assert client.recv(12) == b"HTTP/1.1 200"
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert get(served.address).status == 200
        assert served.engine.limit_events.counts["descriptors"] >= 3


def test_start_raises_the_limit_of_files(tmp_path: Path, way: str) -> None:
    """The soft limit of open files is raised as far as MAX_CONNECTIONS needs it; nothing is said where that is enough."""
    (tmp_path / "app.py").write_text(
        (WITHOUT_EPOLL if way == "portable" else "") + APP + "\n@app.get('/limit')\ndef limit():\n    import resource\n"
        "    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    command = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh", *flask("serve", "--port", "0", *defaults())]
    with run(command, cwd=tmp_path) as server:
        assert int(get(server.address, "/limit").body) >= 2200
        assert "MAX_CONNECTIONS" not in server.output


def test_connections_that_cannot_be_watched(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that the loop cannot watch, as the system allows no more of that, is closed and counts no longer."""
    refused: list[Any] = []
    with serving(clock, max_connections=MOST, max_connections_per_client=2 * MOST) as served:
        loop = served.loop
        watch = loop.watch

        def refuse(entry: Any) -> None:
            if len(refused) < 2 * MOST:
                refused.append(entry)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            watch(entry)

        monkeypatch.setattr(loop, "watch", refuse)
        for _ in range(2 * MOST):
            with Wire(served.address, handshake=False) as wire:
                assert wire.closed()
        assert len(served.table) == 0
        assert not any(entry in refused for entry in served.connections)
        assert not any(entry.connected for entry in refused)
        served.look()
        wires = [Wire(served.address) for _ in range(MOST)]
        try:
            for wire in wires:
                wire.send(HEAD)
                assert wire.response().status == 200
        finally:
            for wire in wires:
                wire.socket.close()
        assert served.engine.limit_events.counts["watching"] == 2 * MOST
    assert served.drained is not None
