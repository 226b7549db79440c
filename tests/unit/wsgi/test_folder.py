"""Which files are found below a static folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_prodserve.wsgi.folder import regular_files


def write(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return str(path)


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target, target_is_directory=True)
    except OSError:
        pytest.skip("this account may not make symbolic links")


@pytest.mark.parametrize("around", [".", "a", "a/b"])
def test_links_in_a_circle(tmp_path: Path, around: str) -> None:
    """A folder that contains a link to itself or to a folder around it is listed once."""
    file = write(tmp_path / "a/b/x.css")
    link(tmp_path / "a/b/link", tmp_path / around)
    assert list(regular_files(str(tmp_path))) == [file]


def test_links_that_meet(tmp_path: Path) -> None:
    """A folder that can be reached in two ways is listed under both names, since each is a URL."""
    file = write(tmp_path / "a/x.css")
    link(tmp_path / "b", tmp_path / "a")
    assert list(regular_files(str(tmp_path))) == [file, str(tmp_path / "b/x.css")]


def test_hidden_files(tmp_path: Path) -> None:
    """Dotfiles, what is in dotted folders, and links to nothing are left out."""
    file = write(tmp_path / "x.css")
    write(tmp_path / ".env")
    write(tmp_path / ".git/config")
    link(tmp_path / "broken", tmp_path / "gone")
    assert list(regular_files(str(tmp_path))) == [file]
