"""Behind a real nginx, over TCP and a Unix socket, with the fields that Flask's documentation has it set."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, request, url_for

import wire
from serving import PATIENCE, in_thread, run, wait_until
from wire import Response

CONFIG = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream tcp {{ server 127.0.0.1:{tcp}; keepalive 4; }}
    upstream unix {{ server unix:{unix}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Prefix $prefix;
        client_max_body_size 0;
        location /tcp/ {{ set $prefix /tcp; proxy_pass http://tcp/; }}
        location /unix/ {{ set $prefix /unix; proxy_pass http://unix/; proxy_request_buffering off; }}
    }}
}}
"""


CLIENT = "127.0.0.2"
"""Where the tests' requests come from: nginx itself is 127.0.0.1, and trusted."""


def get(address: tuple[str, int], target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Response:
    return wire.get(address, target, *fields, method=method, body=body, source=CLIENT)


def make_app() -> Flask:
    app = Flask("behind")

    @app.route("/who", methods=["GET", "POST"])
    def who() -> Any:
        return jsonify(
            remote=request.remote_addr,
            url=request.url,
            link=url_for("who", _external=True),
            received=len(request.get_data()),
            forwarded=[name for name, _ in request.headers if "forwarded" in name.lower()],
        )

    return app


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        assert "TESTS_MAY_NOT_SKIP" not in os.environ, "nginx is missing"
        pytest.skip("nginx is not installed")
    folder: Path = tmp_path_factory.mktemp("nginx")
    unix = folder / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with in_thread(
        make_app(),
        bind=["127.0.0.1:0", f"unix:{unix}"],
        trusted_proxies=["127.0.0.1", "unix"],
        unix_socket_mode="0o666",
    ) as served:
        (folder / "nginx.conf").write_text(CONFIG.format(tcp=served.address[1], unix=unix, port=port))
        folder.chmod(0o755)
        with run([program, "-p", str(folder), "-c", "nginx.conf", "-g", "user root;"], cwd=folder) as command:

            def listening() -> bool:
                assert command.process.poll() is None, command.output
                with socket.socket() as probe:
                    probe.settimeout(PATIENCE)
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_until(listening, "nginx")
            yield "127.0.0.1", port
            command.signal(signal.SIGTERM)  # its workers would outlive a kill
            assert command.exit_code() == 0


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_client_scheme_host_and_prefix(nginx: tuple[str, int], kind: str) -> None:
    """The app sees the client, the scheme, the host and the prefix that nginx saw, and none of its fields."""
    answer = json.loads(get(nginx, f"/{kind}/who?x=1").body)
    assert answer == {
        "remote": CLIENT,
        "url": f"https://test/{kind}/who?x=1",
        "link": f"https://test/{kind}/who",
        "received": 0,
        "forwarded": [],
    }


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_spoofing_client(nginx: tuple[str, int], kind: str) -> None:
    """A client that sends the fields itself gets nowhere: nginx's own words count."""
    spoofed = [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: evil",
        "Forwarded: for=6.6.6.6;host=evil",
    ]
    answer = json.loads(get(nginx, f"/{kind}/who", *spoofed).body)
    assert answer["remote"] == CLIENT
    assert answer["url"] == f"https://test/{kind}/who"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("size", [10, 5_000_000])
def test_uploads(nginx: tuple[str, int], kind: str, size: int) -> None:
    """Uploads arrive whole, whether nginx buffers them (tcp) or streams them (unix)."""
    response = get(nginx, f"/{kind}/who", "Content-Type: application/octet-stream", method="POST", body=bytes(size))
    assert json.loads(response.body)["received"] == size


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_keep_alive_upstream(nginx: tuple[str, int], kind: str) -> None:
    """Many requests through nginx's kept connections all succeed."""
    for _ in range(200):
        assert get(nginx, f"/{kind}/who").status == 200
