"""How listeners are closed: nobody is reset who has just connected, and nothing is done to listeners that others have, too."""

from __future__ import annotations

import os
import select
import socket
import sys

import pytest
from flask import Flask

from flask_prodserve.net.listeners import Listener
from flask_prodserve.net.loads import Loads
from flask_prodserve.units import SystemdAddress
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get

pytestmark = [
    pytest.mark.usefixtures("way"),
    pytest.mark.every_way,
    pytest.mark.skipif(sys.platform != "linux", reason="handshakes can be stopped on Linux only"),
]


@pytest.fixture
def app() -> Flask:
    app = Flask("closing")
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


def answers(listening: socket.socket, within: float = PATIENCE) -> bool:
    """Whether a new client can connect to *listening*, which takes this system no time."""
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
        return bool(select.select([], [client], [], within)[1])


def stop(served: Served) -> None:
    served.engine.stop()
    wait_until(lambda: served.drained is not None, "the stop")


def test_no_handshake_begins(app: Flask) -> None:
    """A server that stops has the system overlook new clients before it closes its listener."""
    with in_thread(app) as served, served.listeners[0].socket.dup() as listening:
        assert answers(listening)
        stop(served)
        assert not answers(listening, 0.1)


def test_listeners_of_several_processes(app: Flask) -> None:
    """A process that stops does nothing to the listener that others have, too."""
    descriptor = Loads.create(2)
    loads = [Loads(descriptor, slot) for slot in range(2)]
    os.close(descriptor)
    with in_thread(app, loads=loads[0]) as first, in_thread(app, loads=loads[1], beside=first.listeners) as second:
        stop(first)
        assert get(second.address).body == b"hello"
        with second.listeners[0].socket.dup() as listening:
            stop(second)
            assert answers(listening)


def test_listeners_of_systemd(app: Flask) -> None:
    """Nor to one that systemd will give to the next server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        with in_thread(app, beside=[Listener(listening, SystemdAddress())]) as served:
            assert get(served.address).body == b"hello"
            stop(served)
            assert answers(listening)


def test_clients_that_wait_are_served(app: Flask) -> None:
    """Who has connected when the stop begins is served."""
    with in_thread(app, clock=ManualClock()) as served:  # none is idle for too long, however late it asks
        wires = [Wire(served.address) for _ in range(20)]
        served.engine.stop()
        for wire in wires:
            with wire:
                wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                assert wire.response().body == b"hello"
