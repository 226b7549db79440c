"""The supervisor as a parent: of workers that do not outlive it, and, as process 1, of strangers."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import Load
from server import Server, children, is_alive, kill, serving, supervised, zombies

from serving import wait_until
from wire import get

pytestmark = supervised

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

STRANGER = """
import subprocess


@app.get("/stranger")
def stranger():
    # Its parent ends at once, as that of a daemon does.
    subprocess.run(["sh", "-c", "(until [ -e release ]; do sleep 0.02; done) &"], stdout=subprocess.DEVNULL)
    return "born"
"""


def test_killed_supervisor(tmp_path: Path) -> None:
    """If the supervisor is killed, no worker stays behind, not even one that is loading the app."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.load() as load:
            load.wait_for_processes(2)
        server.deploy("2", "import pathlib; pathlib.Path('loading').touch()\ntime.sleep(1000)")
        server.signal(signal.SIGHUP)
        wait_until((tmp_path / "loading").exists, "a third worker to load the app")
        workers = server.workers
        assert len(workers) == 3
        kill(server.pid)
        wait_until(lambda: not any(map(is_alive, workers)), "the workers to end")


def test_killed_supervisor_lets_requests_finish(tmp_path: Path) -> None:
    """If the supervisor is killed, its workers still answer what they have accepted."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            workers = server.workers
            load.expect_end()
            kill(server.pid)
            load.wait_ended()
        wait_until(lambda: not any(map(is_alive, workers)), "the workers to end")


@contextlib.contextmanager
def _as_process_1(folder: Path, more: str = "") -> Iterator[tuple[Server, int]]:
    """The server as process 1 of a namespace, and its id outside."""
    trial = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    if trial.returncode:
        pytest.skip(f"this system does not let us make a PID namespace: {trial.stderr.decode().strip()}")
    with serving(folder, prefix=UNSHARE, more=more) as server:
        assert server.command.url
        (init,) = children(server.pid)
        wait_until(lambda: len(children(init)) == 2, "two workers")
        yield server, init


def test_process_1_reaps_strangers(tmp_path: Path) -> None:
    """As process 1 it serves, reaps processes that others have left to it, and does not take them for workers."""
    with _as_process_1(tmp_path, STRANGER) as (server, init):
        workers = children(init)
        assert get(server.command.address, "/stranger").body == b"born"
        wait_until(lambda: len(children(init)) == 3, "the stranger to become its child")
        (tmp_path / "release").touch()
        wait_until(lambda: children(init) == workers and not zombies(init), "the stranger to be reaped")
        with server.load() as load:
            load.wait_for(50)
            assert load.result().problems == []
        assert children(init) == workers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_stops(tmp_path: Path, number: signal.Signals) -> None:
    """As process 1 it stops on SIGTERM and SIGINT under load, answers what it has accepted, and exits 0."""
    with _as_process_1(tmp_path) as (server, init), Load(server.command.address) as load:
        load.wait_for_processes(2)
        load.expect_end()
        subprocess.run(["kill", f"-{number.name.removeprefix('SIG')}", str(init)], check=True)
        assert server.command.exit_code() == 0
        load.wait_ended()
        assert load.result().problems == []


def test_process_1_reloads(tmp_path: Path) -> None:
    """As process 1 it reloads and upgrades under load as anywhere else."""
    with _as_process_1(tmp_path) as (server, init), Load(server.command.address) as load:
        load.wait_for_processes(2)
        for version, number in (("2", "HUP"), ("3", "USR2")):
            server.deploy(version)
            subprocess.run(["kill", f"-{number}", str(init)], check=True)
            load.wait_until_all(lambda answer, version=version: answer.version == version, f"version {version}")
            wait_until(lambda: len(children(init)) == 2 and not zombies(init), "the old workers to be reaped")
        assert load.result().problems == []
