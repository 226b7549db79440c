"""The preflight check of an upgrade, as a child of the supervisor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flask_prodserve.process.preflight_check import PreflightCheck, StartCommand

pytestmark = pytest.mark.skipif(not hasattr(os, "waitid"), reason="looks at children without reaping them")


def test_killing_a_check_that_has_just_ended(tmp_path: Path) -> None:
    """Killing a preflight check leaves it to the supervisor to reap it, which would not learn of its end otherwise."""
    check = PreflightCheck(StartCommand(sys.executable, (sys.executable, "-c", "pass"), str(tmp_path), {}), None, 60.0)
    os.waitid(os.P_PID, check.pid, os.WEXITED | os.WNOWAIT)
    check.kill()
    pid, status = os.waitpid(check.pid, 0)
    assert pid == check.pid
    assert check.result(os.waitstatus_to_exitcode(status)) == ""
