"""SIGHUP: new code and new settings come in under load, and no request notices."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from server import serving, supervised

from profiles import sized
from programs import free_ports
from serving import wait_until

pytestmark = supervised


def test_many_reloads(tmp_path: Path) -> None:
    """Many reloads under load bring the new code each time, and fail no request."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            for version in map(str, range(2, 2 + sized(3, 10, 100))):
                old = server.workers
                server.deploy(version)
                server.signal(signal.SIGHUP)
                server.wait_renewed(load, old)
                assert {answer.version for answer in load.last.values()} == {version}
                assert len(server.workers) == 2


def test_reloads_that_overtake_one_another(tmp_path: Path) -> None:
    """Reloads asked for while one is under way end with the code that was there last, and fail no request."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            for version in map(str, range(2, 7)):
                server.deploy(version)
                server.signal(signal.SIGHUP)
                load.wait_for(10)
            load.wait_until_all(lambda answer: answer.version == "6", "the last version")
            server.wait_for_workers(2)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("def this is not Python", "SyntaxError"),
        ("raise RuntimeError('the database is away')", "the database is away"),
        ("app.config['PRODSERVE_THREADS'] = 'many'", "PRODSERVE_THREADS"),
    ],
)
def test_new_code_that_fails(tmp_path: Path, broken: str, why: str) -> None:
    """New code that cannot be served leaves the old workers as they are and says why; when it is mended it comes in."""
    with serving(tmp_path) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", broken)
            server.signal(signal.SIGHUP)
            server.command.wait_for(why)
            wait_until(lambda: server.workers == old, "the new worker to end, and the old ones to stay")
            load.wait_for(50)
            assert server.workers == old
            assert load.answered.keys() <= old
            server.deploy("3")
            server.signal(signal.SIGHUP)
            server.wait_renewed(load, old)
            assert {answer.version for answer in load.last.values()} == {"3"}


def test_new_address(tmp_path: Path) -> None:
    """A reload that changes the port serves at the new one before the old one is closed, and answers all who were accepted there."""
    ports = free_ports(2)
    settings = [f"app.config['PRODSERVE_PORT'] = {port}" for port in ports]
    with serving(tmp_path, more=settings[0]) as server:
        server.wait_for_workers(2)
        assert server.command.address == ("127.0.0.1", ports[0])
        with server.under_load() as load:
            load.expect_end()
            server.deploy("2", settings[1])
            server.signal(signal.SIGHUP)
            wait_until(lambda: load.refused, "the old address to close")
            with socket.create_connection(("127.0.0.1", ports[1])):
                pass
            load.wait_ended()


def test_address_that_is_taken(tmp_path: Path) -> None:
    """A reload to an address that somebody else has leaves everything as it was, and says so."""
    with (
        serving(tmp_path, more=f"app.config['PRODSERVE_PORT'] = {free_ports(1)[0]}") as server,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        server.wait_for_workers(2)
        taken = other.getsockname()[1]
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", f"app.config['PRODSERVE_PORT'] = {taken}")
            server.signal(signal.SIGHUP)
            server.command.wait_for(f"127.0.0.1:{taken}")
            wait_until(lambda: server.workers == old, "the new worker to end, and the old ones to stay")
            load.wait_for(20)
