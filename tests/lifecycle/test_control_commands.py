"""``flask serve status``, ``reload``, ``scale``, ``stacks`` and ``stop``, against a server under load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from server import Server, is_alive, serving, supervised

from serving import PATIENCE, environment, flask, wait_until
from wire import Wire

pytestmark = supervised


def _control(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside the server, as a person in the same folder would."""
    return subprocess.run(
        flask("serve", *arguments),
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _status(server: Server) -> dict[str, object]:
    done = _control(server.folder, "status", "--json")
    assert done.returncode == 0, done.stderr
    status: dict[str, object] = json.loads(done.stdout)
    return status


def test_commands(tmp_path: Path) -> None:
    """The commands find the server by the folder they are run in, and do what they say without a failed request."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            status = _status(server)
            assert status["pid"] == server.pid
            assert status["state"] == "serving"
            assert {worker["pid"] for worker in status["workers"]} == server.workers
            assert all(worker["state"] == "ready" for worker in status["workers"])

            old = server.workers
            server.deploy("2")
            assert _control(tmp_path, "reload").returncode == 0  # it waits until the new code serves
            server.wait_renewed(load, old)
            assert {answer.version for answer in load.last.values()} == {"2"}

            assert _control(tmp_path, "scale", "3").returncode == 0
            server.wait_for_workers(3)
            load.wait_for_processes(5)
            assert _status(server)["wanted"] == 3

            def shows_a_request() -> bool:
                stacks = _control(tmp_path, "stacks")
                assert stacks.returncode == 0
                assert all(str(pid) in stacks.stdout for pid in server.workers)
                return 'app.py", line' in stacks.stdout

            wait_until(shows_a_request, "a moment at which a request runs")

            load.expect_end()
            assert _control(tmp_path, "stop").returncode == 0
            assert server.command.exit_code() == 0
            load.wait_ended()


def test_status_while_stopping(tmp_path: Path) -> None:
    """A server that waits for its last request still tells how it is, and where it was reached."""
    with serving(tmp_path, "--graceful-timeout", "600s") as server:
        server.wait_for_workers(2)
        serves = _status(server)
        with Wire(server.command.address) as wire:
            wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until(lambda: any(worker["busy"] for worker in _status(server)["workers"]), "the request to begin")
            server.signal(signal.SIGTERM)
            wait_until(lambda: _status(server)["state"] == "stopping", "the stop")
            stops = _status(server)
            assert stops["listen"] == serves["listen"] == [server.command.url]
            assert _control(tmp_path, "stop", "--now").returncode == 0
        assert server.command.exit_code() == 0
        assert "stopped; 0 requests finished, 1 cut\n" in server.command.output


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "raise RuntimeError('the database is away')",
            "The app could not be loaded: RuntimeError: the database is away\n",
        ),
        (
            "app.config['PRODSERVE_THREADS'] = 'many'\napp.config['PRODSERVE_PROT'] = 1",
            "2 settings are wrong:\n"
            '  - app.config["PRODSERVE_PROT"] is not a setting.\n'
            "    Did you mean PRODSERVE_PORT?\n"
            "  - app.config[\"PRODSERVE_THREADS\"] is 'many', which is not valid.\n"
            "    THREADS takes a whole number such as 16.\n",
        ),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'\n"),
    ],
    ids=["exception", "settings", "import"],
)
def test_failed_reload_is_reported(tmp_path: Path, broken: str, said: str) -> None:
    """`flask serve reload` and the log say all of why the new code is not served, each once, and the command fails."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load():
            old = server.workers
            server.deploy("2", broken)
            done = _control(tmp_path, "reload")
            assert done.returncode == 1
            assert done.stderr.startswith("Error: Reload failed: ")
            assert done.stderr.endswith(f"{said}The previous workers keep serving.\n")
            wait_until(lambda: server.workers == old, "the new worker to end")
        server.command.wait_for(said)
        assert server.command.output.count(said) == 1
        assert server.command.output.count("Traceback") == (0 if "PRODSERVE" in broken else 1)


def test_failed_reload_with_preload_is_reported(tmp_path: Path) -> None:
    """With PRELOAD a reload fails if the workers of the next supervisor do not start, and those that were there go on."""
    failing = "from flask_prodserve import ProdServe\n\n@ProdServe(app).worker_started\ndef fail(app):\n    raise RuntimeError('away')"
    with serving(tmp_path, "--preload") as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", failing)
            done = _control(tmp_path, "reload")
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("Error: Reload failed: ")
            wait_until(lambda: server.workers == old, "the new worker to end")
            load.wait_for(20)


def test_a_worker_that_cannot_be_replaced(tmp_path: Path) -> None:
    """The log says all of why no other worker takes the place of one that has died, once for each attempt."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load():
            pass
        server.deploy("2", "app.config['PRODSERVE_THREADS'] = 'many'")
        os.kill(min(server.workers), signal.SIGKILL)
        server.command.wait_for("THREADS takes a whole number such as 16.")
        output = server.command.output
        assert output.count("failed to start: One setting is wrong:\n") == output.count("One setting is wrong:")


def test_after_an_upgrade(tmp_path: Path) -> None:
    """The control socket is the same one after an upgrade, and a given path is used and removed."""
    path = tmp_path / "control"
    with serving(tmp_path, PRODSERVE_CONTROL_SOCKET=str(path)) as server:
        server.wait_for_workers(2)
        assert path.stat().st_mode & 0o777 in (0o600, 0o700)
        with server.under_load() as load:
            old = server.workers
            server.signal(signal.SIGUSR2)
            server.wait_renewed(load, old)
            done = _control(tmp_path, "status", "--json", PRODSERVE_CONTROL_SOCKET=str(path))
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["pid"] == server.pid
        workers = server.workers
        assert _control(tmp_path, "stop", PRODSERVE_CONTROL_SOCKET=str(path)).returncode == 0
        assert server.command.exit_code() == 0
        assert not path.exists()
        assert not any(map(is_alive, workers))


@pytest.mark.parametrize("verb", ["status", "reload", "stop", "stacks"])
def test_no_server(tmp_path: Path, verb: str) -> None:
    """Where no server runs the commands say so, and fail."""
    # An app that nobody serves: a look without a name would find the server of another test.
    done = _control(tmp_path, verb, FLASK_APP=f"{tmp_path.name}_nowhere")
    assert done.returncode != 0
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_reload_with_preload(tmp_path: Path) -> None:
    """With PRELOAD `reload` waits for the supervisor that replaces the one it has asked, until that serves the new code."""
    with serving(tmp_path, "--preload") as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2")
            done = _control(tmp_path, "reload")
            assert (done.returncode, done.stdout) == (0, "Reloaded: generation 2 serves.\n"), done.stderr
            assert _status(server)["generation"] == 2
            server.wait_renewed(load, old)
            server.deploy("3", "raise RuntimeError('the database is away')")
            done = _control(tmp_path, "reload")
            assert done.returncode == 1
            assert "the database is away" in done.stderr
