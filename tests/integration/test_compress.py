"""`flask serve compress`: the variants that it writes, keeps, replaces and removes, and what it says of them."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from pathlib import Path

import brotli
import pytest
import zstandard

from serving import environment, flask

OLD = 1_600_000_000

APP = """
from flask import Blueprint, Flask
app = Flask(__name__)
shop = Blueprint("shop", __name__, static_folder="of_shop", url_prefix="/shop")
app.register_blueprint(shop)
"""

TEXT = b"body { color: black }\n" * 500

UNPACK = {
    ".br": brotli.decompress,
    ".gz": gzip.decompress,
    ".zst": lambda data: zstandard.ZstdDecompressor().decompress(data),
}


def write(path: Path, content: bytes, modified: int = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (modified, modified))
    return path


def compress(folder: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        flask("--app", "shopping", "serve", "compress", *arguments),
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shopping.py").write_text(APP)
    write(tmp_path / "static/css/a.css", TEXT)
    write(tmp_path / "of_shop/b.css", TEXT * 2)
    return tmp_path


def contents(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for root in ("static", "of_shop")
        for path in (folder / root).rglob("*")
        if path.is_file()
    }


def test_variants(folder: Path) -> None:
    """The files of the app and of its blueprints get variants that hold the same, with the file's own time and permissions."""
    os.chmod(folder / "static/css/a.css", 0o640)
    said = compress(folder)
    found = contents(folder)
    assert len(found) == 2 + 2 * len(UNPACK)
    for name in ("static/css/a.css", "of_shop/b.css"):
        for suffix, unpack in UNPACK.items():
            packed, *rest = found[name + suffix]
            original, *of_original = found[name]
            assert unpack(packed) == original
            assert rest == of_original
            assert f"{len(packed):,}" in next(line for line in said.splitlines() if line.startswith(name))
    assert "6 variants written" in said


def test_again(folder: Path) -> None:
    """A second run changes nothing, and a run elsewhere gives the same bytes."""
    compress(folder)
    first = contents(folder)
    assert "0 variants written" in compress(folder)
    assert contents(folder) == first
    for path in list(folder.rglob("*.br")) + list(folder.rglob("*.gz")) + list(folder.rglob("*.zst")):
        path.unlink()
    compress(folder)
    assert contents(folder) == first


def test_stale_variants(folder: Path) -> None:
    """Variants that are older than their file are replaced, or removed where none is worth having."""
    write(folder / "static/css/a.css.gz", b"stale", OLD - 5)
    tiny = write(folder / "static/tiny.css", b"a{}")
    write(folder / "static/tiny.css.br", b"stale", OLD - 5)
    said = compress(folder)
    assert gzip.decompress((folder / "static/css/a.css.gz").read_bytes()) == TEXT
    assert sorted(path.name for path in tiny.parent.glob("tiny*")) == ["tiny.css"]
    assert "1 stale variants removed" in said


def test_what_is_left_alone(folder: Path) -> None:
    """Files that are compressed already or do not get smaller, dotfiles, and variants of any other make have none written."""
    for name, content in {
        "static/photo.JPG": TEXT,
        "static/random.bin": random.Random(1).randbytes(5000),
        "static/.dotfile": TEXT,
        "static/css/a.css.gz": b"made by the bundler",
        "static/empty.css": b"",
    }.items():
        write(folder / name, content, OLD + 5)
    before = set(contents(folder))
    compress(folder)
    made = set(contents(folder)) - before
    assert {name.rpartition(".")[0] for name in made} == {"static/css/a.css", "of_shop/b.css"}
    assert (folder / "static/css/a.css.gz").read_bytes() == b"made by the bundler"


def test_folders(folder: Path) -> None:
    """With folders named, those alone are compressed, and the app is not loaded."""
    (folder / "shopping.py").write_text("raise RuntimeError('loaded')")
    compress(folder, "static")
    assert list((folder / "static").rglob("*.gz"))
    assert not list((folder / "of_shop").rglob("*.gz"))


def test_folder_that_cannot_be_written(folder: Path) -> None:
    """Where a variant cannot be written nothing of it is left, and the command says so and ends with 1."""
    (folder / "static/css/a.css.gz").mkdir()
    done = subprocess.run(
        flask("--app", "shopping", "serve", "compress", "static"), cwd=folder, env=environment(), capture_output=True
    )
    assert done.returncode == 1
    assert b"could not be written" in done.stderr
    assert {path.name for path in (folder / "static/css").iterdir()} - {"a.css.br", "a.css.zst"} == {
        "a.css",
        "a.css.gz",
    }


def test_mounted_apps(folder: Path) -> None:
    """The files of Flask apps that are mounted beside the app are compressed as well."""
    (folder / "other.py").write_text("from flask import Flask\napp = Flask(__name__, static_folder='of_other')\n")
    write(folder / "of_other/c.css", TEXT)
    compress(folder, PRODSERVE_MOUNTS="/other=other:app")
    assert (folder / "of_other/c.css.gz").exists()
    assert (folder / "static/css/a.css.gz").exists()
