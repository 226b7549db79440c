"""The trial start before an upgrade, as the supervisor's child."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flask_prodserve.process.rehearsal import Command, Rehearsal

pytestmark = pytest.mark.skipif(not hasattr(os, "waitid"), reason="looks at children without reaping them")


def test_ending_one_that_has_just_ended(tmp_path: Path) -> None:
    """Ending a trial start leaves it to the supervisor to reap it, which would not hear of its end otherwise."""
    rehearsal = Rehearsal(Command(sys.executable, (sys.executable, "-c", "pass"), str(tmp_path), {}), None, 60.0)
    os.waitid(os.P_PID, rehearsal.pid, os.WEXITED | os.WNOWAIT)
    rehearsal.kill()
    pid, status = os.waitpid(rehearsal.pid, 0)
    assert pid == rehearsal.pid
    assert rehearsal.result(os.waitstatus_to_exitcode(status)) == ""
