"""What the app leaves running when the server stops: it is named, has the rest of GRACEFUL_TIMEOUT, and cannot keep the process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import deploy, is_alive, kill, serving, supervised

from serving import PATIENCE, Command, environment, flask, run, wait_until
from wire import get

pytestmark = supervised

GRACEFUL = 3.0
"""Seconds of GRACEFUL_TIMEOUT, where that is to be over."""

THREAD = """
import threading


def loop():
    while True:
        time.sleep(0.05)


threading.Thread(target=loop).start()
"""

PROCESS = """
import multiprocessing


def stay():
    time.sleep(1000)


process = multiprocessing.get_context("fork").Process(target=stay, name="mailer")
process.start()
open("pid", "w").write(str(process.pid))
"""

SCRIPT = """
from flask_prodserve import ProdServe

ProdServe(app, replace_run=True)
app.run(port=0)
"""

MODELS = {
    "supervised": ("--workers", "1"),
    "preload": ("--workers", "1", "--preload"),
    "one process": ("--workers", "0"),
    "app.run()": None,
}


@contextlib.contextmanager
def started(folder: Path, model: str, more: str, graceful: float) -> Iterator[Command]:
    """A server of *model* whose app has *more* code."""
    options = MODELS[model]
    if options is None:
        deploy(folder, "1", more + SCRIPT)
        variables = {"PRODSERVE_GRACEFUL_TIMEOUT": f"{graceful}s", "PRODSERVE_ACCESS_LOG": "off"}
        with run([sys.executable, "app.py"], cwd=folder, env=variables) as command:
            yield command
        return
    deploy(folder, "1", more)
    with serving(folder, *options[2:], "--graceful-timeout", f"{graceful}s", workers=int(options[1])) as server:
        yield server.command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("model", MODELS)
def test_thread(tmp_path: Path, model: str, number: int) -> None:
    """A thread that is no daemon is named, and does not keep the process longer than GRACEFUL_TIMEOUT; the exit code is 0."""
    with started(tmp_path, model, THREAD, GRACEFUL) as command:
        assert get(command.address, "/echo/1").status == 200
        began = time.monotonic()
        command.signal(number)
        command.wait_for("waiting for thread Thread-1 (loop), started by the app; the process exits in ")
        assert command.exit_code() == 0
        assert time.monotonic() - began >= 0.9 * GRACEFUL
    assert (
        "GRACEFUL_TIMEOUT is over; ended the process although the app still runs thread Thread-1 (loop)."
        in command.output
    )
    assert "stopped;" in command.output
    assert "CRITICAL" not in command.output


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGTERM, signal.SIGQUIT, 131), (None, signal.SIGQUIT, 131)],
)
@pytest.mark.parametrize("model", [model for model in MODELS if model != "app.run()"])
def test_thread_now(tmp_path: Path, model: str, first: int | None, second: int, code: int) -> None:
    """A second SIGINT, or a SIGQUIT, ends a process that waits for a thread at once."""
    with started(tmp_path, model, THREAD, 600.0) as command:
        assert get(command.address, "/echo/1").status == 200
        if first is not None:
            command.signal(first)
            command.wait_for("waiting for thread Thread-1 (loop), started by the app; the process exits in ")
        if model == "preload" and first is not None:
            command.wait_for("stopped;")
            assert command.process.poll() is None
        command.signal(second)
        assert command.exit_code() == code


@pytest.mark.parametrize("model", MODELS)
def test_second_sigterm(tmp_path: Path, model: str) -> None:
    """A second SIGTERM while the process waits for a thread changes nothing."""
    if model == "app.run()":
        pytest.skip("signals do what they did before, once app.run() has returned")
    with started(tmp_path, model, THREAD, GRACEFUL) as command:
        assert get(command.address, "/echo/1").status == 200
        command.signal(signal.SIGTERM)
        command.wait_for("waiting for thread")
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0


@pytest.mark.parametrize("model", MODELS)
def test_process(tmp_path: Path, model: str) -> None:
    """A process of multiprocessing that is no daemon is named, waited for until GRACEFUL_TIMEOUT, and then ended with the server."""
    with started(tmp_path, model, PROCESS, GRACEFUL) as command:
        assert get(command.address, "/echo/1").status == 200
        pid = int((tmp_path / "pid").read_text())
        try:
            command.signal(signal.SIGTERM)
            command.wait_for(f"waiting for process mailer (pid {pid}), started by the app; the process exits in ")
            assert command.process.wait(60) == 0
            wait_until(lambda: not is_alive(pid), "the process to end")
        finally:
            kill(pid)


def test_reload(tmp_path: Path) -> None:
    """An old worker with a thread that is no daemon ends at GRACEFUL_TIMEOUT after a reload."""
    with serving(tmp_path, "--graceful-timeout", f"{GRACEFUL}s", workers=1, more=THREAD) as server:
        server.wait_for_workers(1)
        address = server.command.address
        [old] = server.workers
        server.signal(signal.SIGHUP)
        server.command.wait_for("waiting for thread Thread-1 (loop)")
        assert get(address, "/echo/1").body.split()[1] != str(old).encode()
        wait_until(lambda: not is_alive(old), "the old worker to end")
        assert "while draining" not in server.command.output
        assert "CRITICAL" not in server.command.output


def test_upgrade(tmp_path: Path) -> None:
    """The preflight check of an upgrade ends although the app has started a thread."""
    with serving(tmp_path, "--graceful-timeout", "100ms", workers=1, more=THREAD) as server:
        server.wait_for_workers(1)
        server.command.url  # noqa: B018  # waits until it serves
        old = server.workers
        server.signal(signal.SIGUSR2)
        server.command.wait_for("reloaded:")
        wait_until(lambda: not server.workers & old, "the old worker to end")


@pytest.mark.parametrize("workers", [0, 1])
def test_failed_start(tmp_path: Path, workers: int) -> None:
    """An app that has started a thread, and then fails to load, ends the server with exit code 4."""
    with serving(tmp_path, workers=workers, more=THREAD + "raise RuntimeError('no database')") as server:
        assert server.command.exit_code() == 4
        assert "no database" in server.command.output


@pytest.mark.parametrize("workers", [0, 1])
def test_hook_that_does_not_return(tmp_path: Path, workers: int) -> None:
    """A worker_stopping hook that does not return is cut off as well."""
    more = """
from flask_prodserve import ProdServe

prodserve = ProdServe(app)


@prodserve.worker_stopping
def hang(app):
    print("hook", flush=True)
    time.sleep(1000)
"""
    with serving(tmp_path, "--graceful-timeout", "100ms", workers=workers, more=more) as server:
        server.command.url  # noqa: B018  # waits until it serves
        server.signal(signal.SIGTERM)
        server.command.wait_for("hook")
        assert server.command.exit_code() == 0
        assert "the main thread (a hook of the app?)" in server.command.output


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    """A process that waits for a thread ends also if its output is a pipe that is full."""
    deploy(tmp_path, "1", THREAD)
    reading, writing = os.pipe()
    arguments = flask("serve", "--workers", "0", "--port", "0", "--graceful-timeout", "100ms")
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing
    )
    try:
        text = b""
        while b"serving app=" not in text:
            text += os.read(reading, 4096)
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x")
        os.set_blocking(writing, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
