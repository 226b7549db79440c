"""systemd's protocols, with real datagram sockets and with sockets that a real process is started with."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flask_prodserve.net.systemd import HIDDEN, Notifier
from serving import PATIENCE, environment


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What systemd has at its end, and its address in NOTIFY_SOCKET."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    named = str(tmp_path / "notify") if request.param == "path" else f"@prodserve-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(named.replace("@", "\0", 1) if request.param == "abstract" else named)
        receiver.settimeout(PATIENCE)
        yield named, receiver


def test_notifications(manager: tuple[str, socket.socket]) -> None:
    """Each state is one datagram, as sd_notify(3) has it."""
    named, receiver = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "3000000"})

    def received() -> str:
        return receiver.recv(4096).decode()

    notifier.ready()
    assert received() == "READY=1"
    notifier.ready("2 workers")
    assert received() == "READY=1\nSTATUS=2 workers"
    notifier.status("one\nMAINPID=1 Grüße \udcff")
    assert received() == "STATUS=one MAINPID=1 Grüße \\udcff"
    notifier.main_pid(17)
    assert received() == "MAINPID=17"
    notifier.watchdog()
    assert received() == "WATCHDOG=1"
    notifier.stopping()
    assert received() == "STOPPING=1"


@pytest.mark.skipif(not hasattr(time, "CLOCK_MONOTONIC"), reason="the clock is systemd's")
def test_reloading(manager: tuple[str, socket.socket]) -> None:
    """A reload is announced with the time on CLOCK_MONOTONIC, in microseconds, in the same datagram."""
    named, receiver = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier.from_environment({"NOTIFY_SOCKET": named}).reloading()
    first, second = receiver.recv(4096).decode().splitlines()
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_no_systemd(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """Without a socket that this machine has, nothing is sent, nothing is said, and nobody watches."""
    caplog.set_level(logging.DEBUG, "flask_prodserve")
    notifier = Notifier.from_environment({**environ, "WATCHDOG_USEC": "1000000"})
    assert notifier.watchdog_interval is None
    notifier.ready("status")
    notifier.watchdog()
    assert not caplog.records


def test_systemd_has_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be sent is worth a line for those who look for it, and nothing else."""
    caplog.set_level(logging.DEBUG, "flask_prodserve")
    Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "missing")}).ready()
    [record] = caplog.records
    assert (record.levelno, "READY=1" in record.getMessage()) == (logging.DEBUG, True)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.25),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        *(({"WATCHDOG_USEC": text}, None) for text in ("", "0", "-1", "x", "1.5", "²", "9" * 5000)),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """Half of what systemd allows, where it watches this process and says for how long."""
    notifier = Notifier.from_environment({**environ, "NOTIFY_SOCKET": "@prodserve-nobody"})
    assert notifier.watchdog_interval == seconds


def test_no_watchdog(manager: tuple[str, socket.socket]) -> None:
    """Where nobody watches, the watchdog's datagram is not sent."""
    named, receiver = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": named})
    notifier.watchdog()
    notifier.stopping()
    assert receiver.recv(4096) == b"STOPPING=1"


ACTIVATE = """\
import fcntl, os, sys
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split()]
for target, descriptor in enumerate(given, 3):
    os.dup2(descriptor, target)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
"""Becomes a program that has been passed the descriptors as systemd passes them."""

SHOW = """\
import json, os, socket
from flask_prodserve.errors import BindError
from flask_prodserve.net.systemd import inherited_sockets
before = dict(os.environ)
try:
    passed = inherited_sockets(os.environ, os.getpid())
except BindError as error:
    print(json.dumps([error.what, error.hint]))
else:
    assert os.environ == before
    shown = []
    for name, descriptor in ((given.name, given.descriptor) for given in passed):
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            shown.append([name, descriptor, os.get_inheritable(descriptor), os.get_blocking(descriptor), duplicate.getsockname()])
    print(json.dumps(shown))
"""


def passed_to_process(descriptors: Sequence[int], names: str | None = None, count: str = "", *, others: int = 0) -> Any:
    """What a process makes of *descriptors*; *others* is how far from its own the process id is that they are for."""
    variables = {"LISTEN_FDS": count or str(len(descriptors))}
    if names is not None:
        variables["LISTEN_FDNAMES"] = names
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATE, " ".join(map(str, descriptors)), str(others), "-c", SHOW],
        pass_fds=descriptors,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "app.sock"))
        server.listen()
        yield server


def test_inherited(tcp: socket.socket, unix: socket.socket) -> None:
    """Sockets come with their names, from descriptor 3 on; they do not block and are not passed on. The environment is left alone."""
    assert passed_to_process([tcp.fileno(), unix.fileno()], "web:local") == [
        ["web", 3, False, False, list(tcp.getsockname())],
        ["local", 4, False, False, unix.getsockname()],
    ]


@pytest.mark.parametrize(
    ("given", "names"),
    [(None, ["unknown", "unknown"]), ("web", ["web", "unknown"]), (":a:b", ["unknown", "a"])],
)
def test_unnamed(tcp: socket.socket, unix: socket.socket, given: str | None, names: list[str]) -> None:
    """Sockets without a name are called what systemd calls them."""
    assert [name for name, *_ in passed_to_process([tcp.fileno(), unix.fileno()], given)] == names


@pytest.mark.parametrize("count", [" ", "0", "-1", "x", "²"])
def test_nothing_inherited(tcp: socket.socket, count: str) -> None:
    """Without a number of sockets that makes sense there are none."""
    assert passed_to_process([tcp.fileno()], count=count) == []


def test_for_somebody_else(tcp: socket.socket) -> None:
    """Sockets for another process, such as the shell that started this one, are not taken."""
    assert passed_to_process([tcp.fileno()], others=1) == []


def test_not_for_us(tcp: socket.socket, tmp_path: Path) -> None:
    """A datagram socket, one that is connected, one that does not listen, a file and a descriptor that is closed are refused by name."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        socket.create_connection(tcp.getsockname()) as connected,
        socket.socket() as silent,
        open(tmp_path / "file", "w") as file,
    ):
        datagram.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        for sock in (datagram, connected, silent):
            what, hint = passed_to_process([tcp.fileno(), sock.fileno()], "web:other")
            assert what == (
                "'other' (descriptor 4), which systemd passed, is not a listening TCP or Unix stream socket."
            )
            assert "ListenStream=" in hint
        what, hint = passed_to_process([tcp.fileno(), file.fileno()], "web:other")
        assert what.startswith("'other' (descriptor 4), which systemd passed, is not a socket")
        assert "OpenFile=" in hint
    what, _ = passed_to_process([tcp.fileno()], count="2")
    assert what.startswith("'unknown' (descriptor 4), which systemd passed, is not a socket")


def test_hidden_variables() -> None:
    """All variables of the two protocols are hidden from the app."""
    assert {name.partition("_")[0] for name in HIDDEN} == {"LISTEN", "NOTIFY", "WATCHDOG"}
