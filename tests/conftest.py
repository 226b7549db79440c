"""Fixtures for the whole suite."""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterator

import hypothesis
import pytest

import certificates
import locks
import serving
import wire

# An example may take as long as it likes: a busy machine has none of them done within Hypothesis's 200 ms for sure.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


locks.guard_all("flask_prodserve")


@pytest.fixture(autouse=True)
def _locks_are_held() -> Iterator[None]:
    """Fail a test during which a method was called without the lock that it is documented to need."""
    yield
    unlocked, locks.unlocked[:] = list(locks.unlocked), []
    assert unlocked == []


@pytest.fixture(scope="session")
def localhost(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pair:
    """A certificate for localhost."""
    return certificates.make(tmp_path_factory.mktemp("localhost"), "localhost", names="DNS:localhost,IP:127.0.0.1")


@pytest.fixture(scope="module", params=["epoll", "portable", "tls"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module three times: with the system's epoll, as on a system that has none, and over TLS, with everything that ``in_thread``
    and ``Wire`` do.

    A module uses it in all tests that have anything to do with these: one that does not would find what the test before it has left.
    """
    if request.param == "epoll" and not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
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
    """Of the servers' URLs."""
    return "https" if way == "tls" else "http"
