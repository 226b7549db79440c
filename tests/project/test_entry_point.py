"""Every `flask` command imports our entry point, so it must be light."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from serving import environment

_LIST = """
import json, sys
from flask.cli import main

sys.argv = ["flask", *{arguments}]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--app", "hello", "routes"]])
def test_what_other_commands_import(tmp_path: Path, arguments: list[str]) -> None:
    """Other commands import the entry point's module and its package, and nothing else of ours, nor waitress."""
    (tmp_path / "hello.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    done = _python(tmp_path, "-c", _LIST.format(arguments=arguments))
    modules = json.loads(done.stdout.splitlines()[-1])
    assert {name for name in modules if name.split(".")[0] in ("flask_prodserve", "waitress")} == {
        "flask_prodserve",
        "flask_prodserve.cli",
        "flask_prodserve.cli.serve",
    }


def test_cost_beside_flask(tmp_path: Path) -> None:
    """Importing the entry point costs less than a twentieth of importing Flask, in the same process, in the best of five runs."""

    def ratio() -> float:
        done = _python(tmp_path, "-X", "importtime", "-c", "import flask.cli; import flask_prodserve.cli.serve")
        # import time: self [us] | cumulative | imported package
        rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()]
        cost = {name.strip(): int(cumulative) for _, cumulative, name in rows[1:] if not name.startswith("  ")}
        ours = sum(
            cost.get(name, 0) for name in ("flask_prodserve", "flask_prodserve.cli", "flask_prodserve.cli.serve")
        )
        return ours / sum(cost.get(name, 0) for name in ("flask", "flask.cli"))

    assert min(ratio() for _ in range(5)) < 0.05


def test_registered() -> None:
    """`serve` is registered with Flask's commands, under that name."""
    [entry] = [entry for entry in entry_points(group="flask.commands") if entry.name == "serve"]
    assert entry.load().name == "serve"
