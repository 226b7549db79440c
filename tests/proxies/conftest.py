"""Every proxy in front of a real server, once over TCP and once over a Unix socket, for all tests of this folder that ask for ``edge``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_behind import LARGE, Behind, make_app
from edges import EDGES, TRUST, Edge, open_folder
from real_proxies import HOST, Proxy, running

import certificates
from serving import in_thread


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    pair = certificates.make(folder, HOST, names=f"DNS:{HOST}")
    (folder / "pem").write_text(Path(pair.cert).read_text() + Path(pair.key).read_text())
    return folder / "pem"


@pytest.fixture(scope="session", params=EDGES)
def edge(request: pytest.FixtureRequest, pem: Path) -> Iterator[Edge]:
    proxy: Proxy
    proxy, transport = request.param
    proxy.path()  # skips where there is none
    behind = Behind()
    with open_folder() as folder:
        bind = "127.0.0.1:0" if transport == "tcp" else f"unix:{folder}/app.sock"
        with (
            in_thread(
                make_app(behind), bind=[bind], unix_socket_mode="0o666", max_body_size=LARGE + 1, **TRUST
            ) as served,
            running(proxy, served.address, pem, folder) as front,
        ):
            yield Edge(proxy.name, front, served, behind)
