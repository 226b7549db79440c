"""Which limit a client has gone beyond, by phase, to the second."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.protocol.deadlines import RATE_SECONDS, Phase, Waiting, overdue
from flask_prodserve.settings.table import Timeouts

LIMITS = Timeouts(
    header_timeout=15.0,
    body_timeout=30.0,
    min_body_rate=240,
    send_timeout=40.0,
    min_send_rate=100,
    keepalive_timeout=75.0,
)
NO_RATES = dataclasses.replace(LIMITS, min_body_rate=0, min_send_rate=0)

WHOLE = {
    Phase.CONNECTED: ("HEADER_TIMEOUT", LIMITS.header_timeout),
    Phase.HEAD: ("HEADER_TIMEOUT", LIMITS.header_timeout),
    Phase.IDLE: ("KEEPALIVE_TIMEOUT", LIMITS.keepalive_timeout),
}
"""Phases that end after a time, whatever the client does."""

STEPWISE = {
    Phase.BODY: ("BODY_TIMEOUT", LIMITS.body_timeout, "MIN_BODY_RATE", LIMITS.min_body_rate),
    Phase.SENDING: ("SEND_TIMEOUT", LIMITS.send_timeout, "MIN_SEND_RATE", LIMITS.min_send_rate),
}
"""Phases that go on for as long as the client does."""

times = st.floats(min_value=0, max_value=10_000)
starts = st.integers(min_value=0, max_value=10**7).map(float)


def test_every_phase_has_a_limit() -> None:
    """No phase is without a limit."""
    assert {*WHOLE, *STEPWISE, Phase.FLUSHING} == set(Phase)


def test_the_end_of_a_response_has_no_rate() -> None:
    """What the system has of a response, and the client has not acknowledged, may be a lost packet: a pause is all that counts."""
    assert overdue(Waiting(Phase.FLUSHING, 100.0, 900.0, 1), LIMITS, 940.0) is None
    assert overdue(Waiting(Phase.FLUSHING, 100.0, 900.0, 1), LIMITS, 940.001) == "SEND_TIMEOUT"


@pytest.mark.parametrize("phase", WHOLE)
def test_boundary_of_a_whole_phase(phase: Phase) -> None:
    """The limit itself is in time, and what is beyond it is not, however much was moved and however recently."""
    setting, seconds = WHOLE[phase]
    assert overdue(Waiting(phase, 100.0, 100.0, 0), LIMITS, 100.0 + seconds) is None
    assert overdue(Waiting(phase, 100.0, 100.0, 0), LIMITS, 100.001 + seconds) == setting
    assert overdue(Waiting(phase, 100.0, 100.0 + seconds, 10**9), LIMITS, 100.001 + seconds) == setting


@pytest.mark.parametrize("phase", STEPWISE)
def test_boundary_of_a_pause(phase: Phase) -> None:
    """The limit of a pause begins with the last byte, and what was fast on average may not pause for longer either."""
    setting, seconds, _, _ = STEPWISE[phase]
    plenty = 10**9
    assert overdue(Waiting(phase, 100.0, 900.0, plenty), LIMITS, 900.0 + seconds) is None
    assert overdue(Waiting(phase, 100.0, 900.0, plenty), LIMITS, 900.001 + seconds) == setting


@pytest.mark.parametrize("phase", STEPWISE)
def test_boundary_of_the_rate(phase: Phase) -> None:
    """The average rate is looked at after five seconds; just the least rate is enough, and a byte less is not."""
    _, _, setting, rate = STEPWISE[phase]
    assert RATE_SECONDS == 5
    assert overdue(Waiting(phase, 100.0, 100.0, 0), LIMITS, 105.0) is None
    assert overdue(Waiting(phase, 100.0, 105.0, 0), LIMITS, 105.001) == setting
    assert overdue(Waiting(phase, 100.0, 110.0, 10 * rate), LIMITS, 110.0) is None
    assert overdue(Waiting(phase, 100.0, 110.0, 10 * rate - 1), LIMITS, 110.0) == setting


@pytest.mark.parametrize("phase", STEPWISE)
def test_a_pause_is_named_before_the_rate(phase: Phase) -> None:
    """A client that does nothing has gone beyond the pause that it may make, which says more than its rate."""
    setting, seconds, _, _ = STEPWISE[phase]
    assert overdue(Waiting(phase, 100.0, 100.0, 0), LIMITS, 101.0 + seconds) == setting


@pytest.mark.parametrize("phase", STEPWISE)
def test_no_rate(phase: Phase) -> None:
    """0 is no least rate."""
    _, seconds, _, _ = STEPWISE[phase]
    assert overdue(Waiting(phase, 0.0, 5000.0, 1), NO_RATES, 5000.0 + seconds) is None


@given(st.sampled_from(sorted(WHOLE, key=str)), starts, times, times, st.integers(min_value=0, max_value=10**12))
def test_whole_phases(phase: Phase, began: float, passed: float, quiet: float, count: int) -> None:
    """Such a phase is overdue exactly when its time has passed, and nothing else matters."""
    setting, seconds = WHOLE[phase]
    now = began + passed
    waiting = Waiting(phase, began, max(began, now - quiet), count)
    assert overdue(waiting, LIMITS, now) == (setting if now - began > seconds else None)


@given(st.sampled_from(sorted(STEPWISE, key=str)), starts, times, times, st.integers(min_value=0, max_value=10**7))
def test_stepwise_phases(phase: Phase, began: float, passed: float, quiet: float, count: int) -> None:
    """Never overdue while the last byte is recent and the average good, or the phase young; always otherwise."""
    pause_setting, pause, rate_setting, rate = STEPWISE[phase]
    now = began + passed
    moved = max(began, now - quiet)
    found = overdue(Waiting(phase, began, moved, count), LIMITS, now)
    if now - moved > pause:
        assert found == pause_setting
    elif now - began > 5 and count < rate * (now - began) * (1 - 1e-9):
        assert found == rate_setting
    elif now - began <= 5 or count > rate * (now - began) * (1 + 1e-9):
        assert found is None


@given(st.sampled_from(Phase), starts, times, times, times)
def test_overdue_stays_overdue(phase: Phase, began: float, quiet: float, passed: float, later: float) -> None:
    """Who is too late does not become punctual by doing nothing more."""
    waiting = Waiting(phase, began, began + quiet, 0)
    now = began + quiet + passed
    if overdue(waiting, LIMITS, now) is not None:
        assert overdue(waiting, LIMITS, now + later) is not None


@given(starts, times, st.integers(min_value=0, max_value=10**9))
def test_rate(began: float, passed: float, count: int) -> None:
    """Bytes divided by seconds; in the first moment a large number, and not an error."""
    now = began + passed
    rate = Waiting(Phase.BODY, began, now, count).rate(now)
    assert rate == pytest.approx(count / max(now - began, 0.001))
