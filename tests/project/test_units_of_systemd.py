"""The unit files that the docs show: systemd accepts them, what they say fits the settings, and what they start serves."""

from __future__ import annotations

import configparser
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prodserve.settings import Settings
from flask_prodserve.units import SystemdAddress, parse_address, parse_duration
from programs import program
from serving import flask, run
from wire import get

UNITS = Path(__file__).parents[2] / "docs/how-to/systemd"
PROGRAM = "/srv/hello/.venv/bin/flask"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder of units that start a program which is there, with the drop-in in its place."""
    for name in ("hello.service", "hello.socket"):
        (tmp_path / name).write_text((UNITS / name).read_text().replace(PROGRAM, sys.executable))
    (tmp_path / "hello.service.d").mkdir()
    shutil.copy(UNITS / "socket.conf", tmp_path / "hello.service.d")
    return tmp_path


def verify(units: Path) -> tuple[int, str]:
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", units / "hello.service", units / "hello.socket"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("by_systemd", [False, True], ids=["own socket", "systemd's socket"])
def test_verified(units: Path, by_systemd: bool) -> None:
    """systemd has nothing to say against the units, without and with the drop-in."""
    if not by_systemd:
        shutil.rmtree(units / "hello.service.d")
    assert verify(units) == (0, "")


@pytest.mark.parametrize(
    ("file", "mistake", "word"),
    [
        ("hello.service", ("KillMode", "KilMode"), "KilMode"),
        ("hello.socket", ("ListenStream=/run/hello.sock", ""), "no Listen setting"),
        ("hello.service.d/socket.conf", ("hello.socket", "hallo.socket"), "hallo.socket"),
    ],
)
def test_mistakes_are_found(units: Path, file: str, mistake: tuple[str, str], word: str) -> None:
    """A mistake in any of the files is one that systemd sees."""
    text = (units / file).read_text()
    (units / file).write_text(text.replace(*mistake))
    assert word in verify(units)[1]


def read(name: str) -> dict[str, dict[str, str]]:
    """The sections of a file; of several lines with the same name, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read_string((UNITS / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def variables(name: str) -> dict[str, str]:
    lines = (UNITS / name).read_text().splitlines()
    assignments = [line.removeprefix("Environment=") for line in lines if line.startswith("Environment=")]
    return {key: value for key, _, value in (assignment.partition("=") for assignment in assignments)}


def test_time() -> None:
    """systemd waits longer than the server does, to start and to stop."""
    service, settings = read("hello.service")["Service"], Settings.of({})
    timeouts = settings.timeouts
    assert parse_duration(service["TimeoutStopSec"]) > timeouts.drain_delay + timeouts.graceful_timeout
    assert parse_duration(service["TimeoutStartSec"]) > settings.workers.boot_timeout


def test_sockets_are_taken() -> None:
    """With the drop-in the service listens on what the socket unit passes, which is not in the folder that stops with the service."""
    assert parse_address(variables("socket.conf")["PRODSERVE_BIND"]) == SystemdAddress()
    runtime = read("hello.service")["Service"]["RuntimeDirectory"]
    assert not read("hello.socket")["Socket"]["ListenStream"].startswith(f"/run/{runtime}/")


def test_command(tmp_path: Path) -> None:
    """What the service starts serves where its environment says, and stops as systemd stops it with exit code 0."""
    (tmp_path / "hello.py").write_text(
        "from flask import Flask\napp = Flask(__name__)\napp.route('/')(lambda: 'hello')\n"
    )
    service, environ = read("hello.service")["Service"], variables("hello.service")
    program, *arguments = service["ExecStart"].split()
    assert program == PROGRAM
    environ["PRODSERVE_BIND"] = environ["PRODSERVE_BIND"].replace(
        f"/run/{service['RuntimeDirectory']}/", f"{tmp_path}/"
    )
    with run(flask(*arguments), cwd=tmp_path, env=environ) as command:
        assert command.address == str(tmp_path / "app.sock")
        assert get(command.address).body == b"hello"
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0, command.output
