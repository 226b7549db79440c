"""Checks that methods which are documented as "Under ``_lock``" are called with that lock held."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

_UNDER = re.compile(r"\bUnder ``(\w+)``")

unlocked: list[str] = []
"""The calls so far that came without the lock. They are recorded, since an exception in a service thread would only be logged."""

guarded: list[str] = []
"""The methods that are checked in all tests."""


def guard_all(package: str) -> None:
    """Check the methods of all classes in the modules of *package* that are loaded."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}."):
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    guarded.extend(guard(value))


def guard(owner: type) -> list[str]:
    """Check all later calls of the methods of *owner* that are documented so. Returns their names."""
    checked = []
    for name, method in list(vars(owner).items()):
        found = _UNDER.search(method.__doc__ or "") if isinstance(method, FunctionType) else None
        if found is not None:
            setattr(owner, name, _checked(method, found[1]))
            checked.append(f"{owner.__name__}.{name}")
    return checked


def _checked(method: Callable[..., Any], lock: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        if not getattr(self, lock).locked():
            unlocked.append(f"{method.__qualname__} was called without {lock}")
        return method(self, *arguments, **named)

    return checked
