"""Servers whose settings cannot be given on a command line: ``python runners.py cheroot|uvicorn PORT THREADS``.

The modules are imported by name because a peer may be missing.
"""

from __future__ import annotations

import sys
from importlib import import_module

from apps import app
from peers import KEEPALIVE_SECONDS, MAX_CONNECTIONS


def cheroot(port: int, threads: int) -> None:
    server = import_module("cheroot.wsgi").Server(
        ("127.0.0.1", port), app, numthreads=threads, request_queue_size=2048, timeout=KEEPALIVE_SECONDS
    )
    server.keep_alive_conn_limit = MAX_CONNECTIONS  # 10 by default
    server.safe_start()


def uvicorn(port: int, threads: int) -> None:
    """What ``uvicorn --interface wsgi`` builds, with another number of threads."""
    middleware = import_module("uvicorn.middleware.wsgi").WSGIMiddleware(app, workers=threads)
    import_module("uvicorn").run(
        middleware,
        host="127.0.0.1",
        port=port,
        interface="asgi3",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEPALIVE_SECONDS,
    )


if __name__ == "__main__":
    {"cheroot": cheroot, "uvicorn": uvicorn}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
