"""How long queued requests may wait, which slow readers are reset, and what the log says of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flask_prodserve.engine.guard.shedding import (
    STANDING_SHARE,
    Stream,
    describe_load,
    share_of_timeout,
    to_reset,
)


@pytest.mark.parametrize("behind", [0, 3, 4, 100])
def test_a_queue_that_was_empty(behind: int) -> None:
    """While the queue does not stand, every request may wait for all of its timeout."""
    assert share_of_timeout(standing=False, behind=behind, threads=4) == 1.0


@pytest.mark.parametrize(("behind", "share"), [(0, 1.0), (3, 1.0), (4, STANDING_SHARE), (100, STANDING_SHARE)])
def test_standing_queue(behind: int, share: float) -> None:
    """In a standing queue, the last requests keep all of their timeout, one for each thread."""
    assert share_of_timeout(standing=True, behind=behind, threads=4) == share


def stream(name: str, speed: float = 0.0, *, lent: bool = False, holds_thread: bool = True) -> Stream:
    return Stream(cast(Any, name), lent, holds_thread, speed)


@pytest.mark.parametrize(
    ("streams", "waiting", "chosen"),
    [
        ([], 5, []),
        ([stream("a", 9), stream("b", 1), stream("c", 5)], 2, ["b", "c"]),
        ([stream("a", 9), stream("b", 1)], 5, ["b", "a"]),
        ([stream("a", 9), stream("b", 1)], 0, []),
        ([stream("a", 9), stream("b", 1, holds_thread=False)], 2, ["a"]),
        ([stream("a", lent=True)], 2, []),
        ([stream("a", 9), stream("b", 1, lent=True)], 2, ["b"]),
    ],
)
def test_readers_to_reset(streams: list[Stream], waiting: int, chosen: list[str]) -> None:
    """The slowest that hold threads go, one for each waiting request and stream over MAX_STREAMS."""
    assert cast(Any, to_reset(streams, waiting)) == chosen


def test_running_requests_in_the_log() -> None:
    """The kinds that run most often come first, with their oldest request, escaped for the log."""
    line = describe_load([0.5, 2.94], {"GET /\xe9": [2.0], "GET /slow": [1.0, 31.04]}, threads=3, not_empty=4.2, shed=7)
    assert line == (
        "2 requests are waiting for one of 3 threads, the longest for 2.9s. The queue has not been empty for 4.2s; "
        "QUEUE_TIMEOUT has rejected 7 requests. Running: 2 x GET /slow (oldest 31.0s), 1 x GET /\\xe9 (oldest 2.0s). "
        "Make these faster, limit them with limits(max_concurrency=), or raise THREADS"
    )


def test_no_running_request_in_the_log() -> None:
    """If no request is found to run, the log advises on CPU time."""
    line = describe_load([3.0], {}, threads=3, not_empty=3.0, shed=0)
    assert line.startswith("1 request is waiting for one of 3 threads, the longest for 3.0s.")
    assert line.endswith("they wait for CPU time. Make views compute less, or raise WORKERS")
