"""Connections that begin with a PROXY header: when it has to be there, what follows from it, and how it may come."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import logging
import socket
import ssl
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, request

import proxy_header
from certificates import Pair
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.table import SLACK
from proxy_header import LOCAL, PROXY, TCP4, UNIX, UNSPECIFIED, frame
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Response, Wire

pytestmark = pytest.mark.usefixtures("way")

BALANCER, STRANGER = "127.0.0.1", "127.0.0.2"
CLIENT, OTHER_CLIENT = "203.0.113.9", "203.0.113.10"
HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HEADERS = [proxy_header.line, proxy_header.binary]

release = threading.Event()


def make_app() -> Flask:
    app = Flask("announced")

    @app.get("/")
    def index() -> Any:
        return jsonify(
            {name: request.environ.get(name) for name in ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")}
            | {"url": request.url}
        )

    @app.get("/held")
    def held() -> str:
        assert release.wait(PATIENCE)
        return "held"

    return app


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Served]:
    release.clear()
    with in_thread(make_app(), **{"proxy_protocol": True, "trusted_proxies": BALANCER, **options}) as served:
        try:
            yield served
        finally:
            release.set()


def seen_by_app(response: Response) -> dict[str, str | None]:
    assert response.status == 200, response.body
    seen: dict[str, str | None] = json.loads(response.body)
    return seen


def connect(served: Served) -> Wire:
    """A connection from the balancer, which has said nothing yet."""
    return Wire(served.address, handshake=False)


def ask(wire: Wire, header: bytes | None = None) -> dict[str, str | None]:
    """What the app sees of a request, with *header* before it, and before the handshake, where it is a connection's first one."""
    if header is None:
        wire.send(HEAD)
    else:
        wire.begin(header, HEAD)
    return seen_by_app(wire.response())


def channel_of(served: Served) -> Connection:
    """The only connection, once it is there."""
    wait_until(lambda: len(served.table) == 1)
    (channel,) = served.connections
    return channel


def held(channel: Connection) -> int:
    """Bytes of the PROXY header that the server has taken."""
    assert channel._proxy_header is not None
    return len(channel._proxy_header._held)


def unread(channel: Connection) -> int:
    """Bytes that the system has and the server has not taken."""
    count = array.array("i", [0])
    fcntl.ioctl(channel.descriptor, termios.FIONREAD, count)
    return count[0]


def closed(wire: Wire) -> bool:
    """Whether the server hangs up without a word."""
    try:
        return wire.closed()
    except ConnectionResetError:
        return True


# What follows from it.


@pytest.mark.every_way
@pytest.mark.parametrize("header", HEADERS)
def test_the_client_is_who_the_header_names(header: Callable[..., bytes], scheme: str) -> None:
    """For every request of the connection, in the environment and in the access log, the client is the header's source."""
    with serving() as served, connect(served) as wire:
        expected = {"REMOTE_ADDR": CLIENT, "REMOTE_PORT": "51234", "url": f"{scheme}://test/"}
        first, second = ask(wire, header(CLIENT)), ask(wire)
        assert first == second
        assert first.items() > expected.items()
        wait_until(lambda: len(served.done) == 2)
        assert {event.remote_addr for event in served.done} == {CLIENT}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(("destination", "host"), [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "[2001:db8::7]")])
def test_the_server_is_where_the_client_reached_the_balancer(
    header: Callable[..., bytes], destination: str, host: str, scheme: str
) -> None:
    """Without Host, URLs are built from the header's destination."""
    source = CLIENT if ":" not in destination else "2001:db8::9"
    with serving() as served, connect(served) as wire:
        wire.begin(header(source, 51234, destination, 8443), b"GET / HTTP/1.0\r\n\r\n")
        seen = seen_by_app(wire.response())
        assert seen == {
            "REMOTE_ADDR": source,
            "REMOTE_PORT": "51234",
            "SERVER_NAME": destination,
            "SERVER_PORT": "8443",
            "url": f"{scheme}://{host}:8443/",
        }


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        frame(LOCAL, UNSPECIFIED),
        frame(LOCAL, UNSPECIFIED, b"whatever"),
        frame(PROXY, UNSPECIFIED),
        frame(PROXY, UNIX, bytes(216)),
    ],
)
def test_a_header_without_a_client(header: bytes) -> None:
    """Where the balancer speaks for itself, or names nobody, the peer's own address stays."""
    with serving() as served, connect(served) as wire:
        seen = ask(wire, header)
        port = served.address[1]
        assert seen["REMOTE_ADDR"] == BALANCER
        assert seen["REMOTE_PORT"] == str(wire.socket.getsockname()[1])
        assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == (BALANCER, str(port))


