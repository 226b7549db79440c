"""Mounted apps that cannot be loaded: who is named, what is shown, and what goes on serving."""

from __future__ import annotations

import signal
from pathlib import Path

import django_project
import pytest

from commands import ends_here
from serving import flask, run

MAIN = """
from flask import Flask

app = Flask(__name__)


async def asgi(scope, receive, send):
    pass


def needs_one(version):
    pass


def makes_another():
    return needs_one


"""

BROKEN = """
import json


def connect():
    raise RuntimeError("no database")


connect()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "needy.py").write_text("import something_that_is_not_installed\n")
    return tmp_path


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_an_import_that_fails(folder: Path, workers: str, options: tuple[str, ...]) -> None:
    """The mount and its import string are named, the traceback of that app's own code is shown, each once, and the exit code is 4."""
    server_options = ("--port", "0", "--workers", workers, *options, "--mount", "/api=broken:app")
    command = flask("--app", "main", "serve", *server_options)
    with run(command, cwd=folder) as server:
        assert server.exit_code() == 4, server.output
    said = server.output
    assert said.count("Error: The app at /api, 'broken:app', could not be loaded: RuntimeError: no database") == 1
    assert said.count("Traceback (most recent call last):") == 1
    assert said[said.index("Traceback") :].splitlines()[1].endswith('broken.py", line 9, in <module>')


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere:app", "Could not import 'nowhere'."),
        ("needy:app", "ModuleNotFoundError: No module named 'something_that_is_not_installed'"),
        ("main:other", "Failed to find attribute 'other' in 'main'."),
        ("main:__name__", "It is of type str, not a WSGI app."),
        ("main:asgi", "It is an ASGI app, and this is a WSGI server."),
        ("main:needs_one", "It is a function, and does not take the two arguments of a WSGI app."),
        ("main:makes_another", "It is a function, and does not take the two arguments of a WSGI app."),
        ("main:app.config", "Failed to parse 'app.config' as an attribute name or function call."),
    ],
)
def test_what_is_not_there(folder: Path, source: str, words: str) -> None:
    """A module, a name or a library that is not there is told apart; `config`, which upgrades try first, finds it, too."""
    code, output, errors = ends_here(folder, "--app", "main", "serve", "--mount", f"/api={source}", "config")
    assert (code, output) == (4, "")
    assert f"The app at /api, '{source}', could not be loaded: " in errors
    assert words in errors


def test_settings_of_a_mounted_app(folder: Path) -> None:
    """What is wrong with a mounted app's own config is refused with the mount's name."""
    (folder / "wrong.py").write_text(
        f'{MAIN}app.config["PRODSERVE_ENDPOINT_LIMITS"] = {{"nothing": {{"timeout": 1}}}}\n'
    )
    (folder / "worse.py").write_text(f'{MAIN}app.config["PRODSERVE_THREDS"] = 1\n')
    for name, words in {"wrong": "ENDPOINT_LIMITS names 'nothing'", "worse": "PRODSERVE_THREDS"}.items():
        command = flask("--app", "main", "serve", "--port", "0", "--mount", f"/api={name}")
        with run(command, cwd=folder) as server:
            assert server.exit_code() == 2, server.output
        assert "The app at /api: " in server.output
        assert words in server.output


def test_debug_mode(folder: Path) -> None:
    """A mounted Flask app in debug mode is refused as the main one is."""
    (folder / "careless.py").write_text(f"{MAIN}app.debug = True\n")
    with run(flask("--app", "main", "serve", "--port", "0", "--mount", "/api=careless"), cwd=folder) as server:
        assert server.exit_code() == 2, server.output
    assert "'careless' is in debug mode" in server.output


def test_debug_mode_of_django(folder: Path) -> None:
    """Of a Django project in debug mode it is said, once and with all its places, unless that is allowed."""
    django_project.build(folder)
    mounts = ("--mount", "/a=project.wsgi:application", "--mount", "/b=project.wsgi:application")
    words = "The Django project at /a and /b is in debug mode"

    def said(*options: str) -> int:
        with run(flask("--app", "main", "serve", "--port", "0", *options, *mounts), cwd=folder) as server:
            assert server.url
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0, server.output
        return server.output.count(words)

    assert said() == 0
    with (folder / "project/settings.py").open("a") as settings:
        settings.write("DEBUG = True\n")
    assert said("--workers", "2") == 1
    assert said("--allow-debug") == 0
