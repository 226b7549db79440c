"""A worker and its supervisor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flask_prodserve.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")


@pytest.mark.parametrize(
    ("supervisor", "code"),
    [("os.getppid()", 0), ("os.getpid()", int(ExitCode.BOOT))],
    ids=["alive", "dead"],
)
def test_supervisor_that_died_before(supervisor: str, code: int) -> None:
    """A worker whose supervisor had died before it asked to die with it ends at once."""
    program = f"import os; from flask_prodserve.process.worker import die_with; die_with({supervisor})"
    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == code
