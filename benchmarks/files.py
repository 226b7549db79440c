"""The static files of the comparison, which are made where they are missing: too large for the repository, and the same everywhere."""

from __future__ import annotations

import random

from processes import HERE

FOLDER = HERE / "static"
"""Where Flask looks for them, too."""

SIZES = {"10k.css": 10_000, "1m.jpg": 1_000_000}


def make() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(random.Random(name).randbytes(size))  # noqa: S311  # no secret
