"""Which limit a client has gone beyond, by phase, to the second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.protocol.deadlines import RATE_SECONDS, Phase, Progress, Waiting, overdue
from flask_prodserve.settings.groups.limits import Timeouts

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


@pytest.mark.parametrize("phase", WHOLE)
def test_boundary_of_a_whole_phase(phase: Phase) -> None:
    """The limit itself is in time, and what is beyond it is not, however recently something was moved."""
    setting, seconds = WHOLE[phase]
    assert overdue(Waiting(phase, 100.0, 100.0), LIMITS, 100.0 + seconds) is None
    assert overdue(Waiting(phase, 100.0, 100.0), LIMITS, 100.001 + seconds) == setting
    assert overdue(Waiting(phase, 100.0, 100.0 + seconds), LIMITS, 100.001 + seconds) == setting


@pytest.mark.parametrize("phase", [*STEPWISE, Phase.FLUSHING])
def test_boundary_of_a_pause(phase: Phase) -> None:
    """The limit of a pause begins with the last byte."""
    setting, seconds, _, _ = STEPWISE.get(phase, STEPWISE[Phase.SENDING])
    assert overdue(Waiting(phase, 100.0, 900.0), LIMITS, 900.0 + seconds) is None
    assert overdue(Waiting(phase, 100.0, 900.0), LIMITS, 900.001 + seconds) == setting


def drive(progress: Progress, count: Callable[[float], int], seconds: float, began: float = 100.0) -> float | None:
    """After how many seconds *progress* is too slow, looked at every half second, if its client has moved *count* bytes by then."""
    passed = 0.0
    while passed < seconds:
        passed += 0.5
        progress.update(count(passed), began + passed)
        if progress.is_too_slow(began + passed):
            return passed
    return None


@pytest.mark.parametrize("pause", [8, 20, 29])
def test_a_client_catches_up_after_a_pause(pause: int) -> None:
    """A pause costs no more than a few seconds' debt, so a client that goes on at three times the least rate is in time."""
    progress = Progress(100.0, 240)

    def count(passed: float) -> int:
        return 10_000 + (0 if passed <= pause else int((passed - pause) * 720))

    assert drive(progress, count, pause + 60) is None


@pytest.mark.parametrize("phase", STEPWISE)
def test_boundary_of_the_rate(phase: Phase) -> None:
    """From its beginning a message has five seconds to reach its least rate; just that rate is enough, and a byte less is not."""
    _, _, setting, rate = STEPWISE[phase]
    assert RATE_SECONDS == 5
    assert drive(Progress(100.0, rate), lambda passed: 0, 60) == 5.5
    assert drive(Progress(100.0, rate), lambda passed: int(rate * passed), 3600) is None
    assert drive(Progress(100.0, rate), lambda passed: int(rate * passed) - 1, 60) == 5.5
    progress = Progress(100.0, rate)
    assert drive(progress, lambda passed: 0, 60) is not None
    assert overdue(Waiting(phase, 100.0, 105.0, progress), LIMITS, 105.5) == setting


def test_almost_everything_at_once() -> None:
    """Who moves almost all at once and then drips is found after ten seconds or a little more, however much it was."""
    found = drive(Progress(100.0, 240), lambda passed: 10**9 + int(2 * passed), 60)
    assert found is not None
    assert 10 < found < 12


