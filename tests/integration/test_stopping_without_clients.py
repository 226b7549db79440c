"""A server that stops does not wait for streams whose client has gone, and waits for all others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from flask import Flask, Response

from serving import PATIENCE, Served, in_thread, wait_until
from wire import Wire

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]


@dataclass
class Streaming:
    """An app whose views and streams run until the test releases them."""

    app: Flask
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def streaming() -> Iterator[Streaming]:
    app = Flask("streaming")
    streaming = Streaming(app)

    def body() -> Iterator[str]:
        yield "first\n"
        assert streaming.release.wait(PATIENCE)
        yield "last\n"

    @app.get("/stream")
    def stream() -> Response:
        return Response(body(), mimetype="text/plain")

    @app.get("/known")
    def known() -> Response:
        return Response(body(), headers={"Content-Length": "11"})

    @app.get("/view")
    def view() -> str:
        streaming.started.release()
        assert streaming.release.wait(PATIENCE)
        streaming.finished.set()
        return "done"

    yield streaming
    streaming.release.set()


def begin(served: Served, target: str) -> Wire:
    """A client that has the first chunk of its response."""
    wire = Wire(served.address)
    wire.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    received = b""
    while b"first\n" not in received:
        received += wire.socket.recv(65536)
    return wire


def leave(wire: Wire, how: str) -> None:
    if how == "reset":
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.socket.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_stream_without_its_client(streaming: Streaming, how: str) -> None:
    """The stop is over while the stream still waits, and says that it was abandoned by its client, also if that closes after the stop."""
    with in_thread(streaming.app, threads=4, graceful_timeout=f"{10 * PATIENCE:.0f}s") as served:
        first, second = begin(served, "/stream"), begin(served, "/stream")
        leave(first, how)
        served.engine.stop()
        wait_until(lambda: served.is_draining, "the listener to close")
        assert served.drained is None
        leave(second, how)
        wait_until(lambda: served.drained, "the end")
        assert not streaming.release.is_set()
        streaming.release.set()  # what the server has abandoned ends, too
    assert served.drained is not None
    assert (served.drained.finished, served.drained.cut, served.drained.left) == (0, 0, 2)


@pytest.mark.parametrize("target", ["/stream", "/known"])
def test_a_half_closed_client_of_a_stream(streaming: Streaming, target: str) -> None:
    """A client that has only shut down its sending side gets all of its stream, as it was, from a server that stops."""
    with in_thread(streaming.app) as served:
        with Wire(served.address) as wire:
            wire.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            wait_until(lambda: any(channel.task for channel in served.connections))
            wire.shut_down_sending()
            wait_until(lambda: any(_has_begun(channel) for channel in served.connections))
            served.engine.stop()
            wait_until(lambda: served.is_draining, "the listener to close")
            if target == "/stream":
                wait_until(lambda: any(_is_probed(channel) for channel in served.connections))
            served.settle()
            assert served.drained is None
            streaming.release.set()
            assert wire.response().body == b"first\nlast\n"
        wait_until(lambda: served.drained, "the end")
    assert served.drained is not None
    assert (served.drained.finished, served.drained.cut, served.drained.left) == (1, 0, 0)


def _has_begun(channel: object) -> bool:
    task = getattr(channel, "task", None)
    return task is not None and task.streaming_since is not None and task.response.begun


def _is_probed(channel: object) -> bool:
    task = getattr(channel, "task", None)
    return task is not None and task.response.probed


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_view_without_its_client(streaming: Streaming, how: str) -> None:
    """A view is waited for whether its client is there or not: what it does may matter to others."""
    with in_thread(streaming.app, graceful_timeout=f"{10 * PATIENCE:.0f}s") as served:
        with Wire(served.address) as wire:
            wire.send(b"GET /view HTTP/1.1\r\nHost: test\r\n\r\n")
            assert streaming.started.acquire(timeout=PATIENCE)
            leave(wire, how)
        served.engine.stop()
        wait_until(lambda: served.is_draining, "the listener to close")
        served.settle()
        served.settle()
        assert served.drained is None
        streaming.release.set()
        wait_until(lambda: served.drained, "the end")
        assert streaming.finished.is_set()
    assert served.drained is not None
    assert served.drained.cut == 0
