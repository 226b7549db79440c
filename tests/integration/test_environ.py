"""The WSGI environment, for every kind of listener, as wsgiref's validator and the app see it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from flask import Flask, jsonify, request

from flask_prodserve.net.loads import Loads
from serving import in_thread
from wire import Wire, get

pytestmark = pytest.mark.usefixtures("way")

FIXED = {
    "REQUEST_METHOD": "POST",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/environ/ä b".encode().decode("latin-1"),
    "QUERY_STRING": "x=%20&y",
    "REQUEST_URI": "/environ/%C3%A4%20b?x=%20&y",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "4",
    "HTTP_HOST": "test",
    "HTTP_X_TWICE": "1, 2",
    "HTTP_COOKIE": "a=1; b=2",
    "wsgi.version": [1, 0],
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}
REQUEST = (
    b"POST /environ/%C3%A4%20b?x=%20&y HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n"
    b"X-Twice: 1\r\nx-twice: 2\r\nCookie: a=1\r\nCookie: b=2\r\nX_Twice: 3\r\nX-Forwarded-For: 1.2.3.4\r\n\r\nbody"
)


def make_app() -> Flask:
    app = Flask("environment")

    @app.post("/environ/<path:rest>")
    def show(rest: str) -> Any:
        environ = {name: value for name, value in request.environ.items() if isinstance(value, (str, bool, tuple))}
        return jsonify(environ=environ, body=request.get_data(as_text=True), url=request.url)

    return app


@pytest.fixture
def unix_path(tmp_path: Path) -> str:
    return str(tmp_path / "app.sock")


def _environ(address: tuple[str, int] | str, scheme: str) -> dict[str, Any]:
    with Wire(address) as wire:
        wire.send(REQUEST)
        response = wire.response("POST")
    assert response.status == 200, response.body
    answer: dict[str, Any] = json.loads(response.body)
    assert answer["body"] == "body"
    assert answer["url"].startswith(f"{scheme}://test/")
    environ: dict[str, Any] = answer["environ"]
    assert {name: environ.get(name) for name in FIXED} == FIXED
    assert environ["wsgi.url_scheme"] == scheme
    assert not any(name.startswith("HTTP_X_FORWARDED") for name in environ)
    return environ


@pytest.mark.every_way
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(host: str, scheme: str) -> None:
    """Over TCP the environment has the client's address and port, and the server's as the client reached it."""
    with in_thread(make_app(), host=host) as served:
        environ = _environ(served.address, scheme)
        assert environ["REMOTE_ADDR"] == host
        assert environ["REMOTE_PORT"].isdecimal()
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (host, str(served.address[1]))


def test_every_interface(scheme: str) -> None:
    """'*' listens on IPv4 and IPv6, on the same port, and SERVER_NAME is the address that the client used."""
    with in_thread(make_app(), host="*") as served:
        port = served.address[1]
        assert {address[:2] for address in served.addresses} == {("0.0.0.0", port), ("::", port)}
        for host in ("127.0.0.1", "::1"):
            assert _environ((host, int(port)), scheme)["SERVER_NAME"] == host


def test_several_binds(unix_path: str, scheme: str) -> None:
    """One BIND may name IPv4, IPv6 and Unix sockets together."""
    with in_thread(make_app(), bind=["127.0.0.1:0", "[::1]:0", f"unix:{unix_path}"]) as served:
        assert len(served.addresses) == 3
        for address in served.addresses:
            _environ(address, scheme)


@pytest.mark.every_way
def test_unix_socket(unix_path: str, scheme: str) -> None:
    """Over a Unix socket the peer has no address, and the server's name and port are those of a URL without them."""
    with in_thread(make_app(), bind=f"unix:{unix_path}", unix_socket_mode="0o640") as served:
        environ = _environ(served.address, scheme)
        assert environ["REMOTE_ADDR"] == ""
        assert "REMOTE_PORT" not in environ
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", {"http": "80", "https": "443"}[scheme])
        assert Path(unix_path).stat().st_mode & 0o777 == 0o640
    assert not Path(unix_path).exists()


@pytest.mark.every_way
def test_one_thread() -> None:
    """wsgi.multithread is false where one thread runs all requests."""
    with in_thread(make_app(), threads=1) as served, Wire(served.address) as wire:
        wire.send(REQUEST)
        assert b'"wsgi.multithread":false' in wire.response("POST").body


def test_several_processes() -> None:
    """wsgi.multiprocess is true where other processes may serve the same app."""
    memory = Loads.create(1)
    with in_thread(make_app(), loads=Loads(memory, 0)) as served, Wire(served.address) as wire:
        os.close(memory)
        wire.send(REQUEST)
        assert b'"wsgi.multiprocess":true' in wire.response("POST").body


def test_chunked_body_has_a_length() -> None:
    """The app sees a chunked body decoded, with its length, and no Transfer-Encoding."""
    with in_thread(make_app()) as served, Wire(served.address) as wire:
        wire.send(
            b"POST /environ/x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
        )
        body = wire.response("POST").body
        assert b'"CONTENT_LENGTH":"4"' in body
        assert b"HTTP_TRANSFER_ENCODING" not in body


@pytest.mark.every_way
def test_wsgiref_validator(unix_path: str) -> None:
    """wsgiref's validator finds nothing to complain about, whatever the request and the listener."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"no body"]

    app = Flask("validated")
    app.wsgi_app = validator(answer)  # type: ignore[method-assign]
    with in_thread(app, bind=["127.0.0.1:0", f"unix:{unix_path}"]) as served:
        for address in served.addresses:
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                body = b"some body" if method == "POST" else b""
                response = get(
                    address,
                    "/path?query=1",
                    "Content-Type: text/plain" if body else "Accept: */*",
                    method=method,
                    body=body,
                )
                assert response.status == 200
                assert response.body == (b"" if method == "HEAD" else body or b"no body")


def _refusals() -> Iterator[tuple[str, bytes, int]]:
    head = b"GET / HTTP/1.1\r\nHost: test\r\n"
    yield "request line", b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414
    yield "endless request line", b"GET /" + b"a" * 300, 414
    yield "head size", head + b"X-A: " + b"a" * 1000 + b"\r\n\r\n", 431
    yield "endless head", head + b"X-A: " + b"a" * 2000, 431
    yield "field count", head + b"X-A: a\r\n" * 10 + b"\r\n", 431
    yield "body", b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 101\r\n\r\n", 413
    yield "chunked body", b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", 413
    yield "version", b"GET / HTTP/2.0\r\nHost: test\r\n\r\n", 505
    yield "bare LF", b"GET / HTTP/1.1\nHost: test\n\n", 400
    yield "two lengths", b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400
    yield (
        "length and coding",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    )
    yield "two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400
    yield "unknown coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501
    yield "expectation", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: tea\r\n\r\n", 417


@pytest.mark.parametrize(("message", "status"), [pytest.param(m, s, id=name) for name, m, s in _refusals()])
def test_refusals(message: bytes, status: int) -> None:
    """What is refused is answered with its status after the answers to the good requests before it, and the connection closes."""
    limits = {"max_request_line": 100, "max_header_size": 512, "max_header_count": 8, "max_body_size": 100}
    with in_thread(make_app(), **limits) as served:
        with Wire(served.address) as wire:
            wire.send(b"GET /first HTTP/1.1\r\nHost: test\r\n\r\n" + message)
            assert wire.response().status == 404
            response = wire.response()
            assert response.status == status
            assert response.get("connection") == "close"
            assert b"test" not in response.body
            assert wire.closed()
        assert [event.status for event in served.done] == [404, status]
