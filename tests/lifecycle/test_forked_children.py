"""Processes that the app forks: a worker that dies, is stopped or replaced must not be held up by them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, is_alive, kill, serving, supervised

from serving import wait_until
from wire import get

pytestmark = supervised

NOTED = """
import concurrent.futures, multiprocessing, signal, sys, threading

fork = multiprocessing.get_context("fork")


def note(pid):
    with open("pids", "a") as pids:
        pids.write(f"{pid}\\n")


def stay():
    time.sleep(1000)
"""
"""What notes the processes that an app forks in the file ``pids``."""

FORKED = {
    "daemon process from a view": """
@app.get("/fork")
def forked():
    process = fork.Process(target=stay, daemon=True)
    process.start()
    note(process.pid)
    return "forked"
""",
    "daemon process at import": """
process = fork.Process(target=stay, daemon=True)
process.start()
note(process.pid)


@app.get("/fork")
def forked():
    return "forked"
""",
    "executor": """
pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=fork)


@app.get("/fork")
def forked():
    note(pool.submit(os.getpid).result())
    return "forked"
""",
}


def pids(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextlib.contextmanager
def forking(folder: Path, *options: str, app: str, workers: int = 1) -> Iterator[Server]:
    """A server whose app notes what it forks. That ends with the block."""
    try:
        with serving(folder, *options, workers=workers, more=NOTED + app) as server:
            try:
                server.wait_for_workers(workers)
                yield server
            finally:
                for pid in pids(folder):  # they have the output that the server's end is seen by
                    kill(pid)
    finally:
        for pid in pids(folder):
            kill(pid)


def stop(server: Server) -> None:
    server.signal(signal.SIGTERM)
    assert server.command.process.wait(60) == 0


def reload_and_stop(server: Server) -> None:
    old = server.workers
    server.signal(signal.SIGHUP)
    server.command.wait_for("reloaded: ")
    wait_until(lambda: not server.workers & old, "the old worker to end")
    assert get(server.command.address, "/echo/1").status == 200
    stop(server)


def kill_the_worker(server: Server) -> None:
    [worker] = server.workers
    kill(worker)
    server.command.wait_for("was killed by SIGKILL")
    wait_until(lambda: server.workers - {worker}, "another worker")
    with server.load(keeping=1, connecting=1, slow=0) as load:
        load.wait_for(2)
    stop(server)


@pytest.mark.parametrize("end", [stop, reload_and_stop, kill_the_worker])
@pytest.mark.parametrize("kind", FORKED)
def test_worker_with_a_forked_child(tmp_path: Path, kind: str, end: object) -> None:
    """A process that the app has forked keeps a worker neither from being stopped nor from being replaced."""
    with forking(tmp_path, app=FORKED[kind]) as server:
        assert get(server.command.address, "/fork").status == 200
        assert all(map(is_alive, pids(tmp_path)))
        assert callable(end)
        end(server)
