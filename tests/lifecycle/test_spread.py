"""How the load is spread over workers. How even it is depends on no clock: it is counted."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from load import Load
from server import Server, serving, supervised

pytestmark = supervised

CLIENTS = 64
UNEVEN = 0.2
"""How far from its even share a worker may be."""


def _check_even(server: Server, load: Load) -> None:
    workers = server.workers
    assert len(workers) == 2
    # Each client is with the worker that it was answered by last.
    clients = Counter(answer.pid for answer in load.last.values())
    share = CLIENTS / len(workers)
    assert clients.keys() == workers
    assert all(abs(count - share) <= UNEVEN * share for count in clients.values()), clients
    before = Counter(load.answered)
    load.wait_for(600)
    answered = Counter(load.answered) - before
    share = answered.total() / len(workers)
    assert all(abs(answered[pid] - share) <= UNEVEN * share for pid in workers), answered


def test_spread(tmp_path: Path) -> None:
    """Kept connections that are opened all at once are spread over two workers within 20% of even, after a reload and an upgrade, too."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.load(keeping=0, connecting=4, slow=0) as first:
            first.wait_for_processes(2)
        with server.load(keeping=CLIENTS, connecting=0, slow=0, at_once=True) as load:
            load.wait_until_all(lambda answer: True, "an answer for each")
            _check_even(server, load)
            for number in (signal.SIGHUP, signal.SIGUSR2):
                old = server.workers
                server.signal(number)
                server.wait_renewed(load, old)
                _check_even(server, load)
            assert load.result().problems == []


def test_no_worker_is_left_out(tmp_path: Path) -> None:
    """Of clients that come with a new connection for each request each worker gets some. How many is the system's choice: none of them
    has more connections than another.
    """
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load(keeping=0, connecting=16, slow=0) as load:
            before = Counter(load.answered)
            load.wait_for(600)
            answered = Counter(load.answered) - before
            assert all(answered[pid] for pid in server.workers), answered
