"""How a server ends: signals, requests in flight, idle connections, and what it says about them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_prodserve.engine.connection.connection import DRAIN_IDLE_SECONDS
from serving import Command, ManualClock, defaults, flask, in_thread, run, wait_until
from wire import RESETS, Wire

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

APP = """
import threading
from pathlib import Path
from flask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    return "hello"

@app.get("/held")
def held():
    # Runs until the test says so; what it waits for is a file.
    Path("started").touch()
    while not Path("release").exists():
        threading.Event().wait(0.01)
    return "held"
"""


WITHOUT_EPOLL = "import select\nvars(select).pop('epoll', None)\n"


@pytest.fixture
def source(way: str) -> str:
    """The app, also as on a system that has no epoll."""
    return (WITHOUT_EPOLL if way == "portable" else "") + APP


@pytest.fixture
def folder(tmp_path: Path, source: str) -> Path:
    (tmp_path / "app.py").write_text(source)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Command]:
    with run(flask("serve", "--port", "0", "--graceful-timeout", "20s", *defaults()), cwd=folder) as command:
        yield command


def _start_held(wire: Wire, folder: Path) -> None:
    wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
    wait_until((folder / "started").exists, "the request to run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_are_finished(server: Command, folder: Path, number: int) -> None:
    """SIGTERM and SIGINT refuse new connections, finish what runs, say Connection: close, and exit 0."""
    with Wire(server.address) as wire:
        _start_held(wire, folder)
        server.signal(number)
        wait_until(lambda: _is_refused(server), "the listener to close")
        assert server.process.poll() is None
        (folder / "release").touch()
        response = wire.response()
        assert response.body == b"held"
        assert response.get("connection") == "close"
        assert wire.closed()
    assert server.exit_code() == 0
    assert "stopped; 1 request finished, 0 cut" in server.output


def test_keep_alive_client_in_use_is_told() -> None:
    """A connection that was just used may send one more request to a server that stops, and is told that it was the last."""
    app = Flask("stopping")
    app.add_url_rule("/", view_func=lambda: "hello")
    clock = ManualClock()
    with in_thread(app, clock=clock) as served, Wire(served.address) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.response().get("connection") is None
        clock.advance(DRAIN_IDLE_SECONDS)
        served.engine.stop()
        wait_until(lambda: served.is_draining, "the listener to close")
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        response = wire.response()
        assert response.body == b"hello"
        assert response.get("connection") == "close"
        assert wire.closed()


def test_idle_connections_do_not_delay(server: Command) -> None:
    """Connections without a request are closed, and the server ends long before GRACEFUL_TIMEOUT."""
    with Wire(server.address) as silent, Wire(server.address) as used:
        used.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        used.response()
        server.signal(signal.SIGTERM)
        assert used.closed()
        assert silent.closed()
    assert server.exit_code() == 0
    assert "0 cut" in server.output


def test_cut_at_graceful_timeout(folder: Path) -> None:
    """A request that outlives GRACEFUL_TIMEOUT is cut, counted, and the setting is named; the exit code is 0."""
    with run(flask("serve", "--port", "0", "--graceful-timeout", "300ms", *defaults()), cwd=folder) as server:
        with Wire(server.address) as wire:
            _start_held(wire, folder)
            server.signal(signal.SIGTERM)
            assert wire.closed()
        assert server.exit_code() == 0
        assert "1 cut (GRACEFUL_TIMEOUT is 300ms)" in server.output


def test_second_sigint_stops_at_once(server: Command, folder: Path) -> None:
    """A second SIGINT does not wait for running requests; a SIGTERM while stopping changes nothing."""
    with Wire(server.address) as wire:
        _start_held(wire, folder)
        server.signal(signal.SIGINT)
        server.wait_for("stopping; 1 request to finish within 20s; CTRL+C again stops at once\n")
        server.signal(signal.SIGTERM)
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert wire.closed()
    assert server.exit_code() == 128 + signal.SIGINT
    assert "stopped; 0 requests finished, 1 cut\n" in server.output


def test_sigquit_stops_at_once(server: Command, folder: Path) -> None:
    """SIGQUIT does not wait for running requests, also of a stop that did; no time that was over is named."""
    with Wire(server.address) as wire:
        _start_held(wire, folder)
        server.signal(signal.SIGTERM)
        server.wait_for("stopping; 1 request to finish within 20s\n")
        server.signal(signal.SIGQUIT)
        assert wire.closed()
    assert server.exit_code() == 128 + signal.SIGQUIT
    assert "stopped; 0 requests finished, 1 cut\n" in server.output


def test_stop_under_load(server: Command) -> None:
    """With SIGTERM under load, every request that was sent on an accepted connection is answered."""
    address = server.address
    stop = threading.Event()
    answered: list[list[int]] = [[] for _ in range(8)]
    failures: list[BaseException] = []

    def client(statuses: list[int]) -> None:
        while not stop.is_set():
            try:
                wire = Wire(address)
            except (ConnectionError, *RESETS):
                return  # refused: the listener is closed; over TLS also in a handshake, when nothing has been sent yet
            answered, asked = 0, 0.0
            try:
                with wire:
                    while True:
                        asked_before, asked = asked, time.monotonic()
                        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                        response = wire.response()
                        answered += 1
                        statuses.append(response.status)
                        if response.get("connection") == "close":
                            break
            except BaseException as error:  # whatever it is, it is the finding
                # But a client that is kept from running may be idle for so long that its connection is closed.
                if not answered or time.monotonic() - asked_before < DRAIN_IDLE_SECONDS:
                    failures.append(error)
                return

    threads = [threading.Thread(target=client, args=[statuses]) for statuses in answered]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: failures or all(len(statuses) > 20 for statuses in answered), "load")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {status for statuses in answered for status in statuses} == {200}
    assert "0 cut" in server.output


def _is_refused(server: Command) -> bool:
    try:
        with Wire(server.address, handshake=False):
            return False
    except ConnectionError:  # refused, or reset when it came in the very moment of closing
        return True


def test_unread_response_is_counted(folder: Path, source: str) -> None:
    """A response that its client has not taken at GRACEFUL_TIMEOUT is cut, and counted as that and nothing else."""
    (folder / "app.py").write_text(source + "\n@app.get('/large')\ndef large():\n    return bytes(8_000_000)\n")
    with run(flask("serve", "--port", "0", "--graceful-timeout", "300ms", *defaults()), cwd=folder) as server:
        with Wire(server.address) as wire:
            wire.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
            server.wait_for('"GET /large HTTP/1.1" 200')
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0
        assert "stopped; 0 requests finished, 1 cut" in server.output


def test_cut_request_is_not_counted_as_finished(folder: Path, source: str) -> None:
    """A stream whose producer waits for a client that does not read is cut once, and a request queued behind it does not run."""
    stream = "\n@app.get('/stream')\ndef stream():\n    return (bytes(65536) for _ in range(600))\n"
    (folder / "app.py").write_text(source + stream)
    arguments = ("serve", "--port", "0", "--threads", "1", "--graceful-timeout", "300ms", *defaults())
    with run(flask(*arguments), cwd=folder) as server:
        with Wire(server.address) as wire, Wire(server.address) as queued:
            wire.send(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
            assert wire.socket.recv(12) == b"HTTP/1.1 200"
            queued.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0
        assert "stopped; 0 requests finished, 2 cut" in server.output
        assert not (folder / "started").exists()