@pytest.mark.every_way
@pytest.mark.parametrize(("flags", "over_tls"), [(1, True), (7, True), (6, False)])
def test_a_balancer_that_ends_tls(flags: int, over_tls: bool, scheme: str) -> None:
    """The scheme is https where the header says that the client speaks TLS with the balancer."""
    named = proxy_header.binary(CLIENT)[16:]
    for family, addresses in ((TCP4, named), (UNIX, bytes(216))):
        with serving() as served, connect(served) as wire:
            header = frame(PROXY, family, addresses + b"\x20\0\5" + bytes([flags]) + bytes(4))
            assert ask(wire, header)["url"] == f"{'https' if over_tls else scheme}://test/"


@pytest.mark.every_way
@pytest.mark.parametrize(
    "header", [b"", b"PROXY UNKNOWN\r\n", frame(LOCAL, UNSPECIFIED), frame(LOCAL, UNSPECIFIED)[:7]]
)
def test_health_checks_that_hang_up(header: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A balancer that connects and closes, with a header or without, is nothing to speak of."""
    with serving() as served:
        for reset in (False, True):
            with connect(served) as wire:
                if reset:
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                wire.send(header)
                channel_of(served)
            wait_until(lambda: not served.table)
        assert not served.engine.limit_events.counts
        assert not served.done
    assert not caplog.records


# When it has to be there.


@pytest.mark.every_way
@pytest.mark.parametrize(
    "data",
    [
        HEAD,
        b"G",
        b"\x16\x03\x01\x02\x00",
        b"\r\n" + proxy_header.line(CLIENT) + HEAD,
        b"PROXY TCP4 203.0.113.9 192.0.2.1 0x1 443\r\n" + HEAD,
        b"PROXY UNKNOWN\n",
        frame(PROXY, 0x12, bytes(12)) + HEAD,
        frame(0x11, 0x11, bytes(12)) + HEAD,
        frame(PROXY, 0x11, bytes(12), length=0xFFFF),
    ],
)
def test_trusted_peers_must_announce(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A trusted peer that sends no header, or a malformed one, is hung up on at once; one line says which setting wants it, and whom."""
    with serving() as served:
        for _ in range(3):
            with connect(served) as wire:
                wire.send(data)
                assert closed(wire)
        wait_until(lambda: not served.table)
        assert served.engine.limit_events.counts == {"PROXY_PROTOCOL": 3}
        assert not served.done
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("PROXY_PROTOCOL: ")
    assert BALANCER in record.getMessage()


@pytest.mark.parametrize("header", [proxy_header.line(CLIENT), proxy_header.binary(CLIENT), b"PROXY UNKNOWN\r\n"])
def test_strangers_cannot_announce(header: bytes) -> None:
    """From a peer that is not trusted a header is a malformed request, and no header is needed."""
    with serving() as served:
        with Wire(served.address, STRANGER) as wire:
            wire.send(header + HEAD)
            assert wire.response().status == 400
            assert closed(wire)
        with Wire(served.address, STRANGER) as wire:
            assert ask(wire)["REMOTE_ADDR"] == STRANGER
        assert not served.engine.limit_events.counts


@pytest.mark.every_way
def test_off() -> None:
    """Without PROXY_PROTOCOL nobody can announce, and trusted peers speak HTTP."""
    with serving(proxy_protocol=False) as served:
        with Wire(served.address) as wire:
            wire.send(proxy_header.line(CLIENT) + HEAD)
            assert wire.response().status == 400
        with Wire(served.address) as wire:
            assert ask(wire)["REMOTE_ADDR"] == BALANCER


@pytest.mark.every_way
@pytest.mark.parametrize("header", HEADERS)
def test_one_header_alone(header: Callable[..., bytes]) -> None:
    """What a client sends behind the balancer's header is a request, also if it looks like a header."""
    with serving() as served, connect(served) as wire:
        wire.begin(header(CLIENT), header(OTHER_CLIENT) + HEAD)
        assert wire.response().status == 400
        wait_until(lambda: served.done)
        assert served.done[0].remote_addr == CLIENT


# How it may come.


@pytest.mark.every_way
@pytest.mark.parametrize("header", [*(header(CLIENT) for header in HEADERS), frame(PROXY, UNIX, bytes(216))])
@pytest.mark.parametrize("listener", ["tcp", "unix"])
def test_byte_by_byte(header: bytes, listener: str, tmp_path: Path, scheme: str) -> None:
    """A header that drips is taken as it comes, so that the loop has nothing to come round for, and the request behind it is whole."""
    bind = "127.0.0.1:0" if listener == "tcp" else f"unix:{tmp_path}/s"
    with serving(bind=bind, trusted_proxies=[BALANCER, "unix"]) as served, connect(served) as wire:
        channel = channel_of(served)
        for number in range(len(header) - 1):
            wire.send(header[number : number + 1])
            wait_until(lambda: held(channel) > number and not unread(channel))  # noqa: B023  # called before the next
        peer = BALANCER if listener == "tcp" else ""
        assert ask(wire, header[-1:])["REMOTE_ADDR"] == (peer if header[13:14] == bytes([UNIX]) else CLIENT)
        assert ask(wire)["url"] == f"{scheme}://test/"


@pytest.mark.every_way
@pytest.mark.parametrize("header", HEADERS)
def test_where_http_is_redirected(header: Callable[..., bytes], localhost: Pair) -> None:
    """A header comes before the request that is redirected, too, and who must send one cannot do without."""
    settings = {"bind": f"{BALANCER}:0", "tls_redirect_bind": "localhost:0", **localhost.settings}
    with serving(**settings) as served:
        with Wire(served.addresses[-1], handshake=False) as wire:
            wire.send(header(CLIENT) + HEAD)
            assert wire.response().status == 308
        with Wire(served.addresses[-1], handshake=False) as wire:
            wire.send(HEAD)
            assert closed(wire)
        wait_until(lambda: served.engine.limit_events.counts == {"PROXY_PROTOCOL": 1})
        assert [(done.remote_addr, done.status) for done in served.done] == [(CLIENT, 308)]


@pytest.mark.own_tls
@pytest.mark.every_way
def test_handshake_in_the_same_packet(localhost: Pair) -> None:
    """A handshake that comes in one packet with the header is left to OpenSSL, and so is a header inside TLS: no header then."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(**localhost.settings) as served, connect(served) as wire:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing)
        outgoing.write(proxy_header.binary(CLIENT))

        def exchange(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    wire.send(outgoing.read())
                    incoming.write(wire.socket.recv(65536))

        exchange(client.do_handshake)
        client.write(proxy_header.line(OTHER_CLIENT) + HEAD)
        assert exchange(lambda: client.read(65536)).startswith(b"HTTP/1.1 400 ")
        wait_until(lambda: served.done)
        assert served.done[0].remote_addr == CLIENT


# Beside limits and deadlines.


@pytest.mark.every_way
@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 ", proxy_header.binary(CLIENT)[:-1]])
def test_deadline(data: bytes) -> None:
    """A header that drips is no progress: the connection is closed at HEADER_TIMEOUT from its start, and not before."""
    clock = ManualClock()
    with serving(clock=clock, header_timeout=15) as served, connect(served) as wire:
        channel = channel_of(served)
        for number in range(14):
            wire.send(data[number : number + 1] if number < 13 else data[13:])
            served.settle()
            served.look()
            clock.advance(1)
        assert channel.connected
        clock.advance(1.5)
        served.look()
        assert closed(wire)
        assert served.engine.limit_events.counts == {"HEADER_TIMEOUT": 1}


@pytest.mark.every_way
def test_deadline_of_the_head_behind_it() -> None:
    """The head has the time that the header has left of HEADER_TIMEOUT."""
    clock = ManualClock()
    with serving(clock=clock, header_timeout=15) as served, connect(served) as wire:
        channel = channel_of(served)
        clock.advance(14)
        wire.begin(proxy_header.line(CLIENT), HEAD[:10])
        wait_until(lambda: channel.receiver.incoming is not None)
        served.look()
        assert channel.connected
        clock.advance(2)
        served.look()
        assert wire.response().status == 408
        assert served.done[0].remote_addr == CLIENT


@pytest.mark.every_way
@pytest.mark.parametrize("header", HEADERS)
def test_a_late_server(header: Callable[..., bytes], way: str) -> None:
    """A header and a request that have come in time are served, however late the loop is."""
    if way == "tls":
        pytest.skip("no request comes before the server has answered in the handshake")
    clock = ManualClock()
    with serving(clock=clock, header_timeout=15) as served, connect(served) as wire:
        channel = channel_of(served)
        wire.send(header(CLIENT)[:20])
        wait_until(lambda: held(channel))

        def late() -> None:
            wire.send(header(CLIENT)[20:] + HEAD)
            wait_until(lambda: unread(channel) == len(header(CLIENT)) - 20 + len(HEAD))
            clock.advance(1000)
            served.check()

        served._in_loop(late)
        assert seen_by_app(wire.response())["REMOTE_ADDR"] == CLIENT


@pytest.mark.parametrize("trusted", [BALANCER, "*"])
def test_connections_of_one_client(trusted: str) -> None:
    """MAX_CONNECTIONS_PER_CLIENT counts the clients behind the balancer, whatever it is trusted by, and each close makes room."""
    with serving(trusted_proxies=trusted, max_connections_per_client=2) as served, contextlib.ExitStack() as stack:
        connections = served.table

        def use(client: str) -> tuple[Wire, int]:
            wire = stack.enter_context(connect(served))
            wire.begin(proxy_header.binary(client), HEAD)
            return wire, wire.response().status

        first, status = use(CLIENT)
        assert status == 200
        assert [use(CLIENT)[1] for _ in range(3)] == [200, 503, 503]
        assert use(OTHER_CLIENT)[1] == 200
        assert connections._by_client == {CLIENT: 2, OTHER_CLIENT: 1}
        first.socket.close()
        wait_until(lambda: connections._by_client[CLIENT] == 1)
        assert [use(CLIENT)[1] for _ in range(2)] == [200, 503]
        stack.close()
        wait_until(lambda: not connections)
        assert not connections._by_client
        assert not connections._turned_away
        assert served.engine.limit_events.counts == {"MAX_CONNECTIONS_PER_CLIENT": 3}


def test_proxies_and_unnamed_clients_are_exempt() -> None:
    """A proxy behind the balancer, health checks and clients without a name have no MAX_CONNECTIONS_PER_CLIENT."""
    with (
        serving(trusted_proxies=[BALANCER, "10.0.0.0/8"], max_connections_per_client=1) as served,
        contextlib.ExitStack() as stack,
    ):
        for header in (proxy_header.line("10.0.0.1"), frame(LOCAL, UNSPECIFIED), b"PROXY UNKNOWN\r\n"):
            for _ in range(3):
                ask(stack.enter_context(connect(served)), header)


@pytest.mark.every_way
def test_too_many_that_are_turned_away() -> None:
    """Beyond those who can be told that a client has too many, its connections are closed."""
    with serving(max_connections_per_client=1) as served, contextlib.ExitStack() as stack:
        connections = served.table

        def announce() -> Wire:
            wire = stack.enter_context(connect(served))
            wire.send(proxy_header.line(CLIENT))
            return wire

        announce()
        wait_until(lambda: connections._by_client[CLIENT] == 1)
        waiting = [announce() for _ in range(SLACK)]
        wait_until(lambda: len(connections._turned_away) == SLACK)
        assert closed(announce())
        waiting[0].begin(b"", HEAD)
        assert waiting[0].response().status == 503


@pytest.mark.every_way
def test_no_room() -> None:
    """At MAX_CONNECTIONS, those that are turned away have their header read, and a readable answer."""
    with serving(max_connections=1) as served, connect(served) as holder:
        holder.begin(proxy_header.line(CLIENT), b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: channel_of(served).running)
        with connect(served) as wire:
            wire.begin(proxy_header.line(OTHER_CLIENT), HEAD)
            assert wire.response().status == 503
        wait_until(lambda: served.done)
        assert served.done[0].remote_addr == OTHER_CLIENT
        release.set()
        assert holder.response().body == b"held"


@pytest.mark.every_way
@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 ", proxy_header.line(CLIENT)])
def test_an_idle_one_makes_room(data: bytes) -> None:
    """A connection that has sent no request, with its header, a part of it or none, is idle and goes for a new one."""
    clock = ManualClock()
    with serving(clock=clock, max_connections=1) as served, connect(served) as silent:
        silent.send(data)
        channel_of(served)
        served.settle()
        clock.advance(2)
        with connect(served) as wire:
            assert ask(wire, proxy_header.binary(OTHER_CLIENT))["REMOTE_ADDR"] == OTHER_CLIENT
        assert closed(silent)
        assert served.engine.limit_events.counts == {"silent": 1}


@pytest.mark.every_way
@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 ", proxy_header.line(CLIENT)])
def test_draining(data: bytes) -> None:
    """A server that stops waits for nobody's header, and serves those whose request has come behind it."""
    with serving() as served, connect(served) as silent, connect(served) as busy:
        silent.send(data)
        busy.begin(proxy_header.line(CLIENT), b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: any(channel.running for channel in served.connections))
        served.engine.stop()
        assert closed(silent)
        release.set()
        assert busy.response().body == b"held"
        wait_until(lambda: served.drained is not None)
        assert served.drained is not None
        assert (served.drained.finished, served.drained.cut) == (1, 0)
