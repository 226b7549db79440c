"""Fixtures for the whole suite."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            "epoll", marks=pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
        ),
        "portable",
    ],
)
def loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module twice: with the system's epoll, and as on a system that has none."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "portable":
            patch.delattr(select, "epoll", raising=False)
        yield request.param
