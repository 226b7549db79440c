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
"""Descriptors that may be open for a moment."""


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
        with server.under_load(keeping=16) as load:
            end = time.monotonic() + SECONDS
            load.wait_for_processes(WARM_UP)
            before = Size.of(server.pid)
            while time.monotonic() < end:
                load.wait_for(50)
            after = Size.of(server.pid)
        assert after.threads == before.threads == 1
        assert after.descriptors <= before.descriptors + FEW
        assert after.memory <= before.memory + GROWTH_BYTES
        # What workers are kept by is gone with them.
        load.stop()
        wait_until(
            lambda: Size.of(server.pid).descriptors <= before.descriptors, "the descriptors of workers that are gone"
        )


def test_soak_of_workers(tmp_path: Path) -> None:
    """Workers that stay are as large after many requests as they were after some."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load(keeping=16) as load:
            end = time.monotonic() + SECONDS
            load.wait_for(1000)  # until then threads are started and caches are filled
            workers, before = server.workers, _largest_worker(server)
            while time.monotonic() < end:
                load.wait_for(50)
            after = _largest_worker(server)
            assert server.workers == workers
        assert after.memory <= before.memory + GROWTH_BYTES
        assert after.threads <= before.threads + FEW
        assert after.descriptors <= before.descriptors + len(load.clients)
