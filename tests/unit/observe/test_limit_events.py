"""Counting what is cut: every one in the counts, one line a minute in the log."""

from __future__ import annotations

import logging
import threading

import pytest

from flask_prodserve.observe.limit_events import LimitEvents

WHAT = "connections are closed"


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit_events(clock: Clock) -> LimitEvents:
    return LimitEvents(clock)


def test_the_first_is_logged_at_once(limit_events: LimitEvents, caplog: pytest.LogCaptureFixture) -> None:
    """A line names the reason and what happens, as a warning unless another level is asked for."""
    limit_events.count("HEADER_TIMEOUT", WHAT)
    (record,) = caplog.records
    assert record.getMessage() == "HEADER_TIMEOUT: connections are closed"
    assert (record.name, record.levelno) == ("flask_prodserve.limits", logging.WARNING)
    limit_events.count("disk", WHAT, logging.ERROR)
    assert caplog.records[1].levelno == logging.ERROR


def test_once_a_minute(limit_events: LimitEvents, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """For a minute nothing more is said of a reason; the next line says how many were not mentioned, itself not among them."""
    for _ in range(10):
        limit_events.count("A", WHAT)
        clock.now += 5.9
    assert len(caplog.records) == 1
    clock.now += 1.1
    limit_events.count("A", WHAT)
    assert [record.getMessage() for record in caplog.records] == [
        "A: connections are closed",
        "A: connections are closed (9 more since the last such line)",
    ]
    clock.now += 60
    limit_events.count("A", WHAT)
    assert caplog.records[2].getMessage() == "A: connections are closed"
    assert limit_events.counts == {"A": 12}


def test_to_the_second(limit_events: LimitEvents, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A minute is 60 seconds."""
    limit_events.count("A", WHAT)
    clock.now += 59.9
    limit_events.count("A", WHAT)
    assert len(caplog.records) == 1
    clock.now += 0.1
    limit_events.count("A", WHAT)
    assert len(caplog.records) == 2


def test_reasons_do_not_silence_each_other(limit_events: LimitEvents, caplog: pytest.LogCaptureFixture) -> None:
    """Each reason has a minute and a count of its own."""
    for reason in "ABCAABBC":
        limit_events.count(reason, WHAT)
    assert [record.getMessage()[0] for record in caplog.records] == ["A", "B", "C"]
    assert limit_events.counts == {"A": 3, "B": 3, "C": 2}


def test_text_with_percent_signs(limit_events: LimitEvents, caplog: pytest.LogCaptureFixture) -> None:
    """What is said is text, and no format."""
    limit_events.count("A", "100 %s %d %")
    assert caplog.records[0].getMessage() == "A: 100 %s %d %"


def test_many_threads(limit_events: LimitEvents, caplog: pytest.LogCaptureFixture) -> None:
    """Counts from many threads are all there, and the log has one line."""
    start = threading.Barrier(8)

    def count() -> None:
        start.wait()
        for _ in range(2000):
            limit_events.count("A", WHAT)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit_events.counts == {"A": 16_000}
    assert len(caplog.records) == 1
