"""Who can change what is at a path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_prodserve.net.root_only import account_name, open_to_others

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give files away"
)

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root's in one with the sticky bit."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "inner").mkdir(0o755)
        (Path(name) / "inner/file").write_text("root's")
        yield Path(name).resolve()


def test_root_only(folder: Path) -> None:
    """A file of root's in folders of root's is root's alone, although everybody can write to /tmp above them."""
    assert open_to_others(str(folder / "inner/file")) is None
    assert open_to_others(str(folder / "inner")) is None


@pytest.mark.parametrize("part", ["", "inner", "inner/file"])
def test_part_of_another_account(folder: Path, part: str) -> None:
    """Whoever owns the file, its folder, or one above that can change what is there."""
    os.chown(folder / part, NOBODY, NOBODY)
    assert open_to_others(str(folder / "inner/file")) == f"{folder / part} belongs to {account_name(NOBODY)}"


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("part", ["inner", "inner/file"])
def test_part_that_others_can_write(folder: Path, part: str, mode: int) -> None:
    """So can a group and everybody, where they may write."""
    (folder / part).chmod(mode)
    assert f"{folder / part} is writable by others" in str(open_to_others(str(folder / "inner/file")))


def test_links(folder: Path) -> None:
    """A link counts with both the place where it stands and the one that it leads to."""
    (folder / "link").symlink_to(folder / "inner/file")
    assert open_to_others(str(folder / "link")) is None
    os.chown(folder / "link", NOBODY, NOBODY, follow_symlinks=False)
    assert "link belongs to" in str(open_to_others(str(folder / "link")))
    os.chown(folder / "link", 0, 0, follow_symlinks=False)
    os.chown(folder / "inner", NOBODY, NOBODY)
    assert "inner belongs to" in str(open_to_others(str(folder / "link")))


def test_what_is_not_there(folder: Path) -> None:
    """A path that cannot be examined is not trusted, and an account without a name has its number."""
    assert "No such file" in str(open_to_others(str(folder / "missing")))
    assert account_name(54321) == "user 54321"
