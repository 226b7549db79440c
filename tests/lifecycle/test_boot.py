"""How a server starts, or does not: what is said, how often, and the exit code."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import deploy, is_alive, serving, supervised

from flask_prodserve.units import format_duration
from serving import PATIENCE, Command, flask, run, wait_until
from wire import get

pytestmark = supervised

BOOT_TIMEOUT = format_duration(PATIENCE / 10)
"""Enough to import Flask and all that is needed to serve, also where the machine is busy."""

DIES_WHEN_IT_SERVES = """
import socket
import threading


def listens(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:") and socket.socket(
            fileno=os.dup(int(descriptor))
        ).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False


def die():
    while not any(listens(descriptor) for descriptor in os.listdir("/proc/self/fd")):
        time.sleep(0.01)
    time.sleep(0.2)
    os._exit(7)


with open("starts", "a") as starts:
    starts.write("x")
threading.Thread(target=die, daemon=True).start()
"""

READY_AT = """
import pathlib
import signal

from flask_prodserve import ProdServe


@ProdServe(app).worker_started
def started(app):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{signal}])
    pathlib.Path("starting").touch()
    signal.sigwait([signal.{signal}])
"""
"""An app that is ready just when its worker is told to end."""


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ("raise RuntimeError('the database is away')", 4, "RuntimeError: the database is away"),
        ("app.config['PRODSERVE_THREADS'] = 'many'", 2, "PRODSERVE_THREADS"),
        ("app.config['PRODSERVE_BOOT_TIMEOUT'] = '5s'", 2, "too late"),
        ("import sys; sys.exit(7)", 3, "the first worker exited with code 7 before it could serve"),
    ],
)
def test_first_worker_fails(tmp_path: Path, more: str, code: int, said: str) -> None:
    """If the first worker fails, what it says is shown once, nothing is tried again, and the exit code says why."""
    with serving(tmp_path, more=f"with open('starts', 'a') as starts:\n    starts.write('x')\n{more}") as server:
        assert server.command.exit_code() == code
        assert (tmp_path / "starts").read_text() == "x"
        assert said in server.command.output
        traceback = "Traceback (most recent call last)"
        assert server.command.output.count(traceback) == (1 if code == 4 else 0)
        assert "ResourceWarning" not in server.command.output


def test_address_in_use(tmp_path: Path) -> None:
    """An address that is in use is named, once, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serving(tmp_path, "--port", str(port)) as server:
            assert server.command.exit_code() == 1
            assert server.command.output.count(f"127.0.0.1:{port}") == 1
            assert "Traceback" not in server.command.output


def test_crash_loop(tmp_path: Path) -> None:
    """Workers that die as soon as they serve are started again with pauses, and given up with exit code 3 if none has served."""
    with serving(tmp_path, workers=1, more=DIES_WHEN_IT_SERVES) as server:
        assert server.command.exit_code() == 3
        assert 2 < len((tmp_path / "starts").read_text()) < 10
        assert "exited with code 7" in server.command.output


def test_hanging_import(tmp_path: Path) -> None:
    """A first worker that is not ready after BOOT_TIMEOUT is killed with its stacks in the log, and the exit code is 3."""
    with serving(
        tmp_path, "--boot-timeout", BOOT_TIMEOUT, more="def wait_for_ever():\n    time.sleep(1000)\n\nwait_for_ever()"
    ) as server:
        assert server.command.exit_code() == 3
        assert f"BOOT_TIMEOUT ({BOOT_TIMEOUT})" in server.command.output
        assert " in wait_for_ever\n" in server.command.output


def test_hanging_import_of_new_code(tmp_path: Path) -> None:
    """New code that is not ready after BOOT_TIMEOUT is given up with its stacks in the log, and the old workers go on."""
    with serving(tmp_path, "--boot-timeout", BOOT_TIMEOUT) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", "def wait_for_ever():\n    time.sleep(1000)\n\nwait_for_ever()")
            server.signal(signal.SIGHUP)
            server.command.wait_for(" in wait_for_ever\n")
            wait_until(lambda: server.workers == old, "the new worker to be killed")
            load.wait_for(20)


