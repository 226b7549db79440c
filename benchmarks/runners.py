"""Servers whose settings cannot be given on a command line: ``python runners.py cheroot|uvicorn|nginx PORT THREADS``.

The modules are imported by name because a peer may be missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from files import FOLDER
from peers import KEEPALIVE_SECONDS, MAX_CONNECTIONS


def cheroot(port: int, threads: int) -> None:
    server = import_module("cheroot.wsgi").Server(
        ("127.0.0.1", port),
        import_module("apps").app,
        numthreads=threads,
        request_queue_size=2048,
        timeout=KEEPALIVE_SECONDS,
    )
    server.keep_alive_conn_limit = MAX_CONNECTIONS  # 10 by default
    server.safe_start()


def uvicorn(port: int, threads: int) -> None:
    """What ``uvicorn --interface wsgi`` builds, with another number of threads."""
    middleware = import_module("uvicorn.middleware.wsgi").WSGIMiddleware(import_module("apps").app, workers=threads)
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


NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_timeout {keepalive}; keepalive_requests 1000;
    types {{ text/css css; image/jpeg jpg; }}
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location = / {{ return 200 "Hello, World!"; }}
        location /static/ {{ alias {files}/; }}
    }}
}}
"""


def nginx(port: int, threads: int) -> None:
    """One process that serves, as all others have; it has no use for threads. The files have to be readable for its account."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    text = NGINX.format(port=port, connections=MAX_CONNECTIONS, keepalive=KEEPALIVE_SECONDS, files=FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nginx.conf").write_text(text)
        account = ["-g", "user root;"] if os.geteuid() == 0 else []
        subprocess.run([program, "-p", folder, "-c", "nginx.conf", *account])  # noqa: S603  # until it is stopped, with its group


if __name__ == "__main__":
    {"cheroot": cheroot, "uvicorn": uvicorn, "nginx": nginx}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
