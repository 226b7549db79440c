"""What becomes of clients that connect to a listener that is about to be closed."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import pytest

from flask_prodserve.net.handshakes import ignore_new_handshakes
from serving import PATIENCE


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as listening:
        try:
            listening.bind((request.param, 0))
        except OSError:
            pytest.skip("no such address here")
        listening.listen()
        listening.settimeout(PATIENCE)
        yield listening


def connect(listening: socket.socket, timeout: float = PATIENCE) -> socket.socket:
    client = socket.socket(listening.family)
    client.settimeout(timeout)
    try:
        client.connect(listening.getsockname())
    except BaseException:
        client.close()
        raise
    return client


def test_new_clients_are_overlooked(listening: socket.socket) -> None:
    """Who has connected before is served, in both directions; who connects afterwards gets no answer, and is refused in the end."""
    with connect(listening) as early:
        if not ignore_new_handshakes(listening):
            pytest.skip("this system cannot do that")
        with pytest.raises(TimeoutError):
            connect(listening, 0.1)
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            early.sendall(b"a" * 100_000)
            early.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: accepted.recv(65536), b""))
            assert len(received) == 100_000
            accepted.sendall(received)
            accepted.close()
            assert b"".join(iter(lambda: early.recv(65536), b"")) == received
        with socket.socket(listening.family) as late:
            late.setblocking(False)
            assert late.connect_ex(listening.getsockname()) == errno.EINPROGRESS
            listening.close()
            assert select.select([], [late], [], PATIENCE)[1]
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
