"""Servers that are started from Python: `serve(app)`, `prodserve.run(app)`, and `app.run()` where it is replaced."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from programs import free_ports
from serving import run
from wire import get

HEAD = """
from flask import Flask
from flask_prodserve import ProdServe, serve

app = Flask("script")

@app.get("/")
def index():
    return "hello"
"""


def script(folder: Path, text: str) -> list[str]:
    (folder / "script.py").write_text(HEAD + text)
    return [sys.executable, "script.py"]


@pytest.mark.parametrize(
    "text",
    [
        "serve(app, port=0, threads=3)",
        "ProdServe().run(app, port=0, threads=3)",
        "ProdServe(app, threads=3).run(app, port=0)",
        "ProdServe(app, replace_run=True, threads=3)\napp.run(port=0)",
        "app.config['PRODSERVE_REPLACE_RUN'] = True\nProdServe(app, threads=3)\napp.run('127.0.0.1', 0)",
        "ProdServe(app, replace_run=True, threads=3)\napp.run(host='127.0.0.1', port=0, debug=False, load_dotenv=False)",
    ],
)
def test_serves(tmp_path: Path, text: str) -> None:
    """The script serves with its settings, goes on after SIGTERM, and exits with 0."""
    with run(script(tmp_path, text + "\nprint('after')"), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        assert "threads=3" in command.output
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
        assert command.output.endswith("after\n")


def test_replaced_from_the_environment(tmp_path: Path) -> None:
    """PRODSERVE_REPLACE_RUN switches it on; PRODSERVE_PORT comes before the default of app.run()."""
    variables = {"PRODSERVE_REPLACE_RUN": "1", "PRODSERVE_PORT": "0"}
    with run(script(tmp_path, "ProdServe(app)\napp.run()"), cwd=tmp_path, env=variables) as command:
        assert get(command.address).body == b"hello"


def test_options_are_explained(tmp_path: Path) -> None:
    """Options of the development server have no effect, and each is explained once."""
    text = "ProdServe(app, replace_run=True)\napp.run(port=0, threaded=False, processes=4, use_reloader=True)"
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        for option in ("threaded", "processes", "use_reloader"):
            assert command.output.count(f"app.run({option}=...) has no effect") == 1


def test_debug_keeps_the_development_server(tmp_path: Path) -> None:
    """With debug=True, app.run() is what it always was."""
    [port] = free_ports(1)
    text = f"ProdServe(app, replace_run=True)\napp.run(port={port}, debug=True, use_reloader=False)"
    with run(script(tmp_path, text), cwd=tmp_path, env={"PYTHONWARNINGS": "ignore"}) as command:
        command.wait_for("Debug mode: on")
        command.wait_for("Running on")
        assert "serving app=" not in command.output


def test_ignored_under_the_flask_command(tmp_path: Path) -> None:
    """app.run() at import under a `flask` command is ignored, as Flask does."""
    script(tmp_path, "ProdServe(app, replace_run=True)\napp.run(port=0)")
    with run([sys.executable, "-m", "flask", "--app", "script", "routes"], cwd=tmp_path) as command:
        assert command.exit_code() == 0
        assert "Ignoring a call to 'app.run()'" in command.output
        assert "index" in command.output


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("serve(app, threads=0)", 2, "serve(threads=...)"),
        ("serve(app, thread=1)", 2, "Did you mean threads?"),
        ("app.debug = True\nserve(app)", 2, "flask run --debug"),
        ("serve(app, bind='203.0.113.1:1')", 1, "not an address of this machine"),
        (
            "serve(app, user='0')",
            2,
            "USER (serve(user=...)) is '0', but a server of one process cannot change its account.",
        ),
        ("ProdServe().run(app, group='0')", 2, "GROUP (run(group=...)) is '0'"),
        ("serve(app, umask=0o027)", 2, "UMASK (serve(umask=...)) comes too late: the app is already loaded"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, code: int, word: str) -> None:
    """A script that cannot serve says why without a traceback, and exits with the code of the command."""
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert command.exit_code() == code
        assert word in command.output
        assert "Traceback" not in command.output


@pytest.mark.parametrize(("name", "text"), [("USER", "0"), ("GROUP", "0"), ("UMASK", "027")])
def test_replaced_and_somebody_else(tmp_path: Path, name: str, text: str) -> None:
    """app.run() that is replaced does not serve as somebody else than PRODSERVE_USER, PRODSERVE_GROUP and PRODSERVE_UMASK say."""
    origin = f"PRODSERVE_{name}"
    serving = script(tmp_path, "ProdServe(app, replace_run=True)\napp.run(port=0)")
    with run(serving, cwd=tmp_path, env={origin: text}) as command:
        assert command.exit_code() == 2
        assert f"{name} ({origin} in the environment)" in command.output
        assert "serving" not in command.output


@pytest.mark.parametrize(
    ("text", "variables", "named"),
    [
        ("serve(app, port=0, workers=2)", {}, "WORKERS (serve(workers=...)) has"),
        (
            "ProdServe(app, max_worker_memory='1GiB').run(app, port=0, control_socket='x')",
            {},
            "MAX_WORKER_MEMORY (ProdServe(max_worker_memory=...)), CONTROL_SOCKET (run(control_socket=...)) have",
        ),
        (
            "ProdServe(app, replace_run=True)\napp.run(port=0)",
            {"PRODSERVE_WORKERS": "2", "PRODSERVE_PRELOAD": "1"},
            "WORKERS (PRODSERVE_WORKERS in the environment), PRELOAD (PRODSERVE_PRELOAD in the environment) have",
        ),
        ("serve(app, port=0)", {"WEB_CONCURRENCY": "2"}, None),
    ],
)
def test_what_has_no_effect_is_named(tmp_path: Path, text: str, variables: dict[str, str], named: str | None) -> None:
    """What is for a supervisor is named in one warning, but not what a platform says to everybody; root is named, too."""
    with run(script(tmp_path, text + "\nprint('after')"), cwd=tmp_path, env=variables) as command:
        assert get(command.address).body == b"hello"
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    assert command.output.count("no effect") == (named is not None)
    assert named is None or f"WARNING {named} no effect in a server of one process." in command.output
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    assert command.output.count("WARNING the app runs as root") == is_root


def test_pidfile(tmp_path: Path) -> None:
    """serve() writes its process id into PIDFILE, and removes that when it returns."""
    pidfile = tmp_path / "pid"
    text = "serve(app, port=0, pidfile='pid')\nimport os; print('left:', os.path.exists('pid'))"
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        assert pidfile.read_text() == f"{command.process.pid}\n"
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    assert command.output.endswith("left: False\n")
