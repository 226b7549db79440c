"""Workers come and go under load: by signals, by recycling, and by force."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from findings import Death, unexplained
from server import is_alive, kill, serving, supervised

import internals
from serving import wait_until
from wire import get

pytestmark = supervised


def test_more_and_fewer(tmp_path: Path) -> None:
    """SIGTTIN and SIGTTOU change the number of workers one by one, up to four and down to one, and fail no request."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            for count in (3, 4):
                server.signal(signal.SIGTTIN)
                server.wait_for_workers(count)
                load.wait_for_processes(count)
            for count in (3, 2, 1):
                server.signal(signal.SIGTTOU)
                server.wait_for_workers(count)
                load.wait_for(20)
            server.signal(signal.SIGTTOU)
            load.wait_for(50)
            assert len(server.workers) == 1


def test_recycling(tmp_path: Path) -> None:
    """Each worker is replaced after MAX_REQUESTS requests, one at a time, and no request fails."""
    most = 0
    with serving(tmp_path, "--max-requests", "200") as server:
        server.wait_for_workers(2)
        with server.under_load() as load:

            def recycled() -> bool:
                nonlocal most
                most = max(most, len(server.workers))
                return len(load.answered) >= 7

            wait_until(recycled, "five new workers")
            assert most <= 3
            gone = load.answered.keys() - server.workers
            assert len(gone) >= 4
            # Of those that are gone nobody had anything else to do.
            assert all(load.answered[pid] >= 200 for pid in gone)


def test_lifetime(tmp_path: Path) -> None:
    """Each worker is replaced after MAX_WORKER_LIFETIME, and no request fails."""
    with serving(tmp_path, "--max-worker-lifetime", "1500ms") as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            load.wait_for_processes(5)


def test_memory(tmp_path: Path) -> None:
    """A worker with more memory than MAX_WORKER_MEMORY is replaced, and no request fails."""
    more = """
@app.get("/leak")
def leak():
    app.leaked = bytearray(os.urandom(1)) * 300_000_000
    return str(os.getpid())
"""
    with serving(tmp_path, "--max-worker-memory", "250MiB", more=more) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            leaking = int(get(server.command.address, "/leak").body)
            server.command.wait_for("MAX_WORKER_MEMORY")
            wait_until(lambda: not is_alive(leaking), "the worker to be replaced")
            load.wait_for_processes(3)
            assert server.workers & old == old - {leaking}


def test_sigterm_to_a_worker(tmp_path: Path) -> None:
    """A worker that gets SIGTERM itself is replaced, and no request fails."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            one = min(server.workers)
            os.kill(one, signal.SIGTERM)
            wait_until(lambda: not is_alive(one), "the worker to end")
            load.wait_for_processes(3)
            server.wait_for_workers(2)


def test_workers_ignore_the_terminal(tmp_path: Path) -> None:
    """SIGINT, SIGHUP and SIGQUIT do nothing to a worker."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            for pid in old:
                for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                    os.kill(pid, number)
            load.wait_for(100)
            assert server.workers == old


def test_killed_every_second(tmp_path: Path) -> None:
    """A worker killed with SIGKILL every second takes nothing along but the requests that were inside it."""
    deaths = []
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.load() as load:
            load.wait_for_processes(2)
            for turn in range(10):
                told = time.monotonic()
                victim = min(server.workers)
                kill(victim)
                wait_until(lambda victim=victim: not is_alive(victim), "the worker to die")
                deaths.append(Death(victim, told, time.monotonic()))
                load.wait_for_processes(3 + turn)
                wait_until(lambda told=told: time.monotonic() > told + 1.0, "the second to be over")
            server.wait_for_workers(2)
            result = load.result()
        assert unexplained(result, deaths) == []
        assert len(result.answered) >= 12
        assert server.command.output.count("was killed by SIGKILL") == 10


def test_killed_worker_is_not_counted_on(tmp_path: Path) -> None:
    """A worker that was killed has no place any more among those to which the others leave connections, though none has taken its place."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load():
            pass
        with memory_of_loads(server.pid) as loads:
            wait_until(lambda: internals.loads_in_use(loads) == 2, "both workers to say that they take connections")
            server.deploy("2", "raise RuntimeError('does not start')")
            kill(min(server.workers))
            server.command.wait_for("does not start")
            wait_until(lambda: internals.loads_in_use(loads) == 1, "the killed worker to be forgotten")


@contextlib.contextmanager
def memory_of_loads(pid: int) -> Iterator[int]:
    """A descriptor of the memory in which the processes of a server say how many connections they have."""
    (entry,) = [entry for entry in Path("/proc", str(pid), "fd").iterdir() if "prodserve-loads" in os.readlink(entry)]
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_only_worker_killed(tmp_path: Path) -> None:
    """While the only worker is replaced new connections wait, and none is refused."""
    with serving(tmp_path, workers=1) as server:
        server.wait_for_workers(1)
        with server.load() as load:
            load.wait_for_processes(1)
            told = time.monotonic()
            (victim,) = server.workers
            kill(victim)
            wait_until(lambda: not is_alive(victim), "the worker to die")
            gone = time.monotonic()
            load.wait_until_all(lambda answer: answer.pid != victim, "answers of the new worker")
            assert unexplained(load.result(), [Death(victim, told, gone)]) == []
