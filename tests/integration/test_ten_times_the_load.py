"""A server under ten times its load, as its own process."""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from pathlib import Path

import pytest

from profiles import sized
from serving import flask, run, wait_until
from wire import Wire, get

SECONDS = sized(4.0, 6.0, 60.0)
"""How long the load lasts."""

CAPACITY = 4
OVERLOAD_APP = f"""
import threading
from flask import Flask

app = Flask(__name__)

@app.get("/work")
def work():
    # Waits, as views do that ask a database: the capacity of the server is its threads', and not this machine's.
    threading.Event().wait({CAPACITY} / 100)
    return "worked"
"""


class Load:
    """Clients that ask as fast as they are answered; those that are shed try again after a moment."""

    def __init__(self, address: tuple[str, int], clients: int) -> None:
        self.good: list[float] = []
        self.shed: list[float] = []
        self.other: list[str] = []
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            with Wire(self._address) as wire:
                while not self._stop.is_set():
                    began = time.monotonic()
                    wire.send(b"GET /work HTTP/1.1\r\nHost: test\r\n\r\n")
                    response = wire.response()
                    seconds = time.monotonic() - began
                    if response.status == 200:
                        self.good.append(seconds)
                    elif response.status == 503:
                        assert response.get("retry-after")
                        self.shed.append(seconds)
                        self._stop.wait(0.05)
                    else:
                        self.other.append(str(response))
        except (OSError, AssertionError) as error:
            self.other.append(repr(error))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.usefixtures("precedence")  # it measures
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_times_the_load(tmp_path: Path) -> None:
    """Under ten times its load a server does as much work as ever, sheds the rest soon, keeps its memory, and is itself again at once."""
    queue_timeout = 2.0
    (tmp_path / "app.py").write_text(OVERLOAD_APP)
    arguments = [
        "--workers",
        "0",
        "--port",
        "0",
        "--threads",
        str(CAPACITY),
        "--queue-timeout",
        f"{queue_timeout}s",
        "--access-log",
        "off",
    ]
    with run(flask("serve", *arguments), cwd=tmp_path) as server:
        address = server.address
        assert isinstance(address, tuple)
        pause = threading.Event()
        with Load(address, CAPACITY) as usual:
            began = time.monotonic()
            pause.wait(SECONDS / 4)
            peak = len(usual.good) / (time.monotonic() - began)
        assert usual.shed == usual.other == []
        memory = resident(server.process.pid)
        # In the time of one request 10 times as many come as it can do, and more wait.
        with Load(address, 100 * CAPACITY) as load:
            began = time.monotonic()
            pause.wait(SECONDS)
            seconds = time.monotonic() - began
            good = len(load.good)
            most = resident(server.process.pid)
            health = get(address, "/livez").status
        assert health == 200
        assert load.other == []
        assert load.shed, "it was no overload"
        assert good / seconds > 0.8 * peak, (good / seconds, peak)
        assert max(load.shed) < queue_timeout + 1
        assert most - memory < 100 * 2**20
        pause.wait(1)
        with Load(address, CAPACITY // 2) as after:
            pause.wait(1)
        assert after.shed == after.other == []
        assert statistics.median(after.good) < 2 * statistics.median(usual.good)
        assert re.search(r"WARNING THREADS: .* x GET /work \(oldest ", server.output)
        assert 1 <= server.output.count("QUEUE_TIMEOUT: ") <= 1 + seconds // 60
        wait_until(lambda: get(address, "/readyz").status == 200, "it to be ready again")
