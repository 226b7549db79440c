"""Workers that do nothing any more are found out by their silence, and replaced by force."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from pathlib import Path

import pytest
from findings import Death, unexplained
from server import is_alive, serving, supervised

from flask_prodserve.units import format_duration
from serving import PATIENCE, wait_until
from wire import Wire

pytestmark = supervised

WORKER_TIMEOUT = PATIENCE / 10
"""Seconds. A worker that does come round says so within that, also where the machine is busy."""

WEDGE = """
import ctypes
import logging
import threading


def note():
    with open("wedged.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("wedged.new", "wedged")


@app.get("/c-call")
def in_a_c_call():
    note()
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL


@app.get("/deadlock")
def with_the_lock_of_logging():
    for handler in logging.getLogger("flask_prodserve").handlers:
        handler.acquire()
    note()
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("path", "view"),
    [("/c-call", "in_a_c_call"), ("/deadlock", "with_the_lock_of_logging")],
    ids=["c-call", "deadlock"],
)
def test_wedged_worker(tmp_path: Path, path: str, view: str) -> None:
    """A worker wedged in a C call or a deadlock is killed after WORKER_TIMEOUT with its stacks in the log, while others serve."""
    wedged = tmp_path / "wedged"
    with serving(
        tmp_path,
        "--worker-timeout",
        format_duration(WORKER_TIMEOUT),
        "--header-timeout",
        format_duration(WORKER_TIMEOUT / 2),
        more=WEDGE,
    ) as server:
        server.wait_for_workers(2)
        with server.load() as load, contextlib.ExitStack() as opened:
            load.wait_for_processes(2)
            told = time.monotonic()
            opened.enter_context(Wire(server.command.address)).send(
                f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
            )
            wait_until(wedged.exists, "the request to run")
            victim = int(wedged.read_text())
            if path == "/deadlock":
                # Cut by the loop at HEADER_TIMEOUT, which wants to log that: here the loop itself stops.
                for _ in range(16):
                    opened.enter_context(Wire(server.command.address)).send(b"GET / HTTP/1.1\r\n")
            load.wait_for(50)
            wait_until(lambda: not is_alive(victim), "the worker to be killed")
            gone = time.monotonic()
            load.wait_for_processes(3)
            load.wait_until_all(lambda answer: answer.pid != victim, "answers of other workers")
            server.wait_for_workers(2)
            assert unexplained(load.result(), [Death(victim, told, gone)]) == []
        assert f"WORKER_TIMEOUT ({format_duration(WORKER_TIMEOUT)})" in server.command.output
        assert f" in {view}\n" in server.command.output


def test_stacks_of_two_workers_are_two_blocks(tmp_path: Path) -> None:
    """The stacks of two workers that are killed are in the log one after the other, each under its pid, with nothing in between."""
    with (
        serving(tmp_path, "--worker-timeout", format_duration(WORKER_TIMEOUT), more=WEDGE) as server,
        contextlib.ExitStack() as opened,
    ):
        server.wait_for_workers(2)
        victims = set()
        for _ in range(2):
            opened.enter_context(Wire(server.command.address)).send(b"GET /c-call HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until((tmp_path / "wedged").exists, "the request to run")
            victims.add(int((tmp_path / "wedged").read_text()))
            (tmp_path / "wedged").unlink()
        wait_until(lambda: not any(map(is_alive, victims)), "both to be killed")
        server.wait_for_workers(2)
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
    output = server.command.output
    blocks = re.findall(r"worker \d+ \(pid (\d+)\) wrote its stacks when it died:\n((?:  .*\n)+)", output)
    assert {int(pid) for pid, _ in blocks} == victims
    for _, block in blocks:
        assert [block.count(text) for text in ("Fatal Python error", "Current thread", "in_a_c_call")] == [1, 1, 1]
    assert output.count("Fatal Python error") == 2


def test_slow_views_are_not_wedged(tmp_path: Path) -> None:
    """A worker whose threads are all busy for longer than WORKER_TIMEOUT still reports, and is left alone."""
    with (
        serving(
            tmp_path,
            "--worker-timeout",
            format_duration(WORKER_TIMEOUT),
            "--threads",
            "2",
            "--graceful-timeout",
            "0s",
            workers=1,
        ) as server,
        contextlib.ExitStack() as opened,
    ):
        server.wait_for_workers(1)
        workers = server.workers
        began = time.monotonic()
        for _ in range(4):
            opened.enter_context(Wire(server.command.address)).send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: time.monotonic() > began + 2 * WORKER_TIMEOUT, "twice WORKER_TIMEOUT to be over")
        assert server.workers == workers