def test_new_code_that_is_ready_too_late(tmp_path: Path) -> None:
    """New code that gets ready in the moment in which it is given up is given up all the same, and the old workers go on."""
    with serving(tmp_path, "--boot-timeout", BOOT_TIMEOUT) as server:
        server.wait_for_workers(2)
        with server.under_load():
            old = server.workers
        server.deploy("2", READY_AT.format(signal="SIGABRT"))
        server.signal(signal.SIGHUP)
        server.command.wait_for("reload failed; the previous workers keep serving")
        wait_until(lambda: server.workers == old, "the new worker to be killed, with whom it has accepted")
        with server.under_load() as load:
            load.wait_for(20)


def test_stop_while_starting(tmp_path: Path) -> None:
    """SIGTERM while the first worker loads the app ends both at once, with exit code 0."""
    more = "import pathlib; pathlib.Path('loading').touch()\ntime.sleep(1000)"
    with serving(tmp_path, more=more) as server:
        wait_until((tmp_path / "loading").exists, "the app to be loaded")
        (worker,) = server.workers
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        assert not is_alive(worker)


def test_stop_in_the_moment_in_which_it_is_ready(tmp_path: Path) -> None:
    """SIGTERM while the first worker runs what belongs to its start ends the server with exit code 0, although that worker gets ready."""
    # The signal comes from the supervisor, which has closed its listeners.
    with serving(tmp_path, workers=1, more=READY_AT.format(signal="SIGTERM")) as server:
        wait_until((tmp_path / "starting").exists, "the worker to start")
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        assert "Traceback" not in server.command.output
        assert "serving app=" not in server.command.output


def test_pidfile(tmp_path: Path) -> None:
    """PIDFILE has the supervisor's id, refuses a second server, and is removed in the end."""
    file = tmp_path / "pid"
    with serving(tmp_path, "--pidfile", str(file)) as server:
        server.wait_for_workers(2)
        assert int(file.read_text()) == server.pid
        with serving(tmp_path, "--pidfile", str(file)) as second:
            assert second.command.exit_code() == 1
            assert "PIDFILE" in second.command.output
        assert int(file.read_text()) == server.pid
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        assert not file.exists()


def test_no_place_for_the_control_socket(tmp_path: Path) -> None:
    """With CONTROL_SOCKET=auto and no safe place the server starts, and one warning says what does not work and what to set."""
    nowhere = str(tmp_path / "nowhere")
    with serving(tmp_path, TMPDIR=nowhere, XDG_RUNTIME_DIR="", RUNTIME_DIRECTORY="") as server:
        server.wait_for_workers(2)
        server.command.wait_for("serving app=")
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
    (line,) = [line for line in server.command.output.splitlines() if "CONTROL_SOCKET" in line]
    assert " WARNING " in line
    assert "--control-socket" in line


WAITS = """
import pathlib, time

pathlib.Path("importing").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.01)
"""


@contextlib.contextmanager
def preloading(folder: Path) -> Iterator[Command]:
    """A server that is importing its app for PRELOAD, until there is a file ``go``."""
    deploy(folder, "1", WAITS)
    with run(flask("serve", "--preload", "--port", "0"), cwd=folder) as command:
        wait_until((folder / "importing").exists, "the import")
        yield command


def test_reload_while_preloading(tmp_path: Path) -> None:
    """A reload that is asked for while PRELOAD imports the app is carried out once the server is ready."""
    with preloading(tmp_path) as command:
        command.signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        assert get(command.address, "/echo/1").status == 200
        command.wait_for("reloaded: ")


def test_stop_while_preloading(tmp_path: Path) -> None:
    """SIGTERM ends a server that is importing its app, as if it had been serving."""
    with preloading(tmp_path) as command:
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
