"""The app behind the proxies. It remembers every request that reaches it, and who sent that, in ``seen``."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, redirect, request, url_for

from flask_prodserve.settings.groups.network import FORWARDED_FIELDS
from serving import PATIENCE

BLOCK = bytes(range(256)) * 256
LARGE = 20 * len(BLOCK) * 16
"""Bytes of a large body: 20 MiB."""


def large() -> Iterator[bytes]:
    """A large body, block by block."""
    for _ in range(LARGE // len(BLOCK)):
        yield BLOCK


@dataclass
class Behind:
    """What the tests and the views know of one another."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Client, host and path of every request."""
    next_event: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Event = field(default_factory=threading.Event)


def make_app(behind: Behind) -> Flask:
    app = Flask("behind")

    @app.before_request
    def remember() -> None:
        behind.seen.append((request.remote_addr or "", request.host, request.path))

    @app.after_request
    def say(response: Response) -> Response:
        response.headers["Answer-To"] = request.path
        return response

    @app.get("/who")
    def who() -> Any:
        return jsonify(
            client=request.remote_addr,
            url=request.url,
            link=url_for("who", _external=True),
            forwarded=[name for name, _ in request.headers if name.lower() in FORWARDED_FIELDS],
        )

    @app.get("/fields")
    def fields() -> Any:
        return jsonify(dict(request.headers))

    @app.get("/elsewhere")
    def elsewhere() -> Any:
        return redirect(url_for("who"))

    @app.route("/named/<path:name>", methods=["GET", "POST", "PUT"])
    def named(name: str) -> str:
        return f"named {name}"

    @app.post("/upload")
    @app.post("/collected", endpoint="collected")
    def upload() -> Any:
        body = request.get_data()
        return jsonify(size=len(body), digest=hashlib.sha256(body).hexdigest())

    @app.get("/large")
    def known_size() -> Response:
        return Response(large(), headers={"Content-Length": str(LARGE)}, mimetype="application/octet-stream")

    @app.get("/streamed")
    def unknown_size() -> Response:
        return Response(large(), mimetype="application/octet-stream")

    @app.get("/events")
    def events() -> Response:
        def made() -> Iterator[str]:
            for number in range(3):
                assert behind.next_event.acquire(timeout=PATIENCE)
                yield f"data: {number}\n\n"

        # nginx collects a response unless it says this.
        return Response(made(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @app.get("/endless")
    def endless() -> Response:
        disconnected = request.environ["waitress.client_disconnected"]

        def made() -> Iterator[str]:
            pause = threading.Event()
            while not disconnected():
                yield "more\n"
                pause.wait(0.01)
            behind.left.set()

        return Response(made(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @app.get("/text")
    def text() -> Response:
        response = Response("a text to be compressed\n" * 1000, mimetype="text/html")
        response.set_etag("1")
        return response.make_conditional(request)

    @app.get("/status/<int:code>")
    def status(code: int) -> tuple[str, int]:
        return f"the app's own {code}", code

    return app
