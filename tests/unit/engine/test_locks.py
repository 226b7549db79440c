"""The check that methods are called with the lock that they are documented to need."""

from __future__ import annotations

import threading

import locks


def test_a_call_without_the_lock_is_noticed() -> None:
    """Only calls of documented methods are recorded, and only without the lock."""

    class Owner:
        def __init__(self) -> None:
            self._lock = threading.Lock()

        def documented(self, number: int) -> int:
            """Add one. Under ``_lock``, in any thread."""
            return number + 1

        def other(self) -> None:
            """Do nothing."""

    assert locks.guard(Owner) == ["Owner.documented"]
    owner = Owner()
    owner.other()
    with owner._lock:
        assert owner.documented(1) == 2
    assert locks.unlocked == []
    assert owner.documented(1) == 2
    assert len(locks.unlocked) == 1
    assert "Owner.documented was called without _lock" in locks.unlocked.pop()


def test_both_loops_are_checked() -> None:
    """The methods that change slots and streams, which both loops share, are among those that are checked."""
    assert {"Dispatcher"} <= {name.partition(".")[0] for name in locks.guarded}
