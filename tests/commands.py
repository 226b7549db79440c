"""``flask`` commands that end by themselves: in a process of their own, or much faster in this one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn
from unittest.mock import Mock

import click.testing
import flask.cli
import pytest

import serving
from flask_prodserve import launcher
from flask_prodserve.process import exit_guard
from flask_prodserve.process.environment import Environment

TESTS = Path(__file__).parent


def ends(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run ``flask`` in a process, and return its exit code, standard output and standard error."""
    done = subprocess.run(
        serving.flask(*arguments),
        cwd=folder,
        env=serving.environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def ends_here(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Do what :func:`ends` does in this process, for commands that start no workers.

    That is all which only reads options, settings and the app, or fails in doing so. ``serve`` gets as far as
    its workers; with ``--workers 0``, as far as its listeners.
    """
    started = serving.environment(**variables)
    kept = dict(os.environ)
    loaded = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # As in a process of its own: no folder of the tests is searched, and no module of that name is loaded yet.
        patch.setattr(sys, "path", [entry for entry in sys.path if not Path(entry).is_relative_to(TESTS)])
        for path in folder.iterdir():
            patch.delitem(sys.modules, path.stem, raising=False)
        patch.setattr(sys, "dont_write_bytecode", True)
        # /proc has the environment with which the tests were started.
        patch.setattr(Environment, "of_this_process", lambda: Environment(dict(started), dict(os.environ)))
        patch.setattr(exit_guard, "ExitGuard", Mock())  # its thread would end the tests
        patch.setattr(launcher, "supervise", _needs_a_process)
        importlib.invalidate_caches()
        try:
            _replace_environment(started)
            result = click.testing.CliRunner().invoke(flask.cli.FlaskGroup(name="flask"), arguments, prog_name="flask")
        finally:
            _replace_environment(kept)
            for name in set(sys.modules) - loaded:
                if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
                    del sys.modules[name]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _needs_a_process(*arguments: object, **options: object) -> NoReturn:
    raise AssertionError("the command would start workers: use ends()")


def _replace_environment(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
