"""What four workers write to the same place at the same time: whole lines."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from load import Load
from server import children, deploy, serving, supervised

from serving import flask, run, wait_until

pytestmark = supervised

NOISE = """
import logging

LONG = "x" * 1500


@app.before_request
def say_something_long():
    logging.getLogger("flask_prodserve.test").error("begin %s end", LONG)
"""

ACCESS = (
    r'127\.0\.0\.1 - - \[[^]]+\] "(GET|POST) /(echo|slow)/\d+ HTTP/1\.1" 200 \d+ "-" "-" app=[0-9.]+ms total=[0-9.]+ms'
)
MESSAGE = r"\[[-0-9: +]+\] \[\d+\] [A-Z]+ (?!begin)[^\[\]]+"
NOISY = r"\[[-0-9: +]+\] \[\d+\] ERROR begin x{1500} end"


def _check(text: str, *, access: int, noisy: int) -> None:
    """Every line of *text* is one of ours, and so many there are of each kind at least."""
    lines = text.splitlines()
    whole = re.compile(f"{ACCESS}|{MESSAGE}|{NOISY}")
    assert [line for line in lines if not whole.fullmatch(line)] == []
    assert len([line for line in lines if re.fullmatch(ACCESS, line)]) >= access
    assert len([line for line in lines if re.fullmatch(NOISY, line)]) >= noisy


def test_one_pipe(tmp_path: Path) -> None:
    """Access and error lines of four workers in one pipe are never mixed up within a line."""
    with serving(tmp_path, "--access-log", "stdout", workers=4, more=NOISE) as server:
        server.wait_for_workers(4)
        with server.under_load(keeping=20) as load:
            load.wait_for(1000)
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
    _check(server.command.output, access=1000, noisy=1000)


def test_what_was_printed_before_a_fork(tmp_path: Path) -> None:
    """What a preloaded app prints to a pipe, where Python keeps it back, is written once, and not by each worker."""
    with serving(tmp_path, "--preload", workers=3, more="print('preloaded')", PYTHONUNBUFFERED="") as server:
        server.wait_for_workers(3)
        with server.under_load() as load:
            load.wait_for(20)
            load.expect_end()
            server.signal(signal.SIGTERM)
            assert server.command.exit_code() == 0
            load.wait_ended()
    assert server.command.output.count("preloaded") == 1


def test_one_file(tmp_path: Path) -> None:
    """Access and error lines of four workers in one file are never mixed up within a line."""
    deploy(tmp_path, "1", NOISE)
    log = tmp_path / "log"
    log.touch()
    arguments = flask("serve", "--workers", "4", "--port", "0", "--access-log", str(log))
    with run(["sh", "-c", f'exec "$@" 2>>{log}', "sh", *arguments], cwd=tmp_path) as command:
        wait_until(
            lambda: "serving app=" in log.read_text() and len(children(command.process.pid)) == 4, "four workers"
        )
        port = re.search(r"listen=http://127\.0\.0\.1:(\d+)", log.read_text())
        assert port is not None
        with Load(("127.0.0.1", int(port[1])), keeping=20) as load:
            load.wait_for_processes(4)
            load.wait_for(1000)
            assert load.result().problems == []
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    _check(log.read_text(), access=1000, noisy=1000)


def test_reopen(tmp_path: Path) -> None:
    """After SIGUSR1 every worker writes to a new file by the old name, and no line is lost."""
    log, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    with serving(tmp_path, "--access-log", str(log)) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            log.rename(rotated)
            server.signal(signal.SIGUSR1)
            wait_until(log.exists, "a new file")
            load.wait_for(100)

            def still() -> bool:
                before = rotated.stat().st_size
                load.wait_for(20)
                return rotated.stat().st_size == before

            wait_until(still, "all workers to write to the new file")
            result = load.result()
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
    lines = log.read_text().splitlines() + rotated.read_text().splitlines()
    assert len(lines) == result.answers


def test_start_and_end_are_said_once(tmp_path: Path) -> None:
    """However many workers there are, the start and the end of the server are one line each."""
    with serving(tmp_path, workers=3) as server:
        server.wait_for_workers(3)
        with server.under_load():
            pass
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
    assert server.command.output.count("serving app=") == 1
    assert server.command.output.count("stopped; ") == 1
