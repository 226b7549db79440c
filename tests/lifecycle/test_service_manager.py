"""What systemd is told, and what it gives: a real datagram socket for notifications, and real sockets that are passed on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import Load
from server import Server, deploy, serving, supervised

from programs import free_ports
from serving import flask, run, wait_until
from wire import get

pytestmark = supervised

SHOW_ENVIRONMENT = """
@app.get("/environment")
def environment():
    return " ".join(os.environ)
"""

ACTIVATE = """
import fcntl, os, socket, sys
names, command = sys.argv[1].split(":"), sys.argv[2:]
# Away from where they have to be, first.
opened = [fcntl.fcntl(socket.create_server(("127.0.0.1", 0)).detach(), fcntl.F_DUPFD, 20) for _ in names]
for number, descriptor in enumerate(opened, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
os.execvp(command[0], command)
"""
"""Passes listening sockets on as systemd does (sd_listen_fds(3))."""


class Manager:
    """The notification socket of a service manager (sd_notify(3)) that notes who has said what, and when."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._heard: list[tuple[int, dict[str, str]]] = []

    @property
    def heard(self) -> list[tuple[int, dict[str, str]]]:
        """The process id of the sender, and the variables, of each message so far."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
            except BlockingIOError:
                return self._heard
            pid, _, _ = struct.unpack("3i", ancillary[0][2])
            self._heard.append((pid, dict(line.split("=", 1) for line in data.decode().splitlines())))

    def said(self, name: str) -> list[str]:
        """The values of *name* in all messages, in their order."""
        return [message[name] for _, message in self.heard if name in message]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """With a notification socket in the file system, and one in Linux's abstract namespace."""
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@prodserve-test-{os.getpid()}")
    yield manager
    manager.close()


def _order(manager: Manager) -> list[str]:
    """READY, RELOADING and STOPPING in the order in which they came."""
    return [
        name for _, message in manager.heard for name in ("READY", "RELOADING", "STOPPING") if message.get(name) == "1"
    ]


def test_notifications(tmp_path: Path, manager: Manager) -> None:
    """READY once the server serves, RELOADING with the time and READY around reloads and upgrades, STOPPING, all from the main process."""
    with serving(tmp_path, NOTIFY_SOCKET=manager.address, more=SHOW_ENVIRONMENT) as server:
        wait_until(lambda: manager.said("READY"), "READY=1")
        assert get(server.command.address, "/echo/1").status == 200
        assert "NOTIFY_SOCKET" not in get(server.command.address, "/environment").body.decode().split()
        server.wait_for_workers(2)
        with server.under_load() as load:
            for turn, number in enumerate((signal.SIGHUP, signal.SIGUSR2), 1):
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                old = server.workers
                server.signal(number)
                server.wait_renewed(load, old)
                wait_until(lambda turn=turn: len(manager.said("READY")) > turn, "READY=1 after RELOADING=1")
                after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                assert before < int(manager.said("MONOTONIC_USEC")[-1]) < after
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
    assert _order(manager) == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert all("MONOTONIC_USEC" in message for _, message in manager.heard if "RELOADING" in message)
    assert any("2 workers" in status for status in manager.said("STATUS"))
    assert set(manager.said("MAINPID")) <= {str(server.pid)}
    assert {pid for pid, _ in manager.heard} == {server.pid}


def test_failed_reload_is_over_as_well(tmp_path: Path, manager: Manager) -> None:
    """After a reload that fails READY=1 is sent, too: systemd waits for it."""
    with serving(tmp_path, NOTIFY_SOCKET=manager.address) as server:
        server.wait_for_workers(2)
        wait_until(lambda: manager.said("READY"), "READY=1")
        server.deploy("2", "def this is not Python")
        server.signal(signal.SIGHUP)
        wait_until(lambda: _order(manager) == ["READY", "RELOADING", "READY"], "READY=1 after RELOADING=1")


def test_watchdog(tmp_path: Path, manager: Manager) -> None:
    """With WATCHDOG_USEC the main process reports at least twice in that time."""
    with serving(tmp_path, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000") as server:
        began = time.monotonic()
        wait_until(lambda: len(manager.said("WATCHDOG")) >= 4, "four signs of life")
        assert time.monotonic() - began > 1.0, "that is more than is needed"
        assert {pid for pid, message in manager.heard if "WATCHDOG" in message} == {server.pid}


def _ports(server: Server) -> list[int]:
    server.command.wait_for("serving app=")
    return [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", server.command.output)]


def test_socket_activation(tmp_path: Path) -> None:
    """Sockets passed by a service manager are served through reloads and upgrades, and nothing is refused."""
    activate = (sys.executable, "-c", ACTIVATE, "web:admin")
    with serving(tmp_path, "--bind", "systemd", prefix=activate) as server:
        server.wait_for_workers(2)
        ports = _ports(server)
        assert len(ports) == 2
        with server.under_load() as load, Load(("127.0.0.1", ports[1]), keeping=2, connecting=2, slow=0) as other:
            for version, number in (("2", signal.SIGHUP), ("3", signal.SIGUSR2), ("4", signal.SIGHUP)):
                old = server.workers
                server.deploy(version)
                server.signal(number)
                server.wait_renewed(load, old)
            assert other.result().problems == []


def test_socket_activation_without_a_word(tmp_path: Path) -> None:
    """Where nobody says where to listen, sockets that are passed are served; those that were passed to another process are not."""
    deploy(tmp_path, "1")
    activate = [sys.executable, "-c", ACTIVATE, "web", *flask("serve", "--workers", "1")]
    with run(activate, cwd=tmp_path) as command:
        assert get(command.address, "/echo/1").status == 200
        assert command.address != ("127.0.0.1", 8000)
    foreign = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "PORT": "0", "PRODSERVE_HOST": "127.0.0.1"}
    with run(flask("serve"), cwd=tmp_path, env=foreign) as command:
        assert get(command.address, "/echo/1").status == 200


def test_socket_activation_by_name(tmp_path: Path) -> None:
    """BIND can name one of the passed sockets, and have others beside it."""
    activate = (sys.executable, "-c", ACTIVATE, "web:admin")
    path = tmp_path / "socket"
    with serving(tmp_path, "--bind", "systemd:admin", "--bind", f"unix:{path}", prefix=activate) as server:
        assert len(_ports(server)) == 1
        assert get(server.command.address, "/echo/1").status == 200
        assert get(str(path), "/echo/2").status == 200


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not here")
def test_systemd_socket_activate(tmp_path: Path) -> None:
    """systemd's own program starts the server with the first connection, which is answered as all others are."""
    address = ("127.0.0.1", free_ports(1)[0])
    activate = ("systemd-socket-activate", "--listen", f"127.0.0.1:{address[1]}", "--fdname=web")
    variables = [f"--setenv={name}" for name in os.environ if name.startswith(("PATH", "PYTHON", "VIRTUAL_ENV"))]
    with serving(tmp_path, "--bind", "systemd", prefix=(*activate, *variables)) as server:
        server.command.wait_for("Listening on")
        with Load(address) as load:
            load.wait_for_processes(2)
            assert load.result().problems == []
