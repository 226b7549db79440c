"""Processes that the app forks: a worker that dies, is stopped or replaced must not be held up by them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
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
                server.command.url  # noqa: B018  # waits until it serves
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
def test_worker_with_a_forked_child(tmp_path: Path, kind: str, end: Callable[[Server], None]) -> None:
    """A process that the app has forked keeps a worker neither from being stopped nor from being replaced."""
    with forking(tmp_path, app=FORKED[kind]) as server:
        assert get(server.command.address, "/fork").status == 200
        assert all(map(is_alive, pids(tmp_path)))
        end(server)


HOLDING = """
import ctypes


def hold():
    # Past Python: nothing is closed in this child.
    library = ctypes.PyDLL(None)
    pid = library.fork()
    if not pid:
        library.pause()
    note(pid)


@app.get("/fork")
def forked():
    hold()
    return "forked"
"""
"""An app that forks what keeps everything of its process open."""


@pytest.mark.parametrize("end", [stop, kill_the_worker])
def test_link_that_stays_open(tmp_path: Path, end: Callable[[Server], None]) -> None:
    """A worker is known to be dead though another process holds its end of the link, which nobody can close."""
    with forking(tmp_path, "--graceful-timeout", "1s", app=HOLDING) as server:
        assert get(server.command.address, "/fork").status == 200
        end(server)


def test_killed_supervisor_whose_links_stay_open(tmp_path: Path) -> None:
    """A worker ends after its supervisor though another process holds the supervisor's end of the link."""
    wait = """
def hold_when_told():
    while not os.path.exists("hold"):
        time.sleep(0.01)
    hold()


threading.Thread(target=hold_when_told, daemon=True).start()
"""
    with forking(tmp_path, "--preload", "--graceful-timeout", "1s", app=HOLDING + wait) as server:
        assert get(server.command.address, "/echo/1").status == 200
        workers = server.workers
        (tmp_path / "hold").touch()
        wait_until(lambda: pids(tmp_path), "the process that holds the links")
        kill(server.pid)
        wait_until(lambda: not any(map(is_alive, workers)), "the workers to end")


def sockets(pid: int) -> list[str]:
    """The sockets that the process *pid* has open."""
    found = []
    for entry in Path("/proc", str(pid), "fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(entry))
    return [name for name in found if name.startswith("socket:")]


def test_preload(tmp_path: Path) -> None:
    """With PRELOAD, a daemon process that is started at import belongs to the supervisor: it survives workers, and ends at an upgrade
    and with the server. It never has a socket of the server.
    """
    with forking(tmp_path, "--preload", app=FORKED["daemon process at import"]) as server:
        assert get(server.command.address, "/echo/1").status == 200
        [old] = server.workers - set(pids(tmp_path))
        os.kill(old, signal.SIGTERM)
        wait_until(lambda: not is_alive(old), "the worker to end")
        [first] = pids(tmp_path)
        assert is_alive(first)
        wait_until(lambda: not sockets(first), "it to close what it inherited")
        server.signal(signal.SIGUSR2)
        server.command.wait_for("reloaded: ")
        wait_until(lambda: not is_alive(first), "the process of the old supervisor to end")
        last = pids(tmp_path)[-1]
        assert is_alive(last)
        wait_until(lambda: not sockets(last), "it to close what it inherited")
        assert get(server.command.address, "/echo/1").status == 200
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        wait_until(lambda: not is_alive(last), "the process of the new supervisor to end")


def test_programs_after_an_upgrade(tmp_path: Path) -> None:
    """After an upgrade, a program that is started with close_fds=False inherits no socket of the server."""
    app = """
import subprocess


@app.get("/program")
def program():
    return subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout
"""
    with forking(tmp_path, app=app) as server:
        old = server.workers
        server.signal(signal.SIGUSR2)
        wait_until(lambda: server.workers and not server.workers & old, "the old worker to end")
        server.command.wait_for("reloaded: ")
        assert b"socket:" not in get(server.command.address, "/program").body


@pytest.mark.parametrize("workers", [0, 1])
def test_child_that_exits(tmp_path: Path, workers: int) -> None:
    """A child that calls sys.exit() in a hook, or comes back out of it, removes neither PIDFILE nor the Unix socket, and serves nothing."""
    app = """
from flask_prodserve import ProdServe

prodserve = ProdServe(app)


@prodserve.worker_started
def exits(app):
    for how in range(2):
        pid = os.fork()
        if not pid:
            if how:
                sys.exit(5)
            return
        print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
    options = ("--bind", f"unix:{tmp_path}/socket", "--pidfile", f"{tmp_path}/pidfile")
    with serving(tmp_path, *options, workers=workers, more=NOTED + app) as server:
        address = server.command.address
        server.command.wait_for("child ended with 0\n")
        server.command.wait_for("child ended with 5\n")  # another process may log in between
        assert (tmp_path / "pidfile").read_text() == f"{server.pid}\n"
        assert get(address, "/echo/1").status == 200
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        assert not (tmp_path / "pidfile").exists()
        assert not (tmp_path / "socket").exists()
