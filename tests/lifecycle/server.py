"""A supervised server: ``flask serve`` with workers, an app that is deployed anew while it runs, and what /proc says of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from load import Load

from serving import Command, run, wait_until

APP = """
import os
import time

from flask import Flask, request

app = Flask(__name__)


def answer(number):
    request.get_data()
    return f"{number} {os.getpid()} {VERSION}"


@app.get("/echo/<number>")
def echo(number):
    return answer(number)


@app.post("/slow/<number>")
def slow(number):
    time.sleep(0.4)
    return answer(number)


@app.get("/held")
def held():
    time.sleep(1000)
"""

supervised = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through Linux's /proc")


@dataclass
class Server:
    """A server that runs. *command* is its supervisor."""

    command: Command
    folder: Path

    @property
    def pid(self) -> int:
        return self.command.process.pid

    @property
    def workers(self) -> set[int]:
        """Its children, also those that are about to start or to end."""
        return children(self.pid)

    def load(self, *, tls: ssl.SSLContext | None = None, **counts: int) -> Load:
        return Load(self.command.address, tls=tls, **counts)

    def signal(self, number: int) -> None:
        self.command.signal(number)

    def deploy(self, version: str, more: str = "") -> None:
        deploy(self.folder, version, more)

    @contextlib.contextmanager
    def under_load(self, *, tls: ssl.SSLContext | None = None, **counts: int) -> Iterator[Load]:
        """A load that all workers have answered, and that has had no problem when the block ends."""
        with self.load(tls=tls, **counts) as load:
            load.wait_for_processes(len(self.workers))
            yield load
            problems = load.result().problems
            assert not problems, problems

    def wait_for_workers(self, count: int) -> None:
        """Until there are so many processes of workers, no more and no fewer."""
        wait_until(lambda: len(self.workers) == count or self.command.process.poll() is not None, f"{count} workers")
        assert self.command.process.poll() is None, "the server has ended"

    def wait_renewed(self, load: Load, old: set[int]) -> None:
        """Until all clients of *load* have been answered by new processes, and the *old* ones are gone."""
        load.wait_until_all(lambda answer: answer.pid not in old, "answers of new workers")
        wait_until(lambda: not self.workers & old, f"the old workers {old} to end")


def deploy(folder: Path, version: str, more: str = "") -> None:
    """Put *version* of the app in place, with *more* code at its end."""
    fresh = folder / "app.py.new"
    fresh.write_text(f"VERSION = {version!r}\n{APP}\n{more}")
    fresh.replace(folder / "app.py")  # whoever imports it sees the old one or the new one


@contextlib.contextmanager
def serving(
    folder: Path,
    *options: str,
    workers: int = 2,
    more: str = "",
    prefix: tuple[str, ...] = (),
    python: str = sys.executable,
    **variables: str,
) -> Iterator[Server]:
    """Serve version 1 of the app with *more* code, on a port of its own unless *options* say where, without an access log unless they
    name one. *prefix* is a command that runs it, *python* the interpreter.
    """
    if not (folder / "app.py").exists():
        deploy(folder, "1", more)
    arguments = [*prefix, python, "-m", "flask", "serve", "--workers", str(workers), *options]
    if not {"--port", "--bind"} & set(options) and "PRODSERVE_PORT" not in more:
        arguments += ["--port", "0"]
    if "--access-log" not in options:
        arguments += ["--access-log", "off"]
    # Python trusts a cached module whose source has the same size and was written in the same second.
    with run(arguments, cwd=folder, env={"PYTHONDONTWRITEBYTECODE": "1", **variables}) as command:
        try:
            yield Server(command, folder)
        except BaseException:
            print(command.output)  # which pytest shows
            raise
        finally:
            if command.process.poll() is None:  # a test that has failed, or is not about the end
                workers = children(command.process.pid)
                for pid in (command.process.pid, *workers):
                    kill(pid)


def children(pid: int) -> set[int]:
    """The processes whose parent *pid* is, without those that have ended and were not reaped yet."""
    return {child for child, (parent, state) in _processes().items() if parent == pid and state not in "ZX"}


def zombies(pid: int) -> set[int]:
    """The children of *pid* that have ended, and that it has not reaped."""
    return {child for child, (parent, state) in _processes().items() if parent == pid and state in "ZX"}


def is_alive(pid: int) -> bool:
    _, state = _processes().get(pid, (0, "X"))
    return state not in "ZX"


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): pid (comm) state ppid ...; comm may hold blanks and parentheses.
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            found[int(entry.parent.name)] = (int(parent), state)
    return found
