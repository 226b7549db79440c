"""Apps that have replaced Python's threads are refused at once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from certificates import Pair
from programs import missing
from serving import flask, run
from wire import get

APP = "from flask import Flask\napp = Flask(__name__)\n@app.get('/')\ndef index(): return 'served'\n"
GEVENT = "from gevent import monkey\nmonkey.patch_all({})\n"
QUIET = {"PYTHONWARNINGS": "ignore"}  # gevent warns of modules that were imported before it
MODES = [("--workers", "0"), ("--workers", "1"), ("--preload",)]


@pytest.fixture
def gevent() -> None:
    if importlib.util.find_spec("gevent") is None:
        missing("gevent")


def refused(folder: Path, text: str, *options: str) -> list[str]:
    (folder / "app.py").write_text(text + APP)
    with run(flask("serve", "--port", "0", *options), cwd=folder, env=QUIET) as command:
        assert command.exit_code() == 4, command.output
    return command.output.splitlines()


@pytest.mark.usefixtures("gevent")
@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_gevent(tmp_path: Path, options: tuple[str, ...]) -> None:
    """An app that gevent has patched is refused with the cause and the remedy, in every process model."""
    what, hint = refused(tmp_path, GEVENT.format(""), *options)
    assert what == "Error: Gevent has replaced Python's threads (monkey patching), and this server needs real ones."
    assert "gevent.monkey.patch_all()" in hint


@pytest.mark.usefixtures("gevent")
def test_gevent_before_everything(tmp_path: Path) -> None:
    """`python -m gevent.monkey` patches before the app is there, and is refused, too."""
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "gevent.monkey", "--module", "flask", "serve", "--port", "0"]
    with run(command, cwd=tmp_path, env=QUIET) as patched:
        assert patched.exit_code() == 4, patched.output
    assert "Gevent has replaced Python's threads" in patched.output


@pytest.mark.usefixtures("gevent")
def test_gevent_without_threads(tmp_path: Path, localhost: Pair) -> None:
    """Patched sockets with real threads serve, as libraries such as grequests patch them; over TLS a patched ssl is refused."""
    text = GEVENT.format("thread=False")
    what, hint = refused(tmp_path, text, "--tls-cert", localhost.cert, "--tls-key", localhost.key)
    assert what == "Error: Gevent has replaced Python's ssl module (monkey patching), and TLS_CERT needs the original."
    assert "patch_all(thread=False, ssl=False)" in hint
    with run(flask("serve", "--port", "0"), cwd=tmp_path, env=QUIET) as command:
        assert get(command.address).body == b"served"
