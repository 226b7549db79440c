"""Deadlines on a clock that the test turns."""

from __future__ import annotations

from flask_prodserve.clock import Deadline


def test_deadline() -> None:
    """A deadline counts down, never below zero, and passes at its point in time."""
    now = 100.0
    deadline = Deadline(2.5, clock=lambda: now)
    assert (deadline.remaining(), deadline.passed()) == (2.5, False)
    now = 102.0
    assert (deadline.remaining(), deadline.passed()) == (0.5, False)
    now = 102.5
    assert (deadline.remaining(), deadline.passed()) == (0.0, True)
    now = 110.0
    assert (deadline.remaining(), deadline.passed()) == (0.0, True)
