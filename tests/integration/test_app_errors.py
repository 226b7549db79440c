"""Apps that break the rules, and what of it reaches the client, the log, and the next request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, Response

from serving import Served, in_thread
from wire import Wire, get

pytestmark = pytest.mark.usefixtures("way")


def make_app() -> Flask:
    app = Flask("broken")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/before")
    def before() -> str:
        raise RuntimeError("secret before")

    @app.get("/during/<int:chunks>")
    def during(chunks: int) -> Response:
        def body() -> Iterator[str]:
            for number in range(chunks):
                yield f"chunk {number}\n"
            raise RuntimeError("secret during")

        return Response(body())

    @app.get("/after")
    def after() -> Response:
        response = Response("complete")
        response.call_on_close(_raise_after)
        return response

    @app.get("/exit")
    def leave() -> str:
        raise SystemExit(3)

    @app.get("/wsgi/<name>")
    def wsgi(name: str) -> Response:
        raise AssertionError("replaced below")

    plain = app.wsgi_app

    def dispatch(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = environ["PATH_INFO"].removeprefix("/wsgi/")
        return _WSGI[name](environ, start_response) if name in _WSGI else plain(environ, start_response)

    app.wsgi_app = dispatch  # type: ignore[method-assign]
    return app


def _raise_after() -> None:
    raise RuntimeError("secret after")


def _raises(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise OSError("secret outside Flask")


def _no_start_response(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return [b"body"]


def _answers(*fields: tuple[str, str], status: str = "200 OK", body: tuple[Any, ...] = (b"body",)) -> Any:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, list(fields))
        return list(body)

    return app


def _changes_its_mind(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("found out late")
    except ValueError as error:
        start_response("503 Late", [("X-Second", "2")], (type(error), error, error.__traceback__))
    return [b"late"]


def _writes_text(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    write = start_response("200 OK", [("X-Field", "a"), ("Content-Length", "3")])
    write("text")
    return []


def _streams(*chunks: object) -> Any:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[Any]:
        start_response("200 OK", [("X-Field", "a")])
        return iter(chunks)

    return app


def _writes(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    write = start_response("200 OK", [("Content-Length", "9")])
    write(b"old ")
    write(b"sch")
    return [b"oo"]


_WSGI = {
    "raises": _raises,
    "no-start-response": _no_start_response,
    "newline": _answers(("X-Field", "a\r\nSet-Cookie: evil=1")),
    "nul": _answers(("X-Field", "a\0b")),
    "bad-name": _answers(("X Field", "a")),
    "bad-status": _answers(status="OK"),
    "status-newline": _answers(status="200 OK\r\nX: y"),
    "two-lengths": _answers(("Content-Length", "4"), ("Content-Length", "5")),
    "short": _answers(("Content-Length", "10")),
    "long": _answers(("Content-Length", "2")),
    "body-in-204": _answers(status="204 No Content"),
    "body-in-205": _answers(("Content-Length", "4"), status="205 Reset Content"),
    "body-in-304": _answers(status="304 Not Modified"),
    "text": _answers(("X-Field", "a"), body=("text",)),
    "text-and-length": _answers(("X-Field", "a"), ("Content-Length", "2"), body=("text",)),
    "long-text": _answers(("X-Field", "a"), body=("x" * 100_000,)),
    "writes-text": _writes_text,
    "number": _answers(("X-Field", "a"), body=(7,)),
    "streams-text": _streams("text", "more"),
    "streams-long-text": _streams("x" * 100_000),
    "bytes-and-text": _streams(b"bytes", "text"),
    "one-chunk": _answers(body=(b"body",)),
    "empty-chunks": _answers(body=(b"", b"bo", b"", b"dy", b"")),
    "no-chunks": _answers(body=()),
    "changes-its-mind": _changes_its_mind,
    "writes": _writes,
}


@pytest.fixture(scope="module")
def served(way: str) -> Iterator[Served]:
    with in_thread(make_app()) as served:
        yield served


def _errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("target", ["/before", "/wsgi/raises"])
def test_raise_before(served: Served, caplog: pytest.LogCaptureFixture, target: str) -> None:
    """An exception before the response is 500 without a traceback, logged once with it, and the connection goes on."""
    with Wire(served.address) as wire:
        wire.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        response = wire.response()
        assert response.status == 500
        assert b"secret" not in response.body
        assert b"Traceback" not in response.body
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.response().body == b"hello"
    [record] = _errors(caplog)
    assert record.name == "broken"
    assert record.exc_info is not None
    assert f"{target} [GET]" in record.getMessage()


@pytest.mark.every_way
def test_raise_in_a_stream_before_its_first_chunk(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing has been sent yet, so the client gets a 500."""
    assert get(served.address, "/during/0").status == 500
    assert len(_errors(caplog)) == 1


