"""A server under test as a process: started, waited for, measured from outside through /proc (Linux), and surely ended.

Each server leads a process group of its own, so that signals reach it together with every process that it has started. The session is the
client's as well: Linux shares processors between sessions first (sched(7), "autogroup"), and to be nice says something within one only.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from peers import Peer

HERE = Path(__file__).parent
PATIENCE_SECONDS = 60.0
"""How long a server may take to start, or to work off what clients that have gone had asked for."""
TERM_SECONDS = 5.0
POLL_SECONDS = 0.02

_CONFIGURING = ("FLASK_", "PRODSERVE_", "GUNICORN_", "GRANIAN_", "UVICORN_", "UWSGI_", "PORT", "WEB_CONCURRENCY")
"""How variables begin that would configure one of the servers beside its command."""


class ServerFailed(Exception):
    """The server did not start, has ended, or answers no more; the text says which, with the end of its output."""


class Server:
    """``with Server(peer, port, threads) as server`` runs *peer* until the block ends, however it ends; with *tls* over TLS."""

    def __init__(self, peer: Peer, port: int, threads: int, *, tls: bool = False) -> None:
        self.peer = peer
        self.port = port
        self._tls = tls
        self._command = peer.command(port, threads, tls=tls)

    def __enter__(self) -> Server:
        with contextlib.ExitStack() as undo:
            self._output = undo.enter_context(tempfile.TemporaryFile())
            try:
                self._process = subprocess.Popen(  # noqa: S603  # the commands are those of peers.py
                    self._command,
                    cwd=HERE,
                    env=_environment() | dict(self.peer.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=os.setpgrp,  # no other thread is there; process_group comes with Python 3.11
                )
            except OSError as error:
                raise ServerFailed(f"{self.peer.name} cannot be run: {error}") from error
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._undo:
            _end_group(self._process)

    def url(self, path: str) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def wait_ready(self) -> None:
        """Until a request is answered. Raises ServerFailed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers(1.0):
            self._check(deadline)
            time.sleep(POLL_SECONDS)

    def settle(self) -> None:
        """Until a new request is answered: requests of clients that have gone may still be queued. Raises ServerFailed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers(PATIENCE_SECONDS):
            self._check(deadline)

    def _check(self, deadline: float) -> None:
        code = self._process.poll()
        if code is not None:
            raise self._failed(f"ended with code {code}")
        if time.monotonic() > deadline:
            raise self._failed(f"did not answer for {PATIENCE_SECONDS:.0f} seconds")

    def _failed(self, what: str) -> ServerFailed:
        self._output.seek(0)
        output = self._output.read().decode(errors="replace")
        return ServerFailed(f"{self.peer.name} {what}. It said:\n{output[-2000:]}")

    def _answers(self, timeout: float) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if self._tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = (
                False,
                ssl.CERT_NONE,
            )  # it is the one that has just been started
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """User and system time that the server's processes have used."""
        return sum(map(_cpu_seconds, _tree(self._process.pid)))

    def memory(self) -> int:
        """Resident bytes of the server's processes; what two of them share counts twice."""
        return sum(map(_resident, _tree(self._process.pid)))


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that nobody uses now. All are held while they are chosen, so that no two are the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_CONFIGURING)}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, then SIGKILL; also to children that have outlived their parent."""
    family = [process.pid, *_tree(process.pid)]
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERM_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == process.pid:  # not a stranger that has got the number since
                    os.kill(pid, signal.SIGKILL)
        process.wait()


def _tree(root: int) -> Iterator[int]:
    """*root* and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): pid (comm) state ppid ...; comm may hold spaces and parentheses.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    unseen = [root]
    while unseen:
        pid = unseen.pop()
        yield pid
        unseen += children.get(pid, [])


def _cpu_seconds(pid: int) -> float:
    """utime + stime of /proc/PID/stat, but in nanoseconds and not in ticks of 10 ms: what clock_getcpuclockid(3) would name."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:  # has ended since it was listed
        return 0.0


def _resident(pid: int) -> int:
    """smaps_rollup is exact; the numbers in stat and statm are approximations since Linux 6.2."""
    try:
        match = re.search(r"^Rss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0
