"""What is due for a request, by how long it has been running."""

from __future__ import annotations

from typing import Any

import pytest

from flask_prodserve.engine.guard.request_deadlines import STREAM_SECONDS, Action, due_action

QUIET: dict[str, Any] = {"streaming": None, "begun": False, "timeout": 60.0, "slow_request": 2.0, "logged": False}


@pytest.mark.parametrize(
    ("age", "changes", "action"),
    [
        (2.0, {}, None),
        (2.1, {}, Action.LOG),
        (2.1, {"logged": True}, None),
        (2.1, {"slow_request": 0.0}, None),
        (60.0, {"logged": True}, None),
        (60.1, {}, Action.GIVE_UP),
        (60.1, {"logged": True}, Action.GIVE_UP),
        (0.1, {"timeout": 0.0}, None),
        (1e6, {"timeout": 0.0, "slow_request": 0.0}, None),
        (1e6, {"begun": True}, None),
    ],
)
def test_without_a_stream(age: float, changes: dict[str, Any], action: Action | None) -> None:
    """A limit itself is in time; 0 is no limit; a response that has begun has none."""
    assert due_action(age, **{**QUIET, **changes}) is action


@pytest.mark.parametrize("begun", [False, True])
def test_stream(begun: bool) -> None:
    """Only the time since the app began to send makes a stream, and a stream is never given up."""
    changes = {**QUIET, "begun": begun}
    assert due_action(1e6, **{**changes, "streaming": STREAM_SECONDS}) is None
    assert due_action(1e6, **{**changes, "streaming": STREAM_SECONDS + 0.1}) is Action.MOVE_TO_STREAM_BUDGET
