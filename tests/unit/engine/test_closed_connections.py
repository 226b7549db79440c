"""What is left of a connection after it is closed."""

from __future__ import annotations

import gc
import logging
import socket
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask

from by_hand import ByHand
from flask_prodserve.clock import monotonic
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.table import ConnectionTable
from flask_prodserve.engine.connection.transport import TCPTransport
from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.exchange.peer import Peer
from flask_prodserve.extension import resolve_for
from flask_prodserve.observe.limit_events import LimitEvents
from flask_prodserve.settings import arguments


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x"]


@pytest.fixture
def reference_counting_only() -> Iterator[None]:
    """No garbage collection in the test, as in an app that has switched it off."""
    gc.disable()
    yield
    gc.enable()


def used_connection(sock: socket.socket, table: ConnectionTable) -> Connection:
    """A connection that has answered one request and waits for the next one."""
    resolved = resolve_for(Flask("closed"), [arguments({}, "test")]).settings
    context = EngineContext.of(application, resolved, error_logger=logging.getLogger("closed"))
    connection = Connection(TCPTransport(sock), Peer("", None, "localhost", 80, "http"), context, ByHand(), table)
    table.add(connection)
    assert connection.read()
    connection.answer()
    connection.finish_turn(in_loop=True)
    return connection


@pytest.mark.usefixtures("reference_counting_only")
@pytest.mark.parametrize("end", [Connection.close, Connection.reset, Connection.end])
def test_closed_connections_are_freed_at_once(end: Callable[[Connection], None]) -> None:
    """A closed connection is freed by reference counting, so that no memory waits for the garbage collector."""
    table = ConnectionTable(10, 0, bool, LimitEvents(), monotonic)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        connection = used_connection(ours, table)
        assert theirs.recv(4096).startswith(b"HTTP/1.1 200 ")
        end(connection)
        reference = weakref.ref(connection)
        del connection
        assert reference() is None
