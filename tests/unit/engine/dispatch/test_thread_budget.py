"""What counts against THREADS and MAX_STREAMS, from the begin of a request to its end. Without sockets."""

from __future__ import annotations

from typing import cast

from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.dispatch.thread_budget import ThreadBudget


def connection() -> Connection:
    return cast(Connection, object())


def busy(budget: ThreadBudget) -> Connection:
    budget.busy += 1
    return connection()


def counts(budget: ThreadBudget) -> tuple[int, int, int, int]:
    return budget.busy, budget.streams, budget.stuck, budget.most_threads


def test_a_request_holds_its_slot_to_the_end() -> None:
    """A thread whose request has ended still counts as busy: it gives its slot back itself."""
    budget = ThreadBudget(2, max_streams=1)
    channel = busy(budget)
    assert not budget.full
    busy(budget)
    assert budget.full
    assert budget.end(channel, given_up=False)
    assert counts(budget) == (2, 0, 0, 2)


def test_a_stream_gives_its_slot_back_at_once() -> None:
    """A stream counts against MAX_STREAMS once, however often it is moved, and has no slot at its end."""
    budget = ThreadBudget(1, max_streams=2)
    channel = busy(budget)
    assert budget.move_to_streams(channel)
    assert not budget.move_to_streams(channel)
    assert budget.is_stream(channel)
    assert counts(budget) == (0, 1, 0, 2)
    assert not budget.end(channel, given_up=False)
    assert not budget.is_stream(channel)
    assert counts(budget) == (0, 0, 0, 1)
    channel = busy(budget)
    assert budget.end(channel, given_up=False), "the next request of a connection is not a stream yet"


def test_no_more_streams_than_max_streams() -> None:
    """Beyond MAX_STREAMS, streams keep their slots."""
    budget = ThreadBudget(2, max_streams=1)
    first, second = busy(budget), busy(budget)
    assert budget.move_to_streams(first)
    assert not budget.move_to_streams(second)
    assert counts(budget) == (1, 1, 0, 3)


def test_a_stuck_request_gives_its_slot_back() -> None:
    """A request that is given up counts as stuck until its thread comes back, and holds no slot then."""
    budget = ThreadBudget(1, max_streams=1)
    channel = busy(budget)
    budget.give_up(channel)
    assert counts(budget) == (0, 0, 1, 2)
    assert not budget.end(channel, given_up=True)
    assert counts(budget) == (0, 0, 0, 1)


def test_a_stream_that_is_given_up() -> None:
    """A stream that is given up has given its slot back before, and does so once."""
    budget = ThreadBudget(1, max_streams=1)
    channel = busy(budget)
    assert budget.move_to_streams(channel)
    budget.give_up(channel)
    assert counts(budget) == (0, 0, 1, 2)
    assert not budget.end(channel, given_up=True)
    assert counts(budget) == (0, 0, 0, 1)
