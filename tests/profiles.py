"""How much the tests do. The variable TEST_PROFILE is read here and nowhere else:

- ``quick``: few random cases, no repeats on other event loops or over TLS; for work on the code.
- ``full``: what must pass before a change lands. It is the default.
- ``nightly``: many random cases, long attacks and soaks, and all tests of servers on all loops.

A profile changes counts and durations, never an expectation.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

PROFILE = os.environ.get("TEST_PROFILE", "full")
assert PROFILE in ("quick", "full", "nightly"), f"TEST_PROFILE is {PROFILE!r}: take quick, full or nightly"


def sized(quick: T, full: T, nightly: T) -> T:
    """Return the value for the current profile."""
    return {"quick": quick, "full": full, "nightly": nightly}[PROFILE]
