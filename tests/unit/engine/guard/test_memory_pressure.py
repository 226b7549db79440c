"""Which clients are cut to make room in the spool."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flask_prodserve.engine.guard.memory_pressure import SUPPOSED_SPEED, Holder, to_cut


def holder(name: str, kept: int, speed: float | None) -> Holder:
    return Holder(cast(Any, name), kept, speed)


SLOW = holder("slow", 1000, 10.0)
"""100 seconds."""
LARGE = holder("large", 50_000, 1000.0)
"""50 seconds."""
SMALL = holder("small", 20, 10.0)
"""2 seconds."""
STOPPED = holder("stopped", 30, 0.0)
"""30 seconds: a speed is taken as a byte a second at least."""
UNKNOWN = holder("unknown", 10 * SUPPOSED_SPEED, None)
"""10 seconds."""
ALL = [SMALL, UNKNOWN, STOPPED, LARGE, SLOW]


@pytest.mark.parametrize(
    ("excess", "full", "chosen"),
    [
        (0, True, []),
        (1, False, ["slow"]),
        (1000, False, ["slow"]),
        (1001, False, ["slow", "large"]),
        (10**9, False, ["slow", "large", "stopped", "small"]),
        (10**9, True, ["slow", "large", "stopped", "unknown", "small"]),
    ],
)
def test_choice(excess: int, full: bool, chosen: list[str]) -> None:
    """Those that would hold their bytes longest go first; unknown speeds count if it is full."""
    assert cast(Any, to_cut(ALL, excess, full=full)) == chosen
