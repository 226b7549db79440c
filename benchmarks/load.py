"""The rows of the comparison, and the load of each: what is asked for, by how many connections, and how it is measured.

wrk is the client, closed-loop: a connection sends its next request when it has the response. Latencies are wrk's, from the first byte
written to the last byte read, without the time to connect. Where a connection stalls, wrk adds the requests that it would have sent
meanwhile (its correction for "coordinated omission"). It is nice: where a server keeps all processors busy, the client waits for one,
and does not take one away at each response. An error is a status above 399, a connection that failed or ended early, or a response
that took longer than TIMEOUT_SECONDS.

The mix of fast and slow requests: ``mix.lua`` runs one wrk thread for each connection and times both kinds by itself, since wrk cannot
tell them apart. Its percentiles are those of the fast requests, uncorrected. That the slow ones are one in ten is counted per
connection, so it holds for every server, however long its slow requests take; two wrks side by side would not give that.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from processes import HERE, Server

TIMEOUT_SECONDS = 10
IDLE_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """*connections* ask for *path*, with a body of *upload* bytes.

    *slow_path*: one request in SLOW_EVERY goes there. *close*: a new connection for each request. *idle* keep-alive connections are open
    meanwhile. *bare*: the app is also called without any server. *static*: it is a static file, which some servers send by themselves.
    *tls*: over TLS. *chart*: belongs in the chart.
    """

    name: str
    title: str
    connections: int
    path: str = "/"
    upload: int = 0
    slow_path: str | None = None
    close: bool = False
    idle: int = 0
    bare: bool = False
    static: bool = False
    tls: bool = False
    chart: bool = False


SLOW_EVERY = 10

ROWS = (
    *(
        Row(f"hello-{n}", f'"Hello, World!", {n} connection{"s" * (n > 1)}', n, bare=True, chart=n == 64)
        for n in (1, 8, 64, 256)
    ),
    Row("json-64", "JSON, 64 connections", 64, "/json", bare=True, chart=True),
    Row("template-32", "Jinja template of 5 kB, 32 connections", 32, "/template", bare=True, chart=True),
    *(
        Row(f"sleep{ms}-{n}", f"Sleep of {ms} ms, {n} connections", n, f"/sleep/{ms}", chart=True)
        for ms in (10, 100)
        for n in (32, 128)
    ),
    Row("mix-32", "90% fast (timed here) and 10% sleep of 100 ms, 32 connections", 32, slow_path="/sleep/100"),
    Row("body-100k", "Response of 100 kB, 8 connections", 8, "/body/100000"),
    Row("body-1m", "Response of 1 MB, 8 connections", 8, "/body/1000000"),
    Row("body-10m", "Response of 10 MB, 4 connections", 4, "/body/10000000"),
    Row("static-10k", "Static file of 10 kB, 32 connections", 32, "/static/10k.css", static=True),
    Row("static-1m", "Static file of 1 MB, 8 connections", 8, "/static/1m.jpg", static=True),
    Row("tls-hello-64", '"Hello, World!" over TLS, 64 connections', 64, tls=True),
    Row("tls-body-100k", "Response of 100 kB over TLS, 8 connections", 8, "/body/100000", tls=True),
    Row("tls-body-1m", "Response of 1 MB over TLS, 8 connections", 8, "/body/1000000", tls=True),
    Row("upload-100k", "Upload of 100 kB, 8 connections", 8, "/upload/100000", upload=100_000),
    Row("upload-10m", "Upload of 10 MB, 4 connections", 4, "/upload/10000000", upload=10_000_000),
    Row("close-32", "New connection for each request, 32 at a time", 32, close=True),
    Row("idle-2000", "8 connections beside 2000 idle ones", 8, idle=2000),
)


class LoadFailed(Exception):
    """The client could not do its work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one server. Times in seconds, None where there was nothing to time; *extra* what only this row has.

    *requests* are those that were answered with success. *cpu* is the server's CPU time and *client_cpu* that of wrk; *memory* is bytes
    after the round.
    """

    requests: int
    seconds: float
    errors: int
    p50: float | None
    p99: float | None
    cpu: float
    client_cpu: float | None
    memory: int | None
    extra: dict[str, float | None] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def warm_up(row: Row, server: Server) -> None:
    _wrk(row, server, 1)
    server.settle()


def measure(row: Row, server: Server, seconds: int, *, first: bool) -> Sample:
    """One round. *first*: of this process, which has never had the row's idle connections."""
    with contextlib.ExitStack() as idle:
        extra = _hold_idle(idle, row.idle, server, first=first) if row.idle else {}
        cpu, client_cpu = server.cpu_seconds(), _client_cpu()
        result = _wrk(row, server, seconds)
        cpu, client_cpu = server.cpu_seconds() - cpu, _client_cpu() - client_cpu
        memory = server.memory()
    server.settle()
    extra |= {key: result[key] for key in ("slow_p50", "slow_p99") if key in result}
    return Sample(**_figures(result), cpu=cpu, client_cpu=client_cpu, memory=memory, extra=extra)


def measure_bare(row: Row, seconds: int) -> Sample:
    """The app without a server, in one thread of one process."""
    result = _run([sys.executable, "apps.py", row.path, str(seconds)], seconds)
    return Sample(**_figures(result), cpu=result["cpu"], client_cpu=None, memory=None)


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    """What every load generator says."""
    return {key: result[key] for key in ("requests", "seconds", "errors", "p50", "p99")}


def _client_cpu() -> float:
    """CPU time of the children that have ended: while the servers run, these are the load generators."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _wrk(row: Row, server: Server, seconds: int) -> dict[str, Any]:
    threads = row.connections if row.slow_path else 1
    command = ["nice", "-n10", "wrk", f"-t{threads}", f"-c{row.connections}", f"-d{seconds}s"]
    command += [f"--timeout={TIMEOUT_SECONDS}s"]
    if row.close:
        command += ["-H", "Connection: close"]
    if row.slow_path:
        command += ["-s", "mix.lua", server.url("/"), "--", row.path, row.slow_path, str(SLOW_EVERY)]
    else:
        command += ["-s", "load.lua", server.url(row.path), "--", str(row.upload)]
    return _run(command, seconds)


def _run(command: list[str], seconds: int) -> dict[str, Any]:
    """Run a load generator that ends within *seconds* and some, and whose last line is JSON. It is killed on any exception."""
    try:
        done = subprocess.run(  # noqa: S603  # the commands are those above
            command, cwd=HERE, capture_output=True, text=True, timeout=seconds + 60, check=True
        )
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise LoadFailed(f"{' '.join(command)}: {error}") from error
    return result


def _hold_idle(stack: contextlib.ExitStack, count: int, server: Server, *, first: bool) -> dict[str, float | None]:
    """Open *count* connections, each of which has had a response and stays open until *stack* closes it.

    ``idle_held`` is how many the server has kept. ``idle_bytes`` is by how much its memory has grown for each of them. Only the first
    round can tell: later, memory that was freed is used again.
    """
    before = server.memory()
    held: list[socket.socket] = []
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=IDLE_CONNECT_SECONDS)
        stack.callback(connection.close)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            break  # takes no more of them
        if connection.sock is not None:
            held.append(connection.sock)
    kept = sum(map(_is_open, held))
    grown = (server.memory() - before) / kept if first and kept else None
    return {"idle_held": float(kept), "idle_bytes": grown}


def _is_open(sock: socket.socket) -> bool:
    """Whether the other side has left the connection open. It has nothing to say on it."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