@pytest.mark.every_way
def test_raise_during(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the middle of a stream cuts the connection without the last chunk: the client can tell."""
    with Wire(served.address) as wire:
        wire.send(b"GET /during/3 HTTP/1.1\r\nHost: test\r\n\r\n")
        received = b""
        while data := wire.socket.recv(65536):
            received += data
    assert b"chunk 2\n" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert b"secret" not in received
    assert len(_errors(caplog)) == 1


def test_raise_after(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """An exception while the response is closed does not spoil what the client got, and is logged."""
    assert get(served.address, "/after").body == b"complete"
    served.wait_until(lambda: len(_errors(caplog)) == 1)


@pytest.mark.every_way
def test_system_exit(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A view that calls sys.exit() ends its request, neither its thread nor the server."""
    for _ in range(20):  # more often than there are threads
        assert get(served.address, "/exit").status == 500
    assert get(served.address).body == b"hello"
    assert len(_errors(caplog)) == 20


@pytest.mark.parametrize(
    "name", ["no-start-response", "newline", "nul", "bad-name", "bad-status", "status-newline", "two-lengths"]
)
def test_response_that_cannot_be_sent(served: Served, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """A response that breaks HTTP is 500 with nothing of it sent, and the log names the request."""
    response = get(served.address, f"/wsgi/{name}")
    assert response.status == 500
    assert response.get("set-cookie") is None
    assert response.get("x-field") is None
    [record] = _errors(caplog)
    assert f"/wsgi/{name} [GET]" in record.getMessage()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "name",
    ["text", "text-and-length", "long-text", "writes-text", "number", "streams-text", "streams-long-text"],
)
def test_body_that_is_not_bytes(served: Served, caplog: pytest.LogCaptureFixture, name: str, version: str) -> None:
    """What cannot be sent where the body should begin is 500 with nothing of the response in it, and the connection goes on."""
    target = f"/wsgi/{name}?{version}"
    with Wire(served.address) as wire:
        for _ in range(2):
            wire.send(f"GET {target} HTTP/{version}\r\nHost: test\r\nConnection: keep-alive\r\n\r\n".encode())
            response = wire.response()
            assert (response.status, response.get("x-field"), response.get("transfer-encoding")) == (500, None, None)
            assert response.get("content-length") == str(len(response.body))
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.response().body == b"hello"
    served.wait_until(lambda: [done.target for done in served.done].count(target) == 2)
    for done in served.done:
        assert done.target != target or (done.status, done.response_bytes) == (500, len(response.body))
    assert [record.getMessage() for record in _errors(caplog)] == [f"Exception on {target} [GET]"] * 2


@pytest.mark.every_way
def test_bytes_and_then_none(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """After the first bytes the connection is cut, so that the client can tell."""
    with Wire(served.address) as wire:
        wire.send(b"GET /wsgi/bytes-and-text HTTP/1.1\r\nHost: test\r\n\r\n")
        received = b""
        while data := wire.socket.recv(65536):
            received += data
    assert received.endswith(b"5\r\nbytes\r\n")
    assert len(_errors(caplog)) == 1


@pytest.mark.every_way
@pytest.mark.parametrize(("name", "word"), [("short", "fewer"), ("long", "more")])
def test_wrong_length(served: Served, caplog: pytest.LogCaptureFixture, name: str, word: str) -> None:
    """Never more than Content-Length is sent; with less, the connection is cut. Both are logged."""
    with Wire(served.address) as wire:
        wire.send(f"GET /wsgi/{name} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if name == "long":
            assert wire.response().body == b"bo"
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert wire.response().body == b"hello"
        else:
            with pytest.raises(Exception, match="peer closed connection"):
                wire.response()
    assert any(word in record.getMessage() and f"/wsgi/{name}" in record.getMessage() for record in caplog.records)


@pytest.mark.every_way
@pytest.mark.parametrize("status", [204, 205, 304])
def test_body_where_none_is_allowed(served: Served, caplog: pytest.LogCaptureFixture, status: int) -> None:
    """A body that the status does not allow is not sent, and the connection stays usable."""
    with Wire(served.address) as wire:
        wire.send(f"GET /wsgi/body-in-{status} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert wire.response().status == status
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.response().body == b"hello"
    assert any("is not sent" in record.getMessage() for record in caplog.records)


@pytest.mark.every_way
@pytest.mark.parametrize(
    ("name", "body", "length"),
    [
        ("one-chunk", b"body", "4"),
        ("empty-chunks", b"body", None),
        ("no-chunks", b"", "0"),
        ("writes", b"old schoo"[:9], "9"),
    ],
)
def test_framing(served: Served, name: str, body: bytes, length: str | None) -> None:
    """The length is sent where it is known when the first bytes go out; else the body is chunked."""
    response = get(served.address, f"/wsgi/{name}")
    assert response.body == body
    assert response.get("content-length") == length
    assert response.get("transfer-encoding") == (None if length else "chunked")


def test_start_response_with_exc_info(served: Served) -> None:
    """Until bytes have gone out, start_response with exc_info replaces status and fields (PEP 3333)."""
    response = get(served.address, "/wsgi/changes-its-mind")
    assert (response.status, response.body) == (503, b"late")
    assert response.get("x-first") is None
    assert response.get("x-second") == "2"
