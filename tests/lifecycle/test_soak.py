"""A server under constant load, nightly for long: nothing grows."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from server import Server, serving, supervised

from profiles import sized
from serving import wait_until

pytestmark = supervised

SECONDS = sized(5.0, 7.5, 300.0)
"""How long the load of each test lasts."""

WARM_UP = 5
"""Workers that have come and gone before anything is measured."""

GROWTH_BYTES = 2 << 20
"""What an allocator may keep more or less at the second look. Pages that each lost worker left behind would be more, in the long run."""

FEW = 3
"""Descriptors or threads that may be there for a moment."""


@dataclass(frozen=True)
class Size:
    """Of a process: resident bytes, threads, descriptors."""

    memory: int
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Size:
        process = Path("/proc", str(pid))
        pages = int((process / "statm").read_text().split()[1])
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE"),
            len(list((process / "task").iterdir())),
            len(list((process / "fd").iterdir())),
        )


def _largest_worker(server: Server) -> Size:
    sizes = []
    for pid in server.workers:
        try:
            sizes.append(Size.of(pid))
        except OSError:  # it has ended since
            continue
    return Size(*(max(getattr(size, name) for size in sizes) for name in ("memory", "threads", "descriptors")))


def test_soak_with_recycling(tmp_path: Path) -> None:
    """While workers come and go under load, the supervisor stays as large as it was, and no request fails."""
    with serving(tmp_path, "--max-requests", "150", "--max-requests-jitter", "50") as server:
        server.wait_for_workers(2)
        at_rest = Size.of(server.pid)
        with server.under_load(keeping=16) as load:
            load.wait_for_processes(WARM_UP)
            before = Size.of(server.pid)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                load.wait_for(50)
            # How many workers come and go in one moment is a question of speed, so it may take some moments.
            wait_until(lambda: Size.of(server.pid).descriptors <= before.descriptors + FEW, "few descriptors")
            after = Size.of(server.pid)
            # A second thread is there only while it writes a line of the log.
            wait_until(lambda: Size.of(server.pid).threads == 1, "one thread")
        assert after.memory <= before.memory + GROWTH_BYTES
        # What workers are kept by is gone with them.
        load.stop()
        most = max(at_rest.descriptors, before.descriptors)  # it may have been measured between two workers
        wait_until(lambda: Size.of(server.pid).descriptors <= most, "the descriptors of workers that are gone")


def test_soak_of_workers(tmp_path: Path) -> None:
    """Workers that stay are as large after many requests as they were after some."""
    # All of few threads are started soon, so that their number does not depend on how quick the machine is.
    with serving(tmp_path, "--threads", "4") as server:
        server.wait_for_workers(2)
        with server.under_load(keeping=16) as load:
            load.wait_for(1000)  # until then threads are started and caches are filled
            workers, before = server.workers, _largest_worker(server)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                load.wait_for(50)
            # Connections whose clients have gone are closed when the worker has seen that.
            most = before.descriptors + len(load.clients)
            wait_until(lambda: _largest_worker(server).descriptors <= most, "connections to be closed")
            after = _largest_worker(server)
            assert server.workers == workers
        assert after.memory <= before.memory + GROWTH_BYTES
        assert after.threads <= before.threads + FEW
