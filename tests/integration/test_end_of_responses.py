"""When a response is over for the app: its iterable is closed as soon as nothing more may be sent."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask, Response

from serving import PATIENCE, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

StartResponse = Callable[..., Any]


@dataclass
class Endless:
    """A body without an end: *chunks*, then what *then* makes, again and again. Records its use."""

    chunks: list[bytes] = field(default_factory=list)
    then: Callable[[], bytes] = lambda: b"more"
    asked: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        return self.chunks.pop(0) if self.chunks else self.then()

    def close(self) -> None:
        self.closed.set()


def serve(answer: Callable[[dict[str, Any], StartResponse], Iterable[bytes]]) -> Flask:
    """An app that answers ``/`` by *answer* and all else with ``hello``."""
    app = Flask("ends")
    app.add_url_rule("/hello", view_func=lambda: "hello")
    plain = app.wsgi_app

    def dispatch(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return answer(environ, start_response) if environ["PATH_INFO"] == "/" else plain(environ, start_response)

    app.wsgi_app = dispatch  # type: ignore[method-assign]
    return app


def ask(wire: Wire, target: str = "/", method: str = "GET") -> None:
    wire.send(f"{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())


def check_that_it_goes_on(served: Served, wire: Wire) -> None:
    """The connection and the only thread are free."""
    ask(wire, "/hello")
    assert wire.response().body == b"hello"
    assert get(served.address, "/hello").body == b"hello"


@pytest.mark.parametrize("then", ["bytes", "nothing", "waits"])
def test_content_length_is_the_end(then: str) -> None:
    """A generator that goes on after its Content-Length is closed, whatever it would do next, and its thread is free."""
    release = threading.Event()
    ended = threading.Event()
    app = Flask("ends")

    @app.get("/")
    def index() -> Response:
        def body() -> Iterator[bytes]:
            try:
                yield b"he"
                yield b"llo"
                while then != "waits" or not release.wait(PATIENCE):
                    yield b"more" if then == "bytes" else b""
            finally:
                ended.set()

        return Response(body(), headers={"Content-Length": "5"})

    app.add_url_rule("/hello", view_func=lambda: "hello")
    with in_thread(app, threads=1) as served, Wire(served.address) as wire:
        try:
            ask(wire)
            assert wire.response().body == b"hello"
            assert ended.wait(PATIENCE)
            check_that_it_goes_on(served, wire)
        finally:
            release.set()
    assert not any(event.status != 200 for event in served.done)


def test_an_empty_content_length_is_the_end() -> None:
    """Of a body with Content-Length 0, one empty chunk is enough."""
    body = Endless(then=lambda: b"")

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "0")])
        return body

    with in_thread(serve(answer), threads=1) as served, Wire(served.address) as wire:
        ask(wire)
        assert wire.response().body == b""
        assert body.closed.wait(PATIENCE)
        check_that_it_goes_on(served, wire)
    assert body.asked == 1


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "205 Reset Content", "304 Not Modified"])
def test_no_body_is_asked_for(status: str) -> None:
    """To HEAD, and with 204, 205 and 304, the iterable is closed unread."""
    method = "HEAD" if status == "200 OK" else "GET"
    body = Endless()

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("X-Field", "kept")])
        return body

    with in_thread(serve(answer), threads=1) as served, Wire(served.address) as wire:
        ask(wire, method=method)
        response = wire.response(method)
        assert (response.status, response.body, response.get("x-field")) == (int(status[:3]), b"", "kept")
        assert body.closed.wait(PATIENCE)
        check_that_it_goes_on(served, wire)
    assert body.asked == 0


def test_a_generator_is_asked_for_its_head() -> None:
    """An app that is a generator runs to its first chunk, since only then its status is known, and no further."""
    steps: list[int] = []

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("204 No Content", [])
        for step in itertools.count():
            steps.append(step)
            yield b""

    with in_thread(serve(answer), threads=1) as served, Wire(served.address) as wire:
        ask(wire)
        assert wire.response().status == 204
        check_that_it_goes_on(served, wire)
    assert steps == [0]


def test_written_to_the_end() -> None:
    """What an app returns after it has written Content-Length bytes is closed unread."""
    body = Endless()

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])(b"hello")
        return body

    with in_thread(serve(answer), threads=1) as served, Wire(served.address) as wire:
        ask(wire)
        assert wire.response().body == b"hello"
        assert body.closed.wait(PATIENCE)
        check_that_it_goes_on(served, wire)
    assert body.asked == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_written_beyond_the_end(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """An app that writes on after the end of its response is ended there; only bytes beyond Content-Length are logged."""
    ended = threading.Event()

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "5")])
        try:
            while True:
                write(b"hello")
        except Exception:  # an app that carries on after errors
            return Endless()
        finally:
            ended.set()

    with in_thread(serve(answer), threads=1) as served, Wire(served.address) as wire:
        ask(wire, method=method)
        response = wire.response(method)
        assert (response.body, response.get("content-length")) == (b"hello" if method == "GET" else b"", "5")
        assert ended.wait(PATIENCE)
        check_that_it_goes_on(served, wire)
    excess = [record for record in caplog.records if "more bytes than its Content-Length" in record.getMessage()]
    assert len(excess) == (method == "GET")


def test_a_list_is_looked_through(caplog: pytest.LogCaptureFixture) -> None:
    """What a list has beyond Content-Length is logged: to look costs nothing."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello", b"more"]

    with in_thread(serve(answer)) as served:
        assert get(served.address).body == b"hello"
        wait_until(lambda: served.done, "the end of the request")
    assert any("more bytes than its Content-Length" in record.getMessage() for record in caplog.records)
