"""The app that every server runs, and the same app without any server.

Plain Flask, as small as each row of the comparison allows, so that what differs between two servers is the servers. As a script,
``python apps.py PATH SECONDS``, it calls the app in a loop in one thread and prints what that took, as JSON: the most that any WSGI
server can reach in one process.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from jinja2 import DictLoader

PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{{ title }}</title></head>
<body>
<h1>{{ title }}</h1>
<p>{{ items | length }} items, {{ items | selectattr("stock") | list | length }} of them in stock.</p>
<table>
{%- for item in items %}
<tr class="{{ loop.cycle('odd', 'even') }}"><td>{{ loop.index }}</td><td><a href="/items/{{ item.id }}">{{ item.name }}</a></td>
<td>{{ "%.2f" | format(item.price) }}</td><td>{% if item.stock %}{{ item.stock }}{% else %}sold out{% endif %}</td></tr>
{%- endfor %}
</table>
</body>
</html>
"""
"""Rendered with ITEMS: about 5 kB."""

ITEMS = [
    {"id": number, "name": f"Item <{number}> & friends", "price": number * 1.25, "stock": number % 7}
    for number in range(1, 41)
]

BODIES = {size: b"x" * size for size in (100_000, 1_000_000, 10_000_000)}
UPLOAD_BLOCK = 64 * 1024

app = Flask(__name__)
app.jinja_loader = DictLoader({"page.html": PAGE})
# `flask run` writes a line for each request and has no option against it.
logging.getLogger("werkzeug").setLevel(logging.ERROR)


@app.get("/")
def hello() -> str:
    return "Hello, World!"


@app.get("/json")
def json_page() -> ResponseReturnValue:
    return jsonify(message="Hello, World!", numbers=[1, 2, 3], nested={"true": True, "null": None})


@app.get("/template")
def template() -> str:
    return render_template("page.html", title="Items", items=ITEMS)


@app.get("/sleep/<int:milliseconds>")
def sleep(milliseconds: int) -> str:
    time.sleep(milliseconds / 1000)
    return "slept"


@app.get("/body/<int:size>")
def body(size: int) -> Response:
    return Response(BODIES[size], mimetype="application/octet-stream")


@app.post("/upload/<int:size>")
def upload(size: int) -> str:
    """Read a body, and answer 400 unless it is *size* bytes long: an incomplete one must not pass for a fast one."""
    received = 0
    while block := request.stream.read(UPLOAD_BLOCK):
        received += len(block)
    if received != size:
        abort(400)
    return "received"


def call(path: str) -> Callable[[], None]:
    """A function that calls the app for GET *path* as a server does, with an environment of its own, to the response's end."""
    template: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }

    def start_response(
        status: str, fields: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], object]:
        assert status.startswith("200 "), status
        return BytesIO().write

    def once() -> None:
        chunks = app.wsgi_app({**template, "wsgi.input": BytesIO()}, start_response)
        try:
            for _ in chunks:
                pass
        finally:
            chunks.close()  # type: ignore[attr-defined]  # what Flask returns has it; PEP 3333 leaves it open

    return once


def main(path: str, seconds: float) -> None:
    once = call(path)
    for _ in range(100):
        once()
    durations: list[float] = []
    cpu = time.process_time()
    began = before = time.perf_counter()
    while before - began < seconds:
        once()
        now = time.perf_counter()
        durations.append(now - before)
        before = now
    result = {
        "requests": len(durations),
        "seconds": before - began,
        "errors": 0,
        "cpu": time.process_time() - cpu,
        "p50": sorted(durations)[len(durations) // 2],
        "p99": sorted(durations)[len(durations) * 99 // 100],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
