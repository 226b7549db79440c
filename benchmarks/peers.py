"""Who is compared: this server and its peers, each with the command that serves ``apps:app`` from one process.

Rules: the same number of threads wherever a server has that setting; access logs off; keep-alive for 100 seconds and room for 3000
connections wherever it can be set, since these are this server's time and what the row with idle connections needs. Everything else
is as ``pip install`` gives it. A peer that is not installed is said to be missing; nothing is installed from here.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field

OURS = "flask-prodserve"
MAX_CONNECTIONS = 3000
KEEPALIVE_SECONDS = 100


@dataclass(frozen=True, slots=True)
class Peer:
    """A server. In *arguments* stand ``{python}``, ``{scripts}``, ``{port}`` and ``{threads}`` for what they say.

    *distribution* is what PyPI calls it, or Debian where it is a *program* of its own; *note* what a reader of the numbers must know;
    *by_default*: it is compared unless somebody says who is; *static*: in rows of static files alone, or (False) in all others, or in both;
    *tls*: what is added where it is to speak TLS, with the files of ``files``; not compared there without.
    """

    name: str
    distribution: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    by_default: bool = True
    static: bool | None = False
    program: str = ""
    tls: tuple[str, ...] = ()

    def version(self) -> str | None:
        """The installed version, or None where it is missing."""
        if self.program:
            found = shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin")
            # nginx says it on standard error: "nginx version: nginx/1.22.1".
            said = found and subprocess.run([found, "-v"], capture_output=True, text=True).stderr  # noqa: S603  # a program by name
            return said.rpartition("/")[2].strip() if said else None
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def command(self, port: int, threads: int, *, tls: bool = False) -> list[str]:
        """What to run to have the app on 127.0.0.1:*port*."""
        scripts = sysconfig.get_path("scripts")
        return [
            argument.format(python=sys.executable, scripts=scripts, prefix=sys.prefix, port=port, threads=threads)
            for argument in (*self.arguments, *(self.tls if tls else ()))
        ]


def _ours(workers: int) -> tuple[str, ...]:
    return (
        *("{python}", "-m", "flask", "--app", "apps", "serve", "--host", "127.0.0.1", "--port", "{port}"),
        *("--workers", str(workers), "--threads", "{threads}", "--access-log", "off", "--control-socket", "off"),
    )


def _gunicorn(worker: str, *more: str, app: str = "apps:app") -> tuple[str, ...]:
    return (
        *("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "1", "--worker-class", worker),
        *("--log-level", "warning", "--no-control-socket", *more, app),
    )


def _granian(workers: int, *more: str) -> tuple[str, ...]:
    return (
        *("{python}", "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", "{port}", "--http", "1"),
        *("--workers", str(workers), "--blocking-threads", "{threads}", "--no-ws", "--no-access-log"),
        *("--backlog", str(MAX_CONNECTIONS), "--log-level", "warning", *more, "apps:app"),
    )


_UWSGI = (
    *("{scripts}/uwsgi", "--http-socket", "127.0.0.1:{port}", "--threads", "{threads}", "--module", "apps:app"),
    *("--virtualenv", "{prefix}", "--need-app", "--single-interpreter", "--die-on-term", "--disable-logging"),
    # It closes after each response without saying so, which clients count as an error unless it is said.
    *("--listen", "1024", "--add-header", "Connection: close"),
)


_OUR_TLS = ("--tls-cert", "tls/cert.pem", "--tls-key", "tls/key.pem")
_GUNICORN_TLS = ("--certfile", "tls/cert.pem", "--keyfile", "tls/key.pem")
_GRANIAN_TLS = ("--ssl-certificate", "tls/cert.pem", "--ssl-keyfile", "tls/key.pem")

PEERS = (
    Peer(
        OURS,
        "flask-prodserve",
        _ours(1),
        {"PRODSERVE_MAX_CONNECTIONS": str(MAX_CONNECTIONS)},
        note="two processes, of which one supervises: its memory counts",
        static=None,
        tls=_OUR_TLS,
    ),
    Peer(
        f"{OURS}-2",
        "flask-prodserve",
        _ours(2),
        {"PRODSERVE_MAX_CONNECTIONS": str(MAX_CONNECTIONS)},
        note="with two workers, to see what a second one is good for; only where it is asked for",
        by_default=False,
        static=None,
        tls=_OUR_TLS,
    ),
    Peer(
        "waitress",
        "waitress",
        (
            *("{python}", "-m", "waitress", "--listen=127.0.0.1:{port}", "--threads={threads}"),
            *(f"--connection-limit={MAX_CONNECTIONS}", f"--channel-timeout={KEEPALIVE_SECONDS}", "--asyncore-use-poll"),
            "apps:app",
        ),
        note="with poll(): by default it uses select(), which ends at descriptor 1024",
    ),
    Peer(
        "gunicorn-gthread",
        "gunicorn",
        _gunicorn(
            *("gthread", "--threads", "{threads}", "--keep-alive", str(KEEPALIVE_SECONDS)),
            *("--worker-connections", str(MAX_CONNECTIONS)),
        ),
        note="two processes, of which one supervises: its memory counts",
        tls=_GUNICORN_TLS,
    ),
    Peer(
        "gunicorn-sync",
        "gunicorn",
        _gunicorn("sync"),
        note="one request at a time, no keep-alive; two processes, of which one supervises: its memory counts",
    ),
    Peer(
        "uwsgi",
        "uwsgi",
        _UWSGI,
        note="--http-socket has no keep-alive",
    ),
    Peer(
        "granian",
        "granian",
        _granian(1),
        note="its I/O runs outside the GIL in a thread of its own; two processes, of which one supervises: its memory counts",
        tls=_GRANIAN_TLS,
    ),
    Peer(
        "granian-2",
        "granian",
        _granian(2),
        note="with two workers; only where it is asked for",
        by_default=False,
        tls=_GRANIAN_TLS,
    ),
    Peer("cheroot", "cheroot", ("{python}", "runners.py", "cheroot", "{port}", "{threads}")),
    Peer(
        "uvicorn-wsgi",
        "uvicorn",
        ("{python}", "runners.py", "uvicorn", "{port}", "{threads}"),
        note="--interface wsgi has 10 threads and no option for them; here it has as many as the others",
    ),
    Peer(
        "flask-run",
        "flask",
        (
            *("{python}", "-m", "flask", "--app", "apps", "run", "--host", "127.0.0.1", "--port", "{port}"),
            *("--no-reload", "--no-debugger", "--with-threads"),
        ),
        note="the development server: a thread for each connection, without bound; no keep-alive",
        static=None,
    ),
    Peer(
        "nginx",
        "nginx",
        ("{python}", "runners.py", "nginx", "{port}", "{threads}"),
        note="sends the files itself, without any Python; two processes, of which one supervises: its memory counts",
        static=True,
        program="nginx",
    ),
    Peer(
        "gunicorn-whitenoise",
        "gunicorn",
        _gunicorn(
            *("gthread", "--threads", "{threads}", "--keep-alive", str(KEEPALIVE_SECONDS)),
            *("--worker-connections", str(MAX_CONNECTIONS)),
            app="with_whitenoise:application",
        ),
        note="gthread, and WhiteNoise around the app",
        static=True,
    ),
    Peer(
        "granian-static",
        "granian",
        _granian(1, "--static-path-mount", "static"),
        note="--static-path-mount: sends the files without Python",
        static=True,
    ),
    Peer(
        "uwsgi-static",
        "uwsgi",
        (*_UWSGI, "--static-map", "/static=static"),
        note="--static-map: sends the files without Python; --http-socket has no keep-alive",
        static=True,
    ),
)
