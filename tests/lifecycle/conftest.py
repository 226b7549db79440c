"""What a server needs to serve as another account: a Python and a folder that everybody can read."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_prodserve.process.readable import PACKAGES
from programs import missing

SYSTEMS_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def everybodys() -> Iterator[dict[str, str]]:
    """A Python that everybody can run, as arguments of ``serving``. The one that runs the tests may be in somebody's home; then it is the
    system's, with copies of the packages.
    """
    if _nobody_can(sys.executable):
        yield {"python": sys.executable}
        return
    with tempfile.TemporaryDirectory() as place:
        packages = Path(place)
        packages.chmod(0o755)
        for package in (*PACKAGES, "dotenv"):
            found = importlib.util.find_spec(package)
            assert found is not None
            assert found.submodule_search_locations is not None
            shutil.copytree(found.submodule_search_locations[0], packages / package)
        for name in ("flask", "flask_prodserve", "werkzeug"):  # their versions, and the command
            installed = Path(str(importlib.metadata.distribution(name).locate_file("")))
            for metadata in installed.glob(f"{name}-*.dist-info"):
                shutil.copytree(metadata, packages / metadata.name)
        if not _nobody_can(SYSTEMS_PYTHON, PYTHONPATH=str(packages)):
            missing(f"{SYSTEMS_PYTHON} (nobody may run {sys.executable}), or one that is new enough,")
        yield {"python": SYSTEMS_PYTHON, "PYTHONPATH": str(packages)}


def _nobody_can(python: str, **variables: str) -> bool:
    """Whether nobody can serve with *python*."""
    imports = [python, "-c", "import encodings.idna, flask, flask_prodserve.launcher"]
    environ = {**os.environ, **variables}
    try:
        tried = subprocess.run(imports, user="nobody", extra_groups=[], cwd="/", env=environ, capture_output=True)
    except OSError:
        return False
    return tried.returncode == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody can read, which pytest's are not, with a folder in it that nobody can write to."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "uploads").mkdir()
        os.chown(folder / "uploads", nobody.pw_uid, nobody.pw_gid)
        yield folder
