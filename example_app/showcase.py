"""Pages to watch the server with: a stream of events, a slow page, a broken one, and what the app sees of a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue

blueprint = Blueprint("showcase", __name__)

LONGEST_SLEEP = 30.0


@blueprint.get("/clock")
def clock() -> ResponseReturnValue:
    return render_template("clock.html")


@blueprint.get("/clock/stream")
def clock_stream() -> ResponseReturnValue:
    """Server-sent events, one a second; ``count`` bounds them, else they go on until the client leaves."""
    count = request.args.get("count", type=int)

    def events() -> Iterator[str]:
        sent = 0
        while count is None or sent < count:
            if sent:
                time.sleep(1)
            sent += 1
            yield f"id: {sent}\ndata: {datetime.now(timezone.utc):%H:%M:%S} UTC\n\n"

    # nginx collects a response unless it says that it may not.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(events(), mimetype="text/event-stream", headers=headers)


@blueprint.get("/slow")
def slow() -> ResponseReturnValue:
    """Deliberately slow: others must not notice."""
    seconds = min(max(request.args.get("seconds", 2.0, type=float), 0.0), LONGEST_SLEEP)
    began = time.perf_counter()
    time.sleep(seconds)
    return render_template("slow.html", seconds=time.perf_counter() - began)


@blueprint.get("/broken")
def broken() -> ResponseReturnValue:
    raise RuntimeError("This page is broken on purpose: see the log.")


@blueprint.get("/whoami")
def whoami() -> ResponseReturnValue:
    facts = {
        "Your address": request.remote_addr or "none (a Unix socket)",
        "Scheme": request.scheme,
        "Host": request.host,
        "Root URL": request.root_url,
        "Script root": request.script_root or "/",
        "Protocol": request.environ["SERVER_PROTOCOL"],
        "Threads": "many" if request.is_multithread else "one",
    }
    return render_template("whoami.html", facts=facts, headers=request.headers)
