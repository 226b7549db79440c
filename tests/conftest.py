"""Fixtures for the whole suite."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest

import certificates
import locks
import serving  # noqa: F401  # loads the engine, whose methods are guarded
from priority import precedence as precedence
from profiles import PROFILE, sized

# Without a deadline: on a busy machine any example may take longer than Hypothesis's 200 ms.
hypothesis.settings.register_profile(PROFILE, deadline=None, max_examples=sized(20, 100, 2000))
hypothesis.settings.load_profile(PROFILE)

locks.guard_all("flask_prodserve")

# A script that starts the tests in the background ignores SIGINT and SIGQUIT for them, and nohup SIGHUP. Servers that the tests start
# would ignore these, too. A handler does not pass to other programs.
for _name in ("SIGHUP", "SIGINT", "SIGQUIT"):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _name == "SIGINT" else lambda number, frame: None)


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
