"""Precedence over everything else on the machine, for tests that measure."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

NICE = -15


@pytest.fixture
def precedence() -> Iterator[None]:
    """Run the test, and the programs and threads that it starts, before others, if this user may do that (root)."""
    if not hasattr(os, "setpriority"):
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)
