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
    with pytest.raises(ProdServeError, match=f"names process {process.pid}, which is running"):
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


def test_planted_link(tmp_path: Path) -> None:
    """A link that stands where the file or its draft is written is not followed."""
    precious = tmp_path / "precious"
    precious.write_text("root's")
    file = tmp_path / "pid"
    for planted in (file, tmp_path / f".pid.{os.getpid()}"):
        planted.symlink_to(precious)
    write_pidfile(str(file))
    assert precious.read_text() == "root's"
    assert not file.is_symlink()
    assert read_pidfile(str(file)) == os.getpid()


def test_planted_things_that_are_no_files(tmp_path: Path) -> None:
    """A named pipe holds nobody up and is replaced; a folder is an error; what a link leads to is not read."""
    file = tmp_path / "pid"
    os.mkfifo(file)
    assert read_pidfile(str(file)) is None
    write_pidfile(str(file))
    assert read_pidfile(str(file)) == os.getpid()
    (tmp_path / "link").symlink_to(file)
    assert read_pidfile(str(tmp_path / "link")) is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProdServeError, match="folder cannot be written: Is a directory"):
        write_pidfile(str(tmp_path / "folder"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"pid", "link", "folder"}


@pytest.mark.parametrize("text", ["0", "-1", "9" * 40, "\u0663"])
def test_numbers_that_are_no_process(tmp_path: Path, text: str) -> None:
    """A number that no process can have is no process: signals to 0 and below would go to groups of processes."""
    (tmp_path / "pid").write_text(text, "utf-8")
    assert read_pidfile(str(tmp_path / "pid")) is None
