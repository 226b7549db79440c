"""``flask serve compress``: writes compressed variants of static files, once, so that no request
has to compress.

Rules:

- The same files give the same bytes: a variant contains no time and no name. It gets the time and
  the permissions of its file.
- A variant is complete or missing: it is written under a name that is never served, then renamed.
- A variant that is not older than its file is kept. An older one is replaced, or removed if
  compression is not worth it.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..wsgi.folder import regular_files
from ..wsgi.static_file import SUFFIXES, is_variant
from .serve import end_soon, fail, layers_without_app, load

if TYPE_CHECKING:
    from ..apps.main_app import MainApp
    from ..settings import Resolved

COMPRESSED = frozenset(
    [
        ".7z",
        ".avif",
        ".bz2",
        ".docx",
        ".gif",
        ".gz",
        ".jpeg",
        ".jpg",
        ".m4a",
        ".m4v",
        ".mov",
        ".mp3",
        ".mp4",
        ".odt",
        ".ogg",
        ".pdf",
        ".png",
        ".br",
        ".rar",
        ".svgz",
        ".tgz",
        ".webm",
        ".webp",
        ".woff",
        ".woff2",
        ".xlsx",
        ".xz",
        ".zip",
        ".zst",
    ]
)
"""Suffixes of formats that are already compressed. For all others the result shows whether it was
worth it.
"""

WORTH = 0.95
"""A variant larger than this share of its file is not kept: it is not worth a second file and
``Vary``.
"""

Compress = Callable[[bytes], bytes]


@dataclass
class Outcome:
    """What was done with a file: the sizes of its variants by coding, and how many were written and
    removed.
    """

    path: str
    size: int
    sizes: dict[str, int] = field(default_factory=dict)
    written: int = 0
    removed: int = 0


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, file_okay=False))
@pass_script_info
@click.pass_context
def compress(ctx: click.Context, info: ScriptInfo, paths: tuple[str, ...]) -> None:
    """Write .br, .zst and .gz variants of static files. The server sends them to clients that
    accept them.

    Without PATHS, compresses all static folders of the app, its blueprints and the mounted Flask
    apps. With PATHS, compresses the files in those folders, without loading the app. .br needs
    brotli, .zst needs Python 3.14 or zstandard.
    """
    assert ctx.parent is not None
    try:
        folders = list(paths) or _static_folders(*load(info, layers_without_app(ctx.parent.params)))
        compressors = _compressors()
        outcomes = compress_folders(folders, compressors)
    except ProdServeError as error:
        fail(ctx, error)
    except OSError as error:
        fail(
            ctx,
            ProdServeError(
                f"A variant could not be written: {error}.", "Run it as a user who can write to this directory."
            ),
        )
    click.echo(_table(outcomes, list(compressors)))
    missing = [coding for coding in SUFFIXES if coding not in compressors]
    if missing:
        packages = {"br": "brotli", "zstd": "zstandard"}
        click.echo(f"No {' and '.join(missing)}: pip install {' '.join(packages[coding] for coding in missing)}")
    end_soon(0)


def _static_folders(main: MainApp, resolved: Resolved) -> list[str]:
    from ..apps.main_app import served_apps

    owners = [
        owner
        for one in served_apps(main.flask, resolved.settings.wsgi.mounts)
        for owner in (one, *one.blueprints.values())
    ]
    return list(dict.fromkeys(owner.static_folder for owner in owners if owner.static_folder is not None))


def _compressors() -> dict[str, Compress]:
    """Return the installed compressors by coding, each at its highest level, because files are
    compressed once.
    """
    compressors: dict[str, Compress] = {}
    with contextlib.suppress(ImportError):
        compressors["br"] = import_module("brotli").compress  # 11 of 11 by default
    try:
        zstd = import_module("compression.zstd")
        compressors["zstd"] = lambda data: zstd.compress(data, level=19)
    except ImportError:
        with contextlib.suppress(ImportError):
            zstandard = import_module("zstandard")
            compressors["zstd"] = lambda data: zstandard.ZstdCompressor(level=19).compress(data)
    compressors["gzip"] = lambda data: gzip.compress(data, 9, mtime=0)
    return compressors


def compress_folders(folders: Iterable[str], compressors: dict[str, Compress]) -> list[Outcome]:
    """Update the variants of all files in *folders*. Raises OSError."""
    with ThreadPoolExecutor() as pool:  # compressors release the GIL
        pending = [
            pool.submit(_compress_file, path, found, compressors)
            for found in map(regular_files, folders)
            for path in found
            if os.path.splitext(path)[1].lower() not in COMPRESSED and not is_variant(path, found)
        ]
        return [outcome.result() for outcome in pending]


def _compress_file(path: str, found: dict[str, os.stat_result], compressors: dict[str, Compress]) -> Outcome:
    own = found[path]
    outcome = Outcome(path, own.st_size)
    content: bytes | None = None
    for coding, suffix in SUFFIXES.items():
        before = found.get(path + suffix)
        if before is not None and before.st_mtime_ns >= own.st_mtime_ns:
            outcome.sizes[coding] = before.st_size
            continue
        if coding in compressors:
            if content is None:
                with open(path, "rb") as file:
                    content = file.read()
            variant = compressors[coding](content)
            if len(variant) <= WORTH * own.st_size:
                _write(path + suffix, variant, own)
                outcome.sizes[coding] = len(variant)
                outcome.written += 1
                continue
        if before is not None:
            os.remove(path + suffix)
            outcome.removed += 1
    return outcome


def _write(path: str, content: bytes, own: os.stat_result) -> None:
    folder, name = os.path.split(path)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            os.chmod(file.name, stat.S_IMODE(own.st_mode))
            # The time at which the file was read. If it has changed since, this variant is older
            # and not served.
            os.utime(file.name, ns=(own.st_atime_ns, own.st_mtime_ns))
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.remove(file.name)
            raise


def _table(outcomes: list[Outcome], codings: list[str]) -> str:
    """Return a table of the files that have variants, and a summary."""
    rows = [["file", "bytes", *codings]]
    for outcome in outcomes:
        if outcome.sizes:
            sizes = [outcome.sizes.get(coding) for coding in codings]
            path = os.path.relpath(outcome.path)
            rows.append([path, f"{outcome.size:,}", *("-" if size is None else f"{size:,}" for size in sizes)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    written, removed = sum(outcome.written for outcome in outcomes), sum(outcome.removed for outcome in outcomes)
    summary = f"{len(outcomes)} files checked, {written} variants written, {removed} stale variants removed"
    return "\n".join([*(lines if len(rows) > 1 else []), summary])
