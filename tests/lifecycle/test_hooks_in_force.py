"""What an app has registered is run in real workers: at their start and end, and once in the whole server."""

from __future__ import annotations

import signal
from pathlib import Path

from server import Server, is_alive, kill, serving, supervised

from serving import wait_until

pytestmark = supervised

HOOKED = """
import fcntl

from flask_prodserve import ProdServe

prodserve = ProdServe(app)


def note(what):
    with open("notes", "a") as notes:
        notes.write(f"{what} {os.getpid()}\\n")


@prodserve.before_fork
def before_fork(app):
    note("fork")


@prodserve.worker_started
def started(app):
    note("started")


@prodserve.worker_stopping
def stopping(app):
    note("stopping")


@prodserve.once
def once(app):
    # Only one process can have it, and one that dies lets go of it.
    with open("lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("twice")
            return
        note("begin")
        yield
        note("end")
"""


def _notes(server: Server, *kinds: str) -> list[tuple[str, int]]:
    """What was noted of these *kinds*, and by whom, in its order."""
    notes = [line.split() for line in (server.folder / "notes").read_text().splitlines()]
    return [(kind, int(pid)) for kind, pid in notes if kind in kinds]


def _holder(server: Server) -> int:
    """The process that does what only one does, as soon as there is one that will stay."""

    def last() -> int | None:
        notes = _notes(server, "begin", "end")
        return notes[-1][1] if notes and notes[-1][0] == "begin" and is_alive(notes[-1][1]) else None

    wait_until(last, "some process to do what only one does")
    holder = last()
    assert holder is not None
    return holder


def test_once(tmp_path: Path) -> None:
    """Exactly one worker does what only one does; it moves at a reload, an upgrade, a death and a recycling, and ends with the server."""
    with serving(tmp_path, more=HOOKED) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            first = _holder(server)
            for number in (signal.SIGHUP, signal.SIGUSR2):
                old = server.workers
                server.signal(number)
                server.wait_renewed(load, old)
                assert _holder(server) not in old
            assert _notes(server, "end")[0] == ("end", first)
        victim = _holder(server)
        kill(victim)
        wait_until(lambda: _notes(server, "begin")[-1][1] != victim, "another to take over")
        last = _holder(server)
        server.wait_for_workers(2)
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        notes = _notes(server, "begin", "end", "twice")
        assert notes[-1] == ("end", last)
        # One ends, or has been killed, before the next begins.
        assert all(
            kind == "end" or notes[index - 1] in [("end", notes[index - 1][1]), ("begin", victim)]
            for index, (kind, _) in enumerate(notes)
            if index
        )
        assert _notes(server, "twice") == []


def test_start_and_end_of_workers(tmp_path: Path) -> None:
    """Each worker runs what belongs to its start and its end, once, whatever ends it but SIGKILL."""
    with serving(tmp_path, more=HOOKED) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.signal(signal.SIGHUP)
            server.wait_renewed(load, old)
            workers = old | server.workers
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        for kind in ("started", "stopping"):
            assert sorted(_notes(server, kind)) == sorted((kind, pid) for pid in workers)
        assert _notes(server, "fork") == []  # nobody shares anything


def test_before_fork(tmp_path: Path) -> None:
    """With PRELOAD what belongs before the fork is run once, by the supervisor, before any worker starts."""
    with serving(tmp_path, "--preload", more=HOOKED) as server:
        server.wait_for_workers(2)
        with server.under_load():
            pass
        assert _notes(server, "fork", "started")[0] == ("fork", server.pid)
        assert len(_notes(server, "fork")) == 1
        assert {pid for _, pid in _notes(server, "started")} == server.workers


def test_worker_that_fails_to_start(tmp_path: Path) -> None:
    """An exception in what belongs to a worker's start is a failed start: the server does not come up, and shows it."""
    failing = "\n@prodserve.worker_started\ndef fail(app):\n    raise RuntimeError('no connection')\n"
    with serving(tmp_path, more=HOOKED + failing) as server:
        assert server.command.exit_code() != 0
        assert "RuntimeError: no connection" in server.command.output
        assert server.command.output.count("Traceback (most recent call last)") == 1
