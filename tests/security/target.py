"""What is attacked: `flask serve` in a process of its own, with an app that has a quick page and a large one; and what /proc says of it."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from certificates import Pair
from serving import Command, flask, run, wait_until

QUICK = b"quick"

APP = f"""
from flask import Flask, request

app = Flask(__name__)
large_body = bytes(10_000_000)  # made once: what it costs the app to make it is not the server's matter


@app.get("/")
def index():
    return {QUICK!r}


@app.get("/large")
def large():
    return large_body


@app.post("/upload")
def upload():
    return str(len(request.get_data()))
"""

FEW = 3
"""Descriptors that may come and go by themselves."""


@dataclass
class Target:
    """A server that runs, and its process in /proc."""

    command: Command
    address: tuple[str, int]
    process: Path
    tls: ssl.SSLContext | None = None
    """What its clients need, where it speaks TLS."""

    @property
    def descriptors(self) -> int:
        return len(list((self.process / "fd").iterdir()))

    @property
    def delays(self) -> dict[str, float]:
        """For how many seconds each thread has waited for a processor so far, by its number."""
        found = {}
        for task in (self.process / "task").iterdir():
            with contextlib.suppress(OSError):  # it has ended, or the kernel does not count
                found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
        return found

    def mebibytes(self, name: str) -> float:
        """``VmRSS``: the memory that it has; ``VmHWM``: the most that it has had."""
        match = re.search(rf"^{name}:\s+(\d+) kB$", (self.process / "status").read_text(), re.MULTILINE)
        assert match is not None
        return int(match[1]) / 1024

    @property
    def logged(self) -> Counter[str]:
        """How often the log names which reason, since the server began to serve. A line that names none is counted as it is, but for what
        root is told.
        """
        lines = self.command.output.partition("serving app=")[2].splitlines()[1:]
        return Counter(
            re.sub(r"^\[[^]]*\] \[\d+\] [A-Z]+ (\w+): .*", r"\1", line)
            for line in lines
            if "the app runs as root" not in line
        )

    @contextlib.contextmanager
    def left_as_found(self) -> Iterator[None]:
        """After what is done here it has no more open descriptors than before, soon."""
        before = self.descriptors
        yield
        wait_until(lambda: self.descriptors <= before + FEW, f"{before} descriptors")


@contextlib.contextmanager
def target(folder: Path, *, tls: Pair | None = None, **settings: str) -> Iterator[Target]:
    """Serve the app on a port of its own, without an access log; over *tls*, if there is a certificate."""
    (folder / "attacked.py").write_text(APP)
    arguments = flask("--app", "attacked", "serve", "--workers", "0", "--port", "0", "--access-log", "off")
    if tls is not None:
        arguments += ["--tls-cert", tls.cert, "--tls-key", tls.key]
    with run(arguments, cwd=folder, env={f"PRODSERVE_{name}": value for name, value in settings.items()}) as command:
        address = command.address
        assert isinstance(address, tuple)
        match = re.search(r" pid=(\d+)", command.output)
        assert match is not None
        context = None if tls is None else ssl.create_default_context(cafile=tls.cert)
        yield Target(command, address, Path("/proc", match[1]), context)
