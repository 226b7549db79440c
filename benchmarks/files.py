"""The files of the comparison, which are made where they are missing: static ones, too large for the repository and the same everywhere; a
certificate.
"""

from __future__ import annotations

import random
import subprocess

from processes import HERE

FOLDER = HERE / "static"
"""Where Flask looks for them, too."""

CERTIFICATE = HERE / "tls/cert.pem"
_MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost"
)

SIZES = {"10k.css": 10_000, "1m.jpg": 1_000_000}


def make() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(random.Random(name).randbytes(size))  # noqa: S311  # no secret
    CERTIFICATE.parent.mkdir(exist_ok=True)
    if not CERTIFICATE.exists():
        command = [*_MAKE_CERTIFICATE.split(), "-keyout", "key.pem", "-out", CERTIFICATE.name]
        subprocess.run(command, cwd=CERTIFICATE.parent, check=True, capture_output=True)  # noqa: S603  # as it stands above
