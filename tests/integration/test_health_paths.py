"""What load balancers ask: /livez and /readyz, answered by the server, unless the app has such a route."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, request

from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

PIPELINED = 990
"""More than Python would call one inside the other, and fewer than MAX_KEEPALIVE_REQUESTS."""

release = threading.Event()


def make_app() -> Flask:
    app = Flask("health")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/held")
    def held() -> str:
        assert release.wait(PATIENCE)
        return "held"

    return app


@pytest.fixture
def app() -> Iterator[Flask]:
    release.clear()
    yield make_app()
    release.set()


@pytest.fixture
def health(app: Flask) -> Iterator[Served]:
    with in_thread(app, threads=2, clock=ManualClock()) as served:
        yield served
        release.set()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/livez?verbose=1"])
def test_healthy(health: Served, path: str) -> None:
    """GET and HEAD are 200, on a connection that is kept, and in the access log."""
    with Wire(health.address) as wire:
        for method in ("GET", "HEAD", "GET"):
            wire.send(f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            response = wire.response(method)
            assert (response.status, response.get("connection")) == (200, None)
            assert (response.body == b"") == (method == "HEAD")
    wait_until(lambda: [done.method for done in health.done] == ["GET", "HEAD", "GET"])
    assert {done.target for done in health.done} == {path}


def test_pipelined(health: Served) -> None:
    """Any number of questions may come in one packet."""
    with Wire(health.address) as wire:
        wire.send(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n" * PIPELINED)
        assert [wire.response().status for _ in range(PIPELINED)] == [200] * PIPELINED


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_the_apps(health: Served, method: str) -> None:
    """Nothing but GET and HEAD is taken from the app's paths: here it has no such route."""
    assert get(health.address, "/livez", method=method).status == 404
    assert get(health.address, "/livez", method="GET").status == 200


@pytest.mark.parametrize("path", ["/livez/", "/LIVEZ", "/livezz", "/x/livez"])
def test_other_paths_are_the_apps(health: Served, path: str) -> None:
    """The path is taken literally."""
    assert get(health.address, path).status == 404


def test_percent_encoded(health: Served) -> None:
    """A path is what it is decoded, as for the app."""
    assert get(health.address, "/live%7A").status == 200


@pytest.mark.parametrize("methods", [["GET"], ["POST"], ["GET", "POST"]])
def test_the_apps_route_wins(app: Flask, methods: list[str]) -> None:
    """A route of the app with just that path, whatever its methods, takes all of them; the other path is the server's still."""
    app.add_url_rule("/livez", "own", lambda: f"own {request.method}", methods=methods)
    with in_thread(app) as served:
        response = get(served.address, "/livez")
        assert (response.status, response.body) == ((200, b"own GET") if "GET" in methods else (405, response.body))
        if "POST" in methods:
            assert get(served.address, "/livez", method="POST").body == b"own POST"
        assert get(served.address, "/readyz").status == 200


def test_route_of_a_blueprint_wins(app: Flask) -> None:
    """The same for a route whose path comes from a blueprint's prefix."""
    blueprint = Blueprint("health", __name__, url_prefix="/readyz")
    blueprint.add_url_rule("", "own", lambda: "own")
    app.register_blueprint(blueprint)
    with in_thread(app) as served:
        assert get(served.address, "/readyz").body == b"own"


def test_route_that_ends_with_a_slash(app: Flask) -> None:
    """Where the app has /livez/, its redirect from /livez is the app's answer to that path."""
    app.add_url_rule("/livez/", "own", lambda: "own")
    with in_thread(app) as served:
        assert get(served.address, "/livez/").body == b"own"
        assert get(served.address, "/livez").status == 308


@pytest.mark.parametrize("rule", ["/<path:anything>", "/<anything>"])
def test_catch_all_does_not_hide_them(app: Flask, rule: str) -> None:
    """An app that answers every path, as single page apps do, did not mean these."""
    app.add_url_rule(rule, "all", lambda anything: "caught")
    with in_thread(app) as served:
        assert get(served.address, "/anything").body == b"caught"
        assert get(served.address, "/livez").body != b"caught"
        assert get(served.address, "/livez").status == 200


def test_off_and_elsewhere(app: Flask) -> None:
    """'off' leaves the path to the app; another path is answered instead of the usual one."""
    with in_thread(app, liveness_path="off", readiness_path="/health/ready") as served:
        assert get(served.address, "/livez").status == 404
        assert get(served.address, "/readyz").status == 404
        assert get(served.address, "/off").status == 404
        assert get(served.address, "/health/ready").status == 200


def test_both_at_one_path(app: Flask) -> None:
    """Where both are given the same path, its answer is that of readiness, which says more."""
    with in_thread(app, liveness_path="/health", readiness_path="/health") as served:
        assert b"ready" in get(served.address, "/health").body


def test_with_a_body(health: Served) -> None:
    """A question with a body is answered, and the connection goes on behind the body."""
    with Wire(health.address) as wire:
        wire.send(
            b"GET /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nHost: test\r\n\r\n"
        )
        assert wire.response().status == 200
        assert wire.response().body == b"hello"


def test_while_all_threads_are_busy(health: Served) -> None:
    """With every thread in the app, and requests in the queue, both are answered."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(health.address)) for _ in range(5)]
        for wire in wires:
            wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        health.wait_for_queue(3)
        for _ in range(20):
            assert get(health.address, "/livez").status == 200
            assert get(health.address, "/readyz").status == 200
        release.set()
        assert [wire.response().body for wire in wires] == [b"held"] * 5


def test_pipelined_behind_a_request_that_runs(health: Served) -> None:
    """Answers keep the order of a connection: a question behind a request waits for that."""
    with Wire(health.address) as wire:
        wire.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for path in ("/held", "/livez", "/")))
        wait_until(lambda: any(channel.running for channel in health.connections))
        release.set()
        assert wire.response().body == b"held"
        assert b"alive" in wire.response().body
        assert wire.response().body == b"hello"


def test_while_stopping(app: Flask, tmp_path: Path) -> None:
    """A server that finishes its last requests is alive and not ready, and says so on connections that are open still."""
    clock = ManualClock()  # or connections could be idle for long enough to be closed
    with in_thread(app, clock=clock, bind=f"unix:{tmp_path}/s") as served, contextlib.ExitStack() as stack:
        holder, live, ready = (stack.enter_context(Wire(served.address)) for _ in range(3))
        for wire in (live, ready):
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert wire.response().body == b"hello"
        holder.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: any(channel.running for channel in served.connections))
        served.engine.stop()
        wait_until(lambda: served.is_draining)
        for wire, path, status in ((live, "/livez", 200), (ready, "/readyz", 503)):
            wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            response = wire.response()
            assert (response.status, response.get("connection")) == (status, "close")
        release.set()
        assert holder.response().body == b"held"


def test_http_1_0_without_host(health: Served) -> None:
    """The simplest question there is, as some balancers send it."""
    with Wire(health.address) as wire:
        wire.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert wire.response().status == 200
        assert wire.closed()


def test_bounded_app(app: Flask) -> None:
    """An app with limits of single endpoints answers the same."""
    settings: dict[str, Any] = {"endpoint_limits": {"index": {"max_concurrency": 1}}}
    with in_thread(app, **settings) as served:
        assert [get(served.address, path).status for path in ("/livez", "/readyz", "/")] == [200, 200, 200]
