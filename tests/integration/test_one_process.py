"""`flask serve --workers 0`: everything in the process that was started, with the signals and the hooks of a supervised server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import PATIENCE, Command, flask, run, wait_until
from wire import Wire, get

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="these are signals of Unix")

DELAY = 0.075 * PATIENCE
"""Seconds of DRAIN_DELAY: in which readiness can be asked for."""

APP = """
import os, threading
from flask import Flask
from flask_prodserve import ProdServe

app = Flask(__name__)
prodserve = ProdServe(app)

@app.get("/")
def index():
    return f"{os.getpid()}"

@app.get("/held")
def held():
    print("held", flush=True)
    threading.Event().wait()

@prodserve.worker_started
def started(app):
    print("started", flush=True)

@prodserve.once
def once(app):
    print("once begins", flush=True)
    yield
    print("once ends", flush=True)

@prodserve.worker_stopping
def stopping(app):
    print("stopping hook", flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Command]:
    (tmp_path / "app.py").write_text(APP)
    arguments = flask(
        "serve", "--workers", "0", "--port", "0", "--access-log", "access.log", "--drain-delay", f"{DELAY}s"
    )
    with run(arguments, cwd=tmp_path) as command:
        yield command


def test_hooks_and_stop(server: Command) -> None:
    """The process that was started serves, its hooks run in their order, and SIGTERM ends it with 0 after DRAIN_DELAY."""
    assert get(server.address).body == str(server.process.pid).encode()
    server.wait_for("once begins")
    told = time.monotonic()
    server.signal(signal.SIGTERM)
    wait_until(lambda: get(server.address, "/readyz").status == 503, "readiness to turn")
    assert server.exit_code() == 0
    assert time.monotonic() - told > DELAY
    said = [server.output.index(text) for text in ("started", "once begins", "once ends", "stopping hook", "stopped;")]
    assert said == sorted(said)


@pytest.mark.parametrize(("numbers", "code"), [(["SIGQUIT"], 131), (["SIGINT", "SIGINT"], 130)])
def test_stop_at_once(server: Command, numbers: list[str], code: int) -> None:
    """SIGQUIT, and a second SIGINT, cut what is running. GRACEFUL_TIMEOUT has no part in it."""
    with Wire(server.address) as wire:
        wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.wait_for("held")
        for name in numbers[:-1]:
            server.signal(signal.Signals[name])
            wait_until(lambda: get_or_none(server, "/readyz") != 200, "it to stop")
        server.signal(signal.Signals[numbers[-1]])
        assert server.exit_code() == code
    assert "1 cut\n" in server.output
    if code == 131:
        assert "to finish within" not in server.output


def get_or_none(server: Command, target: str) -> int | None:
    try:
        return get(server.address, target).status
    except ConnectionError:
        return None


def test_reopen(server: Command, tmp_path: Path) -> None:
    """SIGUSR1 opens the access log by its name again."""
    log = tmp_path / "access.log"
    get(server.address, "/first")
    wait_until(lambda: "/first" in log.read_text(), "a line")
    os.rename(log, tmp_path / "access.log.1")
    server.signal(signal.SIGUSR1)
    wait_until(log.exists, "a new file")
    get(server.address, "/second")
    wait_until(lambda: "/second" in log.read_text(), "a line in it")


LOADS = APP + "print('loaded', flush=True)\n"

WHO = """
@app.get("/umask")
def umask():
    open("written", "w").close()
    return "written"

open("imported", "w").close()
"""


def test_umask_and_pidfile(tmp_path: Path) -> None:
    """UMASK holds for what the app creates, from its import on; PIDFILE has the id of the process, and goes with it."""
    (tmp_path / "app.py").write_text(APP + WHO)
    pidfile = tmp_path / "pid"
    options = ["--workers", "0", "--port", "0", "--pidfile", "pid", "--umask", "027"]
    with run(flask("serve", *options), cwd=tmp_path) as command:
        assert get(command.address, "/umask").body == b"written"
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("imported", "written")] == [0o640, 0o640]
        assert pidfile.read_text() == f"{command.process.pid}\n"
        with run(flask("serve", *options), cwd=tmp_path) as second:
            assert second.exit_code() == 1
            assert f"PIDFILE: pid names process {command.process.pid}, which is running" in second.output
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
        assert "no effect" not in command.output
    assert not pidfile.exists()


@pytest.mark.parametrize("option", ["--user", "--group"])
def test_other_accounts_are_refused(tmp_path: Path, option: str) -> None:
    """USER and GROUP are refused before the app is loaded as somebody else; `config` says so, too."""
    (tmp_path / "app.py").write_text(LOADS)
    arguments = flask("serve", "--workers", "0", "--port", "0", option, "0")
    with run(arguments, cwd=tmp_path) as command, run([*arguments, "config"], cwd=tmp_path) as config:
        assert command.exit_code() == config.exit_code() == 2
        for output in (command.output, config.output):
            assert f"({option}) is '0', but a server of one process cannot change its account." in output
        assert "loaded" not in command.output


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    """What is for a supervisor is named in one warning, also if the app says it; and so is root, once."""
    (tmp_path / "app.py").write_text(APP.replace("ProdServe(app)", "ProdServe(app, max_requests=9)"))
    with run(flask("serve", "--workers", "0", "--port", "0", "--preload"), cwd=tmp_path) as command:
        command.wait_for("once begins")
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    named = "PRELOAD (--preload), MAX_REQUESTS (ProdServe(max_requests=...)) have no effect in a server of one process."
    assert command.output.count(f"WARNING {named}") == command.output.count("no effect") == 1
    assert command.output.count("WARNING the app runs as root") == (os.geteuid() == 0)
