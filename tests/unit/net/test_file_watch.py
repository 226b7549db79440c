"""Whether files are others than before: told once, and only when nobody is still writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_prodserve.net.file_watch import FileWatch


def write(path: Path) -> None:
    path.write_text("longer than before")


def replace(path: Path) -> None:
    """By another file of the same size and time."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(path.read_bytes())
    found = path.stat()
    os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))
    fresh.replace(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 1))


@pytest.mark.parametrize("change", [write, replace, touch, Path.unlink])
def test_changes(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A change of any of the files is told in the second look after it, and not again."""
    paths = [tmp_path / name for name in ("one", "other")]
    for path in paths:
        path.write_text(path.name)
    watch = FileWatch([str(path) for path in paths])
    assert [watch.changed() for _ in range(3)] == [False] * 3
    change(paths[1])
    assert [watch.changed() for _ in range(4)] == [False, True, False, False]


def test_changes_that_go_on(tmp_path: Path) -> None:
    """As long as something changes from look to look, it is waited for; what is as before is no change."""
    path = tmp_path / "file"
    path.write_text("")
    os.utime(path, ns=(0, 0))
    watch = FileWatch([str(path)])
    for time in (1, 2, 3):
        os.utime(path, ns=(0, time))
        assert not watch.changed()
    assert watch.changed()
    os.utime(path, ns=(0, 4))
    assert not watch.changed()
    os.utime(path, ns=(0, 3))
    assert [watch.changed() for _ in range(3)] == [False] * 3


def test_accepted_changes(tmp_path: Path) -> None:
    """What somebody has taken note of is known."""
    path = tmp_path / "file"
    watch = FileWatch([str(path)])
    path.write_text("new")
    watch.accept()
    assert [watch.changed() for _ in range(3)] == [False] * 3
