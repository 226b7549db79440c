"""Commands that find a running server by other spellings of its app, from other folders, and through a runtime directory; and an address
that another server of ours has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import deploy, supervised

from programs import free_ports
from serving import PATIENCE, Command, environment, flask, run

pytestmark = supervised

PLACES = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""}


def _ask(cwd: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        flask(*arguments),
        cwd=cwd,
        env=environment(**{**PLACES, **variables}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with an app whose name no other server has."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        deploy(folder, "1")
        (folder / "app.py").rename(folder / f"{folder.name}.py")
        yield folder


@contextlib.contextmanager
def _serving(folder: Path, name: str, *options: str, **variables: str) -> Iterator[Command]:
    options = options or ("--port", "0")
    with run(flask("--app", name, "serve", *options), cwd=folder, env={**PLACES, **variables}) as command:
        assert command.address
        try:
            yield command
        finally:
            command.process.terminate()
            assert command.exit_code() == 0


def test_spellings_and_folders(folder: Path, tmp_path: Path) -> None:
    """A server is found however its app is written, and from another folder by the app's name; it is reloaded and stopped from there."""
    app = folder.name
    with _serving(folder, f"{app}:app") as command:
        for name in (app, f"{app}.py", f"{app}:app"):
            done = _ask(folder, "--app", name, "serve", "status")
            assert f"pid {command.process.pid}\n" in done.stdout, done.stderr
            assert done.stderr == ""
        done = _ask(tmp_path, "--app", app, "serve", "reload")
        assert done.returncode == 0, done.stderr
        assert f"Using the server with pid {command.process.pid}: app {app}:app, folder {folder}, http" in done.stderr
        done = _ask(tmp_path, "--app", f"{app}_other", "serve", "status")
        assert done.returncode == 1
        assert f"  - pid {command.process.pid}: app {app}:app, folder {folder}, {command.url}, socket " in done.stderr
        assert _ask(tmp_path, "--app", app, "serve", "stop").returncode == 0
        assert command.exit_code() == 0


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="only root makes runtime directories")
def test_a_runtime_directory(folder: Path, tmp_path: Path) -> None:
    """A server that was started with RUNTIME_DIRECTORY is found without it."""
    runtime = Path("/run") / folder.name
    runtime.mkdir(0o755)
    try:
        with _serving(folder, folder.name, RUNTIME_DIRECTORY=str(runtime)) as command:
            assert list((runtime / "flask-prodserve").iterdir())
            for cwd in (folder, tmp_path):
                done = _ask(cwd, "--app", folder.name, "serve", "status")
                assert f"pid {command.process.pid}\n" in done.stdout, done.stderr
    finally:
        shutil.rmtree(runtime)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_that_is_in_use(folder: Path, workers: str, kind: str) -> None:
    """If another server of ours has the address, the error names its pid, and the command that stops it does."""
    bind = f"127.0.0.1:{free_ports(1)[0]}" if kind == "tcp" else f"unix:{folder}/socket"
    with _serving(folder, folder.name, "--bind", bind) as command:
        done = _ask(folder, "--app", folder.name, "serve", "--bind", bind, "--workers", workers)
        assert done.returncode == 1
        what, hint = done.stderr.splitlines()[-2:]
        assert what.startswith(
            f"Error: {bind} is already in use by the server with pid {command.process.pid}: app {folder.name}"
        )
        stop = hint.partition("'")[2].partition("'")[0].split()
        assert stop[0] == "flask"
        assert _ask(folder, *stop[1:]).returncode == 0
        assert command.exit_code() == 0
