"""What holds for a Flask app inside of WSGI middleware, and for WSGI apps of other kinds: limits, static files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from serving import in_thread
from wire import Wire, get


def closure(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def middleware(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return app(environ, start_response)

    return middleware


def test_limits_hold_inside_of_middleware(way: str) -> None:
    """Limits of an endpoint hold where middleware is around the app, and what is not of Flask has those of the server."""
    app = Flask(__name__)
    app.config["PRODSERVE_ENDPOINT_LIMITS"] = {"small": {"max_body": 4}}

    @app.post("/small")
    def small() -> str:
        return str(len(request.get_data()))

    with in_thread(closure(app)) as served:
        for body, status in ((b"four", 200), (b"5five", 413)):
            with Wire(served.address) as wire:
                wire.send(b"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                assert wire.response().status == status

    def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with in_thread(plain, max_body_size=4) as served:
        assert get(served.address).body == b"ok"


def test_static_files_are_left_to_middleware(way: str, tmp_path: Path) -> None:
    """Middleware around the app may be a guard, so static files go through it unless STATIC is on; ProxyFix guards nothing."""
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "file.txt").write_text("file")
    app = Flask(__name__, root_path=str(tmp_path))

    def guard(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("403 Forbidden", [("Content-Length", "0")])
        return []

    guard.app = app  # type: ignore[attr-defined]
    for wrapped, static, status in ((guard, "auto", 403), (guard, "on", 200), (ProxyFix(app), "auto", 200)):
        with in_thread(wrapped, static=static) as served:
            assert get(served.address, "/static/file.txt").status == status
