"""httpbin, an app that nobody here wrote, answers here what it answers under gunicorn."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Command, flask, run
from wire import Response, Wire

_MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'
    + bytes(range(256)) * 50
    + b"\r\n--x--\r\n"
)
REQUESTS: list[tuple[str, str, str, bytes]] = [
    ("GET", "/get?a=1&b=%C3%A4&a=2", "", b""),
    ("POST", "/post", "application/x-www-form-urlencoded", b"a=1&b=%20x"),
    ("POST", "/post", "application/json", b'{"a": [1, 2, {"b": null}]}'),
    ("POST", "/post", "multipart/form-data; boundary=x", _MULTIPART),
    ("GET", "/stream/20", "", b""),
    ("GET", "/bytes/100000?seed=1", "", b""),
    ("GET", "/stream-bytes/100000?seed=1", "", b""),
    ("GET", "/range/1000", "", b""),
    ("GET", "/status/204", "", b""),
    ("GET", "/status/418", "", b""),
    ("GET", "/redirect/3", "", b""),
    ("GET", "/gzip", "", b""),
    ("GET", "/deflate", "", b""),
    ("GET", "/cookies/set?name=value", "", b""),
    ("GET", "/delay/2", "", b""),
    ("GET", "/etag/abc", "", b""),
    ("GET", "/response-headers?X-One=1&X-One=2", "", b""),
    *(("GET", path, "", b"") for path in ("/", "/html", "/image/png", "/encoding/utf8", "/robots.txt", "/missing")),
    *((method, "/anything/x?y=z", "text/plain", b"body") for method in ("POST", "PUT", "PATCH", "DELETE")),
    *((method, "/anything/x?y=z", "", b"") for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PURGE")),
]
_NOT_THE_APPS = {"date", "server", "connection", "transfer-encoding"}
"""Fields that a server adds; everything else must be equal. Flask itself puts no Transfer-Encoding on a response."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Command, Any]]:
    folder: Path = tmp_path_factory.mktemp("httpbin")
    ours = flask("--app", "httpbin:app", "serve", "--port", "0")
    theirs = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", "httpbin:app"]
    # httpbin's dependencies warn on newer Pythons; that is not what is tested here.
    # The order of the Allow field is that of a set.
    env = {"PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}
    with run(ours, cwd=folder, env=env) as server, run(theirs, cwd=folder, env=env) as gunicorn:
        gunicorn.wait_for("Booting worker")
        listening = re.search(r"Listening at: http://127.0.0.1:(\d+)", gunicorn.output)
        assert listening is not None
        yield server, ("127.0.0.1", int(listening[1]))


def _ask(address: Any, method: str, target: str, content_type: str, body: bytes) -> Response:
    fields = [f"{method} {target} HTTP/1.1", "Host: httpbin.test", "Accept: */*"]
    if body:
        fields += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    with Wire(address) as wire:
        wire.send("\r\n".join([*fields, "", ""]).encode() + body)
        return wire.response(method)


def _comparable(response: Response) -> tuple[int, list[tuple[str, str]], bytes]:
    fields = sorted((name.lower(), value) for name, value in response.fields if name.lower() not in _NOT_THE_APPS)
    body = response.body
    if response.get("content-encoding"):
        # The time is in what was compressed, so only what it unpacks to is equal.
        body = zlib.decompress(body, zlib.MAX_WBITS | 32)
        fields = [(name, value) for name, value in fields if name != "content-length"]
    return response.status, fields, body


@pytest.mark.parametrize(("method", "target", "content_type", "body"), REQUESTS)
def test_same_answer(servers: tuple[Command, Any], method: str, target: str, content_type: str, body: bytes) -> None:
    """Status, the app's fields and body are those that gunicorn sends."""
    server, gunicorn = servers
    ours = _ask(server.address, method, target, content_type, body)
    if method == "TRACE":
        # Refused on purpose (RFC 9110, section 9.3.8): it would show cookies to scripts.
        assert ours.status == 501
        return
    theirs = _ask(gunicorn, method, target, content_type, body)
    assert _comparable(ours) == _comparable(theirs)
