"""The ways to run a server: with the event loop of this system, with the portable one, and over TLS."""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterator

import pytest

import serving
import wire
from profiles import sized

LOOPS = ["epoll", "portable"] if hasattr(select, "epoll") else ["portable"]
"""The event loops, this system's own first."""

WAYS = [*LOOPS, "tls"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of a server on the system's own loop, and elsewhere if it is marked so.

    ``every_way`` marks what depends on transport, loop or deadlines. The nightly profile takes every test for
    marked. ``own_tls`` marks tests that set TLS up themselves.
    """
    if "way" in metafunc.fixturenames:
        node = metafunc.definition
        own_tls = node.get_closest_marker("own_tls") is not None
        marked = sized(False, node.get_closest_marker("every_way") is not None, True)
        ways = (LOOPS if own_tls else WAYS) if marked else LOOPS[:1]
        metafunc.parametrize("way", ways, indirect=True, scope="module")


@pytest.fixture(scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set up one of ``WAYS`` for all that ``in_thread`` and ``Wire`` do.

    A module that uses it does so in all tests of servers: one without it would find what the test before it
    has set up.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "portable":
            patch.delattr(select, "epoll", raising=False)
        elif request.param == "tls":
            pair = request.getfixturevalue("localhost")
            for name, value in pair.settings.items():
                patch.setitem(serving.DEFAULTS, name, value)
            patch.setattr(wire, "TLS", ssl.create_default_context(cafile=pair.cert))
        yield request.param


@pytest.fixture(scope="module")
def scheme(way: str) -> str:
    """Return the scheme of the servers' URLs."""
    return "https" if way == "tls" else "http"
