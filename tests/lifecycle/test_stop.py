"""The end of a supervised server: by signals, under load, with and without patience."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from server import Server, is_alive, serving, supervised

from serving import PATIENCE, wait_until
from wire import Wire, get

pytestmark = supervised

DELAY = 0.075 * PATIENCE
"""Seconds of DRAIN_DELAY: in which readiness can be asked for, and a client that connects be answered."""


SECOND_IS_SAID_TO_BE_READY_LATE = """
import signal

from flask_prodserve.process.link import Link
from flask_prodserve.process.messages import Ready

send = Link.send


def send_late(link, message, *more):
    if isinstance(message, Ready):
        try:
            open("first", "x").close()
        except FileExistsError:
            told = []
            obey = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *arguments: told.append(arguments))
            while not told:
                time.sleep(0.01)
            obey(*told[0])
    return send(link, message, *more)


Link.send = send_late
"""
"""An app whose second worker tells the supervisor only when it is told to end that it serves."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_under_load(tmp_path: Path, number: int) -> None:
    """SIGTERM and SIGINT under load: every request that was accepted is answered, nothing is reset, and the exit code is 0."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            load.wait_for(50)
            load.expect_end()
            server.signal(number)
            assert server.command.exit_code() == 0
            load.wait_ended()
    assert "0 cut" in server.command.output


def test_stop_while_a_worker_gets_ready(tmp_path: Path) -> None:
    """A worker that serves already when the stop begins, but has just not been heard of, finishes what it has accepted."""
    with serving(tmp_path, more=SECOND_IS_SAID_TO_BE_READY_LATE) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            load.expect_end()
            server.signal(signal.SIGTERM)
            assert server.command.exit_code() == 0
            load.wait_ended()
    assert "0 cut" in server.command.output


def test_stop_on_a_unix_socket(tmp_path: Path) -> None:
    """The same on a Unix socket, which is removed."""
    path = tmp_path / "socket"
    with serving(tmp_path, "--bind", f"unix:{path}") as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            load.wait_for(50)
            load.expect_end()
            server.signal(signal.SIGTERM)
            assert server.command.exit_code() == 0
            load.wait_ended()
    assert not path.exists()


def test_ctrl_c_reaches_all_processes(tmp_path: Path) -> None:
    """CTRL+C, which a terminal sends to every process, is no more than a SIGINT to the supervisor."""
    with serving(tmp_path, prefix=("setsid",)) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            load.wait_for(50)
            load.expect_end()
            os.killpg(server.pid, signal.SIGINT)
            assert server.command.exit_code() == 0
            load.wait_ended()
    assert "Traceback" not in server.command.output


def test_drain_delay(tmp_path: Path) -> None:
    """For DRAIN_DELAY after SIGTERM the server says that it is not ready, and serves everybody; then it closes, drains and exits 0."""
    with serving(tmp_path, "--drain-delay", f"{DELAY}s") as server:
        server.wait_for_workers(2)
        address = server.command.address
        with server.under_load() as load:
            assert get(address, "/readyz").status == 200
            load.expect_end()
            told = time.monotonic()
            server.signal(signal.SIGTERM)
            wait_until(lambda: get(address, "/readyz").status == 503, "readiness to turn")
            turned = time.monotonic()
            wait_until(
                lambda: any(
                    answer.at > turned and "connecting" in answer.client for answer in list(load.last.values())
                ),
                "an answer on a connection that was made after that",
            )
            assert server.command.exit_code() == 0
            load.wait_ended()
            assert min(load.refused) > told + DELAY


def test_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    """A second SIGTERM, as Heroku may send it, does not cut what a first one let finish."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            load.wait_for(20)
            load.expect_end()
            server.signal(signal.SIGTERM)
            wait_until(lambda: load.refused, "the listeners to close")
            server.signal(signal.SIGTERM)
            assert server.command.exit_code() == 0
            load.wait_ended()


def _held(server: Server) -> Wire:
    """A connection with a request that takes for ever."""
    wire = Wire(server.command.address)
    wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
    return wire


def _wait_for_what_has_arrived(server: Server) -> None:
    """It is in a worker once a request behind it has been answered."""
    with server.load(keeping=2, connecting=2, slow=0) as load:
        load.wait_for(20)


def _is_refused(server: Server) -> bool:
    try:
        with Wire(server.command.address):
            return False
    except ConnectionError:
        return True


def _interrupt_twice(server: Server) -> None:
    server.signal(signal.SIGINT)
    wait_until(lambda: _is_refused(server), "the listeners to close")
    server.command.wait_for("to finish within 600s; CTRL+C again stops at once\n")
    assert server.command.process.poll() is None
    server.signal(signal.SIGINT)


def _quit(server: Server) -> None:
    server.signal(signal.SIGQUIT)


@pytest.mark.parametrize(("end", "code"), [(_interrupt_twice, 130), (_quit, 131)])
def test_stop_now(tmp_path: Path, end: Callable[[Server], None], code: int) -> None:
    """A second SIGINT, or one SIGQUIT, waits for no request, and the exit code names the signal. GRACEFUL_TIMEOUT had no part in it."""
    with serving(tmp_path, "--graceful-timeout", "600s") as server:
        server.wait_for_workers(2)
        workers = server.workers
        with _held(server), _held(server):
            _wait_for_what_has_arrived(server)
            end(server)
            assert server.command.exit_code() == code
        assert not any(map(is_alive, workers))
        assert ", 2 cut\n" in server.command.output
        assert ("to finish within" in server.command.output) == (code == 130)


def test_cut_at_graceful_timeout(tmp_path: Path) -> None:
    """Requests that outlive GRACEFUL_TIMEOUT are cut and counted over all workers, and the exit code is 0."""
    with serving(tmp_path, "--graceful-timeout", "500ms") as server:
        server.wait_for_workers(2)
        with _held(server), _held(server), _held(server):
            _wait_for_what_has_arrived(server)
            server.signal(signal.SIGTERM)
            assert server.command.exit_code() == 0
        assert "3 cut (GRACEFUL_TIMEOUT is 500ms)" in server.command.output
