"""A supervised server over TLS: new certificates, and the redirect, through reloads and upgrades."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import ssl
from pathlib import Path

import pytest
from server import Server, serving, supervised

from certificates import Pair, make
from programs import free_ports
from serving import PATIENCE, wait_until
from wire import get

pytestmark = supervised


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, authority: Pair) -> list[Pair]:
    folder = tmp_path_factory.mktemp("pairs")
    names = "DNS:localhost,IP:127.0.0.1"
    return [make(folder / name, "it", names=names, by=authority) for name in ("before", "after")]


@pytest.fixture(scope="module")
def context(authority: Pair) -> ssl.SSLContext:
    """A client's."""
    return ssl.create_default_context(cafile=authority.cert)


def install(pair: Pair, folder: Path) -> None:
    """As a client of an authority does: one file after the other, each replaced."""
    for path, name in ((pair.cert, "live.pem"), (pair.key, "live.key")):
        fresh = folder / f"{name}.new"
        shutil.copy(path, fresh)
        fresh.replace(folder / name)


def ask(connection: http.client.HTTPSConnection) -> bytes:
    """An answer, which has the id of the process in it."""
    connection.request("GET", "/echo/1")
    return connection.getresponse().read()


def shown(address: object) -> str:
    assert isinstance(address, tuple)
    return ssl.get_server_certificate(address).strip()


def text(pair: Pair) -> str:
    return Path(pair.cert).read_text().strip()


@pytest.mark.parametrize("workers", [0, 2])
def test_new_certificates_without_a_reload(
    tmp_path: Path, pairs: list[Pair], context: ssl.SSLContext, workers: int
) -> None:
    """Each process shows new certificates by itself, soon after they are there, and open connections go on."""
    before, after = pairs
    count = max(workers, 1)
    install(before, tmp_path)
    with (
        serving(tmp_path, "--tls-cert", "live.pem", "--tls-key", "live.key", workers=workers) as server,
        contextlib.ExitStack() as stack,
    ):
        address = server.command.address
        assert isinstance(address, tuple)
        assert shown(address) == text(before)
        connections: dict[bytes, http.client.HTTPSConnection] = {}

        def connect() -> None:
            connection = http.client.HTTPSConnection(*address, timeout=PATIENCE, context=context)
            stack.callback(connection.close)
            connections[ask(connection)] = connection

        # Those that stay open, so that each process has one in the end.
        wait_until(lambda: connect() or len(connections) == count, "all processes to answer")
        running = server.workers
        install(after, tmp_path)
        wait_until(lambda: server.command.output.count("loaded new certificates for new connections") == count)
        assert {shown(address) for _ in range(10)} == {text(after)}
        assert {answer: ask(connection) for answer, connection in connections.items()} == {
            answer: answer for answer in connections
        }
        assert server.workers == running


@pytest.mark.parametrize("workers", [0, 2])
def test_expired(tmp_path: Path, pairs: list[Pair], workers: int) -> None:
    """What has expired is served. That is said once at the start, whoever serves it, and by each process that takes such files over."""
    over = make(tmp_path / "over", "over", days=-1)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    said = "TLS_CERT: live.pem expired on "
    install(over, tmp_path)
    with serving(tmp_path, "--tls-cert", "live.pem", "--tls-key", "live.key", workers=workers) as server:
        address = server.command.address
        assert shown(address) == text(over)
        with server.under_load(tls=anybody) as load:
            load.wait_for_processes(max(workers, 1))  # have read their certificates
        assert server.command.output.count(said) == 1
        count = max(workers, 1)
        install(pairs[0], tmp_path)
        wait_until(lambda: server.command.output.count("loaded new certificates for new connections") == count)
        assert server.command.output.count("TLS_CERT: ") == 1
        install(over, tmp_path)
        wait_until(lambda: server.command.output.count(said) == 1 + count)
        assert shown(address) == text(over)


def test_new_certificates_under_load(tmp_path: Path, pairs: list[Pair], context: ssl.SSLContext) -> None:
    """While clients go on asking over TLS, new certificates come in by themselves, with a reload and with an upgrade: no handshake and no
    request notices.
    """
    before, after = pairs
    install(before, tmp_path)
    with serving(tmp_path, "--tls-cert", "live.pem", "--tls-key", "live.key") as server:
        server.wait_for_workers(2)
        with server.under_load(tls=context) as load:
            install(after, tmp_path)
            wait_until(lambda: server.command.output.count("loaded new certificates for new connections") == 2)
            load.wait_for(50)
            for pair, number in ((before, signal.SIGHUP), (after, signal.SIGUSR2), (before, signal.SIGHUP)):
                old = server.workers
                install(pair, tmp_path)
                server.signal(number)
                server.wait_renewed(load, old)
                server.wait_for_workers(2)
                assert shown(server.command.address) == text(pair)


def test_redirect_through_reload_and_upgrade(tmp_path: Path, pairs: list[Pair]) -> None:
    """TLS_REDIRECT_BIND is where it was after a reload and an upgrade, and never serves the app."""
    install(pairs[0], tmp_path)
    ports = free_ports(2)
    plain = ("127.0.0.1", ports[0])
    options = ["--tls-cert", "live.pem", "--tls-key", "live.key", "--bind", f"127.0.0.1:{ports[1]}"]
    with serving(tmp_path, *options, "--tls-redirect-bind", f"127.0.0.1:{ports[0]}") as server:
        server.command.wait_for("serving app=")
        assert f" listen=https://127.0.0.1:{ports[1]} redirect=http://127.0.0.1:{ports[0]} " in server.command.output
        redirects(plain, ports[1])
        for number in (signal.SIGHUP, signal.SIGUSR2):
            server.wait_for_workers(2)
            renew(server, number)
            redirects(plain, ports[1])


def redirects(plain: tuple[str, int], port: int) -> None:
    for _ in range(10):
        response = get(plain, "/echo/1")
        assert (response.status, response.get("location")) == (308, f"https://test:{port}/echo/1")


def renew(server: Server, number: int) -> None:
    old = server.workers
    server.signal(number)
    wait_until(lambda: len(server.workers) == 2 and not server.workers & old, "new workers")
