"""A log reader that pauses: standard output and standard error are a pipe, and for a while nobody reads it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import PATIENCE, defaults, environment, flask, wait_until
from wire import Wire, get

pytestmark = pytest.mark.usefixtures("way")

APP = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def hello():
    return "hello"

@app.get("/fails")
def fails():
    raise RuntimeError("x" * 3000)

@app.get("/prints")
def prints():
    print("x" * 3000)
    return "printed"
"""
WITHOUT_EPOLL = "import select\nvars(select).pop('epoll', None)\n"


class Piped:
    """A server with standard output and standard error in one pipe of the smallest size, which is read when the test says so."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int) -> None:
        self.process = process
        self._reader = reader
        self.output = ""
        os.set_blocking(reader, False)

    def read(self) -> str:
        """All output until now, with what is there to be read."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reader, 65536):
                self.output += data.decode()
        return self.output

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.read(), f"{text!r}")

    @property
    def address(self) -> tuple[str, int]:
        self.wait_for("serving app=")
        match = re.search(r"listen=https?://127\.0\.0\.1:(\d+)", self.output)
        assert match is not None
        return "127.0.0.1", int(match[1])


@contextlib.contextmanager
def piped(folder: Path, way: str, *options: str) -> Iterator[Piped]:
    (folder / "app.py").write_text((WITHOUT_EPOLL if way == "portable" else "") + APP)
    reader, writer = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    arguments = flask("serve", "--port", "0", "--threads", "4", *options, *defaults())
    process = subprocess.Popen(arguments, cwd=folder, env=environment(), stdout=writer, stderr=writer)
    os.close(writer)
    try:
        yield Piped(process, reader)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        os.close(reader)


def ask(address: tuple[str, int], target: str, status: int, count: int) -> None:
    """Ask *count* times for *target*, on connections of which each has a hundred requests."""
    for _ in range(count // 100):
        with Wire(address) as wire:
            for _ in range(100):
                wire.send(f"GET {target}?{'x' * 3500} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                assert wire.response().status == status


@pytest.mark.parametrize(("workers", "target", "status"), [("1", "/fails", 500), ("0", "/prints", 200)])
def test_a_reader_that_pauses(tmp_path: Path, way: str, workers: str, target: str, status: int) -> None:
    """While nobody reads the log, requests and health checks are answered; later the number of dropped lines is logged; a stop ends."""
    with piped(tmp_path, way, "--workers", workers) as server:
        address = server.address
        ask(address, target, status, 800)
        assert get(address, "/livez").status == 200
        server.wait_for("dropped ")
        match = re.search(r"\] WARNING dropped (\d+) log lines: standard (output|error) was ", server.output)
        assert match is not None
        # Once more, and now nobody reads until the end.
        ask(address, target, status, 400)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def test_a_log_file_that_takes_nothing(tmp_path: Path, way: str) -> None:
    """While the access log file takes nothing, as on a file system that hangs, requests are answered and a stop ends."""
    log = tmp_path / "access.log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    with piped(tmp_path, way, "--access-log", str(log)) as server:
        address = server.address
        ask(address, "/", 200, 800)
        assert get(address, "/livez").status == 200
        while "dropped " not in server.read():
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 65536)
        ask(address, "/", 200, 400)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    os.close(reader)
