"""SIGUSR2: the supervisor is replaced in place, by a new interpreter in the same process, with the same listeners."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from server import Server, serving, supervised

from flask_prodserve.units import format_duration
from profiles import sized
from serving import PATIENCE, wait_until

pytestmark = supervised

BOOT_TIMEOUT = format_duration(PATIENCE / 10)
"""Enough to import Flask and all that is needed to serve, also where the machine is busy."""

SITE = """
import os
with open(os.environ["STARTS"], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
"""
"""Imported by every interpreter that starts."""

KILLS_WORKERS = """
import os, pathlib, signal
if "_FLASK_SERVE_HANDOVER" in os.environ:
    workers = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for worker in map(int, workers):
        os.kill(worker, signal.SIGKILL)
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    pathlib.Path("killed").write_text("\\n".join(workers))
"""
"""In the interpreter of the new supervisor: all workers die before it can see them."""

PRELOADED = """
with open("imports", "a") as imports:
    imports.write(f"{os.getpid()}\\n")
"""


def _inheritable(pid: int) -> set[int]:
    """The descriptors of a process that survive exec: those without FD_CLOEXEC, by proc(5)."""
    found = set()
    for entry in Path("/proc", str(pid), "fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            flags = next(line for line in entry.read_text().splitlines() if line.startswith("flags:"))
            if not int(flags.split()[1], 8) & os.O_CLOEXEC:
                found.add(int(entry.name))
    return found


def _listening(server: Server) -> set[str]:
    """The listening sockets of the supervisor, by their inodes."""
    table = Path("/proc", str(server.pid), "net/tcp").read_text().splitlines()[1:]
    listening = {fields[9] for line in table if (fields := line.split())[3] == "0A"}
    descriptors = [os.readlink(entry) for entry in Path("/proc", str(server.pid), "fd").iterdir()]
    return {inode for name in descriptors if (inode := name.removeprefix("socket:[").rstrip("]")) in listening}


def _pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()]


UPGRADES = sized(2, 3, 30)


def test_upgrades(tmp_path: Path) -> None:
    """Upgrades under load start a new interpreter in the same process each, keep the listener, and fail no request."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    starts = tmp_path / "starts"
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with serving(tmp_path, PYTHONPATH=path, STARTS=str(starts)) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            listening = _listening(server)
            assert len(listening) == 1
            for version in map(str, range(2, 2 + UPGRADES)):
                old = server.workers
                server.deploy(version)
                server.signal(signal.SIGUSR2)
                server.wait_renewed(load, old)
                assert {answer.version for answer in load.last.values()} == {version}
                assert _listening(server) == listening
        assert _pids(starts).count(server.pid) == 1 + UPGRADES
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0


def test_upgrade_that_would_fail(tmp_path: Path) -> None:
    """An upgrade to code that cannot be served is not begun: the supervisor and its workers stay, and the log says why."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", "raise RuntimeError('the database is away')")
            server.signal(signal.SIGUSR2)
            server.command.wait_for("the database is away")
            wait_until(lambda: server.workers == old, "the preflight check to end")
            load.wait_for(50)
            assert server.workers == old
            server.deploy("3")
            server.signal(signal.SIGUSR2)
            server.wait_renewed(load, old)


def test_upgrade_that_hangs(tmp_path: Path) -> None:
    """A preflight check that takes longer than BOOT_TIMEOUT is ended, and the old workers go on."""
    with serving(tmp_path, "--boot-timeout", BOOT_TIMEOUT) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", "time.sleep(1000)")
            server.signal(signal.SIGUSR2)
            server.command.wait_for(f"the preflight check took longer than BOOT_TIMEOUT ({BOOT_TIMEOUT})")
            wait_until(lambda: server.workers == old, "the preflight check to end")
            load.wait_for(20)


def test_workers_that_die_during_the_exec(tmp_path: Path) -> None:
    """A supervisor that finds all workers dead when it takes over replaces them, and the upgrade succeeds."""
    (tmp_path / "sitecustomize.py").write_text(KILLS_WORKERS)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with serving(tmp_path, PYTHONPATH=path) as server:
        server.wait_for_workers(2)
        with server.under_load():
            old = server.workers
        server.signal(signal.SIGUSR2)
        server.command.wait_for("reloaded: ")
        server.wait_for_workers(2)
        assert not server.workers & old
        assert set(_pids(tmp_path / "killed")) == old
        assert "Traceback" not in server.command.output


def test_descriptors_after_an_upgrade(tmp_path: Path) -> None:
    """Programs that are started after an upgrade inherit nothing of the server but its standard streams."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.signal(signal.SIGUSR2)
            server.wait_renewed(load, old)
        for pid in (server.pid, *server.workers):
            assert _inheritable(pid) <= {0, 1, 2}


def test_upgrade_keeps_the_number_of_workers(tmp_path: Path) -> None:
    """Workers that were added by SIGTTIN are still wanted after an upgrade."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            server.signal(signal.SIGTTIN)
            server.wait_for_workers(3)
            load.wait_for_processes(3)
            old = server.workers
            server.signal(signal.SIGUSR2)
            server.wait_renewed(load, old)
            server.wait_for_workers(3)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_preload(tmp_path: Path, number: int) -> None:
    """With PRELOAD the app is imported once, in the supervisor, and a reload is an upgrade, which brings new code."""
    with serving(tmp_path, "--preload", more=PRELOADED) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            imports = tmp_path / "imports"
            assert _pids(imports) == [server.pid]
            old = server.workers
            server.deploy("2", PRELOADED)
            server.signal(number)
            server.wait_renewed(load, old)
            assert {answer.version for answer in load.last.values()} == {"2"}
            assert _pids(imports).count(server.pid) == 2
            assert not server.workers & set(_pids(imports))