@pytest.mark.parametrize("every", [1, 4, 6, 9, 11, 14, 29])
def test_a_byte_now_and_then(every: int) -> None:
    """Whatever the time between two bytes, a drip is found ten seconds after the first of them, or with the next."""
    found = drive(Progress(100.0, 240), lambda passed: 10**6 + int(passed) // every, 600)
    assert found is not None
    assert found <= 2 * RATE_SECONDS + every + 2


@pytest.mark.parametrize("pause", [3, 5, 8, 20, 29])
def test_bursts(pause: int) -> None:
    """A client that comes in bursts, and makes up for each pause when it comes back, is not too slow."""
    burst = 240 * (pause + 6)
    assert drive(Progress(100.0, 240), lambda passed: burst * (1 + int(passed) // pause), 600) is None


def test_a_pause_alone() -> None:
    """A pause after a quick beginning has a timeout of its own, and the rate says nothing of it."""
    assert drive(Progress(100.0, 240), lambda passed: 10_000, 60) is None


def test_what_is_no_body_makes_debt() -> None:
    """Bytes that do not count, such as those around chunks, are a client's doing all the same."""
    progress = Progress(100.0, 240)
    for second in range(1, 14):
        progress.update(10_000, 100.0 + second, 100.0 + second)
    assert progress.is_too_slow(113.0)


def test_the_end_of_a_response_owes_nothing() -> None:
    """What the system has of a response may be a lost packet: a pause at the beginning is no debt, and a drip is."""
    assert drive(Progress(100.0, 240, owes=False), lambda passed: 0, 60) is None
    assert drive(Progress(100.0, 240, owes=False), lambda passed: int(2 * passed), 60) == 11


@pytest.mark.parametrize("phase", STEPWISE)
def test_a_pause_is_named_before_the_rate(phase: Phase) -> None:
    """A client that does nothing has gone beyond the pause that it may make, which says more than its rate."""
    setting, seconds, _, rate = STEPWISE[phase]
    progress = Progress(100.0, rate)
    progress.update(0, 101.0 + seconds)
    assert overdue(Waiting(phase, 100.0, 100.0, progress), LIMITS, 101.0 + seconds) == setting


def test_no_rate() -> None:
    """0 is no least rate."""
    assert drive(Progress(100.0, 0), lambda passed: int(passed) // 20, 3600) is None


STEPS = st.tuples(st.one_of(st.floats(0.1, 0.5), st.floats(0.5, 20)), st.integers(0, 10_000))


@given(st.lists(STEPS, max_size=50))
def test_long_run(steps: list[tuple[float, int]]) -> None:
    """A client that is never too slow has moved the minimum rate, except in pauses and for three times RATE_SECONDS.

    A pause is a time without bytes that is longer than the half second between two updates. Each pause costs the client a
    limited debt, so every pause counts here, not only the longest.
    """
    progress, now, count, last, paused = Progress(0.0, 240), 0.0, 0, 0.0, 0.0
    for seconds, gained in steps:
        now += seconds
        count += gained
        if gained:
            paused += now - last if now - last > 0.5 else 0.0
            last = now
        progress.update(count, now)
        if progress.is_too_slow(now):
            return
    assert count >= 240 * (progress.moved - 3 * RATE_SECONDS - paused) - 1


def test_speed() -> None:
    """The speed is that of the last seconds: of a steady client its rate, of one that has stopped next to nothing."""
    progress = Progress(100.0, 240)
    drive(progress, lambda passed: int(1000 * passed), 20)
    assert progress.speed == pytest.approx(1000, rel=0.01)
    for half in range(1, 61):
        progress.update(progress.bytes, 120.0 + half / 2)
    assert progress.speed < 10


@given(st.sampled_from(sorted(WHOLE, key=str)), starts, times, times)
def test_whole_phases(phase: Phase, began: float, passed: float, quiet: float) -> None:
    """Such a phase is overdue exactly when its time has passed, and nothing else matters."""
    setting, seconds = WHOLE[phase]
    now = began + passed
    waiting = Waiting(phase, began, max(began, now - quiet))
    assert overdue(waiting, LIMITS, now) == (setting if now - began > seconds else None)


@given(st.sampled_from(Phase), starts, times, times, times)
def test_overdue_stays_overdue(phase: Phase, began: float, quiet: float, passed: float, later: float) -> None:
    """Who is too late does not become punctual by doing nothing more."""
    waiting = Waiting(phase, began, began + quiet)
    now = began + quiet + passed
    if overdue(waiting, LIMITS, now) is not None:
        assert overdue(waiting, LIMITS, now + later) is not None
