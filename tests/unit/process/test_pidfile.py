"""PIDFILE: written whole, refused where somebody lives, and removed by its owner only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prodserve.errors import ProdServeError
from flask_prodserve.process.pidfile import read_pidfile, remove_pidfile, write_pidfile


def test_pidfile(tmp_path: Path) -> None:
    """It has the process id, alone in its folder, and goes again; writing it twice is no conflict."""
    file = tmp_path / "pid"
    write_pidfile(str(file))
    write_pidfile(str(file))
    assert file.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == [file]
    remove_pidfile(str(file))
    assert not file.exists()
    remove_pidfile(str(file))


def test_pidfile_of_another(tmp_path: Path) -> None:
    """A living process keeps its file; that of a dead one, and what is no number, is replaced."""
    file = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    file.write_text(str(process.pid))
    with pytest.raises(ProdServeError, match=f"runs already, as process {process.pid}"):
        write_pidfile(str(file))
    remove_pidfile(str(file))
    assert read_pidfile(str(file)) == process.pid
    process.communicate(b"")
    write_pidfile(str(file))
    assert read_pidfile(str(file)) == os.getpid()
    file.write_text("nonsense")
    write_pidfile(str(file))
    assert read_pidfile(str(file)) == os.getpid()


def test_pidfile_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the setting and the file."""
    with pytest.raises(ProdServeError, match=r"PIDFILE: .*/no/pid cannot be written: No such file or directory"):
        write_pidfile(str(tmp_path / "no" / "pid"))


def test_pidfile_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows nobody is asked whether he lives, since that would be CTRL+C for him."""
    file = tmp_path / "pid"
    file.write_text(str(os.getppid()))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process was sent a signal"))
    write_pidfile(str(file))
    assert read_pidfile(str(file)) == os.getpid()
