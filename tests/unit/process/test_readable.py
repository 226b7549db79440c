"""Whether an account can read what a worker needs, in a process that has become that account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"
)

CHECK = """
import json, os, sys
import flask_prodserve.launcher
from flask_prodserve.errors import PrivilegeError
from flask_prodserve.process.readable import Needed, check, needed

folder, import_path, private = sys.argv[1:]
found = needed(import_path or None, folder)
own = [what for what in found.required if what[1].startswith(private)]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    check(Needed(tuple(own), ()), log_notices=False)
    print(json.dumps([own, "", ""]))
except PrivilegeError as error:
    print(json.dumps([own, error.what, error.hint]))
"""
"""What is needed outside of *private* is left out: the Python that runs the tests may be in somebody's home."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name).resolve()


def told(folder: Path, import_path: str = "") -> tuple[list[list[str]], str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(folder), import_path, str(folder)], capture_output=True, text=True, check=True
    )
    own, what, hint = json.loads(done.stdout)
    return own, what, hint


@pytest.mark.parametrize(
    ("import_path", "file"),
    [
        ("", "app.py"),
        ("", "wsgi.py"),
        ("hello", "hello.py"),
        ("hello:create_app('a:b')", "hello.py"),
        ("shop.web:app", "shop/web.py"),
        ("shop", "shop/__init__.py"),
        ("shop/web.py:app", "shop/web.py"),
    ],
)
def test_where_the_app_is(folder: Path, import_path: str, file: str) -> None:
    """The app's file is found as Flask finds it, and a mode that lets only root read it is named, with what to do."""
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    own, what, _ = told(folder, import_path)
    assert what == ""
    assert ["the app", str(path)] in own
    path.chmod(0o600)
    _, what, hint = told(folder, import_path)
    assert what == (
        f"USER: nobody cannot read the app ({path}), because of the permissions of {path} (-rw-------, owner root)."
    )
    assert f"`chmod o+rX {path}`" in hint
    assert "\n" not in what + hint


def test_folder_above_that_is_closed(folder: Path) -> None:
    """The directory that does not let the account pass is named, not what is below it."""
    inner = folder / "home/app"
    inner.mkdir(parents=True)
    (inner / "app.py").write_text("")
    (folder / "home").chmod(0o700)
    _, what, hint = told(inner)
    assert f"because of the permissions of {folder}/home (drwx------, owner root)." in what
    assert f"`chmod o+x {folder}/home`" in hint


def test_app_that_is_installed(folder: Path) -> None:
    """An app that is not a file in the folder is found elsewhere on the path, so the folder need not be readable."""
    folder.chmod(0o700)
    assert told(folder, "json") == ([], "", "")
    _, what, _ = told(folder)
    assert f"the app ({folder})" in what
