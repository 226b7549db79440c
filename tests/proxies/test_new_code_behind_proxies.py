"""New code comes in behind each proxy, under load: ``flask serve reload``, then SIGUSR2. No client of the proxy sees any of it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from edges import EDGES, open_folder
from load import Load
from real_proxies import HOST, Proxy, running
from server import serving, supervised

from serving import PATIENCE, environment, flask

pytestmark = supervised


@pytest.mark.parametrize("edge_of", EDGES)
def test_reload_and_upgrade(edge_of: tuple[Proxy, str], pem: Path) -> None:
    """A reload and an upgrade under load bring new code, and every request through the proxy is answered by the app."""
    proxy, transport = edge_of
    proxy.path()  # skips where there is none
    with open_folder() as folder:
        bind = "127.0.0.1:0" if transport == "tcp" else f"unix:{folder}/app.sock"
        (folder / "proxy").mkdir()
        with serving(folder, "--bind", bind, "--unix-socket-mode", "0o666") as server:
            server.wait_for_workers(2)
            with (
                running(proxy, server.command.address, pem, folder / "proxy") as front,
                Load(front.address, host=HOST) as load,
            ):
                load.wait_for_processes(2)
                old = server.workers
                server.deploy("2")
                reload = flask("serve", "reload")
                subprocess.run(reload, cwd=folder, env=environment(), check=True, timeout=PATIENCE)
                server.wait_renewed(load, old)
                load.wait_until_all(lambda answer: answer.version == "2", "answers of version 2")
                old = server.workers
                server.deploy("3")
                server.signal(signal.SIGUSR2)
                server.wait_renewed(load, old)
                load.wait_until_all(lambda answer: answer.version == "3", "answers of version 3")
                problems = load.result().problems
                assert not problems, problems
