"""Behind a real HAProxy that passes bytes on and announces its clients: both versions, over TCP and a Unix socket, with health checks."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, request

from certificates import Pair
from programs import free_ports, program
from serving import PATIENCE, Served, in_thread, run, wait_until
from wire import Response, Wire

CLIENT = "127.0.0.2"
"""Where the tests' requests come from: HAProxy itself is 127.0.0.1, and trusted."""

SERVERS = {
    "v1": "127.0.0.1:{tcp} send-proxy",
    "v2": "127.0.0.1:{tcp} send-proxy-v2",
    "crc": "127.0.0.1:{tcp} send-proxy-v2 proxy-v2-options crc32c,ssl,cert-cn,authority",
    "v1-unix": "unix@{unix} send-proxy",
    "v2-unix": "unix@{unix} send-proxy-v2",
    "v1-tls": "127.0.0.1:{tls} send-proxy",
    "v2-tls": "127.0.0.1:{tls} send-proxy-v2",
    "ends-tls": "127.0.0.1:{tcp} send-proxy-v2-ssl",
}
"""How HAProxy connects, by what stands for it in a frontend's name; its checks connect in the same way."""

CONFIG = """
global
    stats socket {stats}
defaults
    mode tcp
    timeout connect 10s
    timeout client 30s
    timeout server 30s
"""
SECTION = """
listen {name}
    bind {frontend}
    {checked}
    server app {server} check inter 100ms
"""


@dataclass
class HAProxy:
    """*at* has where its frontends listen, by name; *plain* and *secure* are the servers behind it."""

    at: dict[str, tuple[str, int]]
    plain: Served
    secure: Served
    stats: str

    def is_up(self) -> bool:
        """Whether all checks of all servers say so."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(self.stats)
            control.sendall(b"show stat\n")
            answer = b""
            while data := control.recv(65536):
                answer += data
        rows = [line.split(",") for line in answer.decode().splitlines() if line]
        status, last = rows[0].index("status"), rows[0].index("check_status")
        servers = [(row[status], row[last]) for row in rows if row[1] == "app"]
        return len(servers) == len(SERVERS) and all(
            state == "UP" and check.lstrip("* ") in ("L4OK", "L7OK") for state, check in servers
        )


def make_app() -> Flask:
    app = Flask("announced")

    @app.route("/", methods=["GET", "POST"])
    def index() -> Any:
        return jsonify(remote=request.remote_addr, url=request.url, received=len(request.get_data()))

    return app


@pytest.fixture(scope="module")
def haproxy(localhost: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    folder: Path = tmp_path_factory.mktemp("haproxy")
    (folder / "both").write_bytes(Path(localhost.cert).read_bytes() + Path(localhost.key).read_bytes())
    unix, stats = str(folder / "app.sock"), str(folder / "stats")
    settings: dict[str, Any] = {"trusted_proxies": ["127.0.0.1", "unix"], "proxy_protocol": True}
    with ExitStack() as stack:
        plain = stack.enter_context(in_thread(make_app(), bind=["127.0.0.1:0", f"unix:{unix}"], **settings))
        secure = stack.enter_context(in_thread(make_app(), **localhost.settings, **settings))
        at = {name: ("127.0.0.1", port) for name, port in zip(SERVERS, free_ports(len(SERVERS)), strict=True)}
        places = {"tcp": plain.address[1], "unix": unix, "tls": secure.address[1]}
        config = CONFIG.format(stats=stats)
        for name, server in SERVERS.items():
            config += SECTION.format(
                name=name,
                frontend=f"127.0.0.1:{at[name][1]}" + (f" ssl crt {folder}/both" if name == "ends-tls" else ""),
                checked="" if name.endswith("-tls") else "option httpchk GET /livez",
                server=server.format(**places),
            )
        (folder / "haproxy.cfg").write_text(config)
        command = stack.enter_context(run([program("haproxy"), "-f", "haproxy.cfg", "-db"], cwd=folder))
        started = HAProxy(at, plain, secure, stats)

        def is_up() -> bool:
            assert command.process.poll() is None, command.output
            return os.path.exists(stats) and started.is_up()

        wait_until(is_up, "HAProxy")
        yield started


def over_tls(wire: Wire) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wire.socket = context.wrap_socket(wire.socket)


def ask(wire: Wire, *fields: str, body: bytes = b"") -> Response:
    lines = ["POST / HTTP/1.1", "Host: test", *fields, f"Content-Length: {len(body)}", "", ""]
    wire.send("\r\n".join(lines).encode() + body)
    return wire.response("POST")


@pytest.mark.parametrize("name", SERVERS)
def test_client_and_scheme(haproxy: HAProxy, name: str) -> None:
    """The app sees HAProxy's client, https where TLS ends here or there, and every byte behind the header, request after request."""
    with Wire(haproxy.at[name], CLIENT) as wire:
        if name.endswith("tls"):
            over_tls(wire)
        scheme = "https" if name.endswith("tls") else "http"
        for size in (0, 1_000_000, 0):
            answer = json.loads(ask(wire, body=bytes(size)).body)
            assert answer == {"remote": CLIENT, "url": f"{scheme}://test/", "received": size}


@pytest.mark.parametrize("name", ["v1", "v2", "v1-unix", "v2-unix"])
def test_spoofing_client(haproxy: HAProxy, name: str) -> None:
    """A client behind HAProxy gets nowhere with fields, nor with a header of its own."""
    with Wire(haproxy.at[name], CLIENT) as wire:
        answer = ask(wire, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6;host=evil")
        assert json.loads(answer.body) == {"remote": CLIENT, "url": "http://test/", "received": 0}
    with Wire(haproxy.at[name], CLIENT) as wire:
        wire.send(b"PROXY TCP4 6.6.6.6 6.6.6.6 1 1\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.response().status == 400


def test_health_checks(haproxy: HAProxy) -> None:
    """HAProxy's checks, with a request or without one, are its own: good, and nothing to speak of."""
    checks = len([event for event in haproxy.plain.done if event.target == "/livez"])
    wait_until(lambda: len([event for event in haproxy.plain.done if event.target == "/livez"]) > checks + 20)
    assert haproxy.is_up()
    seen = {(event.remote_addr, event.status) for event in list(haproxy.plain.done) if event.target == "/livez"}
    assert seen == {("127.0.0.1", 200), ("", 200)}
    assert not haproxy.plain.engine.limit_events.counts
    assert not haproxy.secure.engine.limit_events.counts
