"""Behind a real nginx that passes bytes on and announces its clients (its module stream), over TCP, a Unix socket and before TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, request

from certificates import Pair
from programs import free_ports, missing, program
from serving import PATIENCE, in_thread, run, wait_until
from wire import Wire

CLIENT = "127.0.0.2"
MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
CONFIG = """
load_module {module};
daemon off;
pid nginx.pid;
error_log stderr;
events {{ }}
stream {{
    proxy_protocol on;
    server {{ listen 127.0.0.1:{ports[0]}; proxy_pass 127.0.0.1:{tcp}; }}
    server {{ listen 127.0.0.1:{ports[1]}; proxy_pass unix:{unix}; }}
    server {{ listen 127.0.0.1:{ports[2]}; proxy_pass 127.0.0.1:{tls}; }}
}}
"""


def make_app() -> Flask:
    app = Flask("announced")

    @app.get("/")
    def index() -> Any:
        return jsonify(remote=request.remote_addr, url=request.url)

    return app


@pytest.fixture(scope="module")
def nginx(localhost: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, int]]]:
    """Where it listens, by what is behind it."""
    if not os.path.exists(MODULE):
        missing("libnginx-mod-stream")
    folder: Path = tmp_path_factory.mktemp("nginx-stream")
    with ExitStack() as stack:
        ports = free_ports(3)
        settings: dict[str, Any] = {"trusted_proxies": ["127.0.0.1", "unix"], "proxy_protocol": True}
        unix = folder / "app.sock"
        plain = stack.enter_context(in_thread(make_app(), bind=["127.0.0.1:0", f"unix:{unix}"], **settings))
        secure = stack.enter_context(in_thread(make_app(), **localhost.settings, **settings))
        config = CONFIG.format(module=MODULE, ports=ports, tcp=plain.address[1], unix=unix, tls=secure.address[1])
        (folder / "nginx.conf").write_text(config)
        command = stack.enter_context(
            run([program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-g", "user root;"], cwd=folder)
        )

        def listening() -> bool:
            assert command.process.poll() is None, command.output
            with socket.socket() as probe:
                probe.settimeout(PATIENCE)
                return probe.connect_ex(("127.0.0.1", ports[0])) == 0

        wait_until(listening, "nginx")
        yield {name: ("127.0.0.1", port) for name, port in zip(("tcp", "unix", "tls"), ports, strict=True)}
        command.signal(signal.SIGTERM)  # its workers would outlive a kill
        assert command.exit_code() == 0
        assert not plain.engine.limit_events.counts
        assert not secure.engine.limit_events.counts


@pytest.mark.parametrize("name", ["tcp", "unix", "tls"])
def test_client_and_scheme(nginx: dict[str, tuple[str, int]], name: str) -> None:
    """The app sees nginx's client, whatever that says of itself, for every request of a connection."""
    with Wire(nginx[name], CLIENT) as wire:
        if name == "tls":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            wire.socket = context.wrap_socket(wire.socket)
        for _ in range(3):
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
            scheme = "https" if name == "tls" else "http"
            assert json.loads(wire.response().body) == {"remote": CLIENT, "url": f"{scheme}://test/"}
