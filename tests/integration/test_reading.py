"""How much is read of a client in one turn of the loop, in which all others wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask, request

from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.transport import TCPTransport
from flask_prodserve.engine.exchange.request import RECEIVE_BODY_BYTES, RECEIVE_BYTES, RECEIVE_CHUNKS_BYTES
from serving import PATIENCE, Served, in_thread, wait_until
from wire import Wire

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

HEAD = b"POST /length HTTP/1.1\r\nHost: test\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def served(way: str) -> Iterator[Served]:
    app = Flask("reading")

    @app.post("/length")
    def length() -> str:
        return str(len(request.get_data()))

    with in_thread(app) as served:
        yield served


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the system was asked for in each turn."""
    turns: list[int] = []

    def noted_turn(channel: Connection, read: Callable[[Connection], bool] = Connection.read) -> bool:
        turns.append(0)
        return read(channel)

    def noted(
        tcp: TCPTransport, size: int, receive: Callable[[TCPTransport, int], bytes | None] = TCPTransport.receive
    ) -> object:
        turns[-1] += size
        return receive(tcp, size)

    monkeypatch.setattr(Connection, "read", noted_turn)
    monkeypatch.setattr(TCPTransport, "receive", noted)
    return turns


@contextmanager
def held(served: Served) -> Iterator[None]:
    """The loop reads nothing meanwhile."""
    holds, go = threading.Event(), threading.Event()

    def hold() -> None:
        holds.set()
        assert go.wait(PATIENCE)

    served.soon(hold)
    assert holds.wait(PATIENCE)
    try:
        yield
    finally:
        go.set()


def upload(served: Served, turns: list[int], before: bytes, rest: bytes, requests: int = 1) -> list[int]:
    """The turns in which *rest* is read, which is all there when the server has read *before*."""
    wait_until(lambda: not len(served.table), "the connection before to be closed")
    with Wire(served.address) as wire:
        wire.send(before)
        served.settle()
        turns.clear()
        with held(served):
            wire.send(rest)
        for _ in range(requests):
            assert wire.response("POST").status == 200
        return list(turns)


def test_small_chunks(served: Served, turns: list[int]) -> None:
    """Of a body whose every byte is a chunk, little is read at a time as soon as that is known, and not much before."""
    first, *others = upload(served, turns, CHUNKED, b"1\r\nx\r\n" * 50_000 + LAST)
    assert first <= RECEIVE_BYTES
    assert len(others) > 10
    assert max(others) <= RECEIVE_CHUNKS_BYTES + 1


def test_small_chunks_behind_an_unfinished_head(served: Served, turns: list[int]) -> None:
    """A head that is cut in two gets its body no larger share."""
    first, *others = upload(served, turns, CHUNKED[:-1], CHUNKED[-1:] + b"1\r\nx\r\n" * 50_000 + LAST)
    assert first <= RECEIVE_BYTES
    assert max(others) <= RECEIVE_BYTES


def test_small_chunks_behind_large_ones(served: Served, turns: list[int]) -> None:
    """What is read besides a large chunk is no more than without it."""
    large = b"x" * 100_000
    rest = large[1000:] + b"\r\n" + b"1\r\nx\r\n" * 50_000 + LAST
    first, *others = upload(served, turns, CHUNKED + b"%x\r\n" % len(large) + large[:1000], rest)
    assert first == len(large) - 1000 + RECEIVE_BYTES
    assert max(others) <= RECEIVE_BYTES


def test_small_chunks_behind_another_request(served: Served, turns: list[int]) -> None:
    """What is read besides the rest of a body of known length is no more than without it."""
    second = CHUNKED + b"1\r\nx\r\n" * 50_000 + LAST
    assert (
        max(upload(served, turns, HEAD + b"Content-Length: 10\r\n\r\n", b"0123456789" + second)) <= RECEIVE_BYTES + 10
    )


@pytest.mark.parametrize("framing", ["length", "chunk"])
def test_large_bodies(served: Served, turns: list[int], framing: str) -> None:
    """What is known to be the body's, or one chunk's, is read by the largest pieces."""
    body = b"x" * 1_000_000
    if framing == "length":
        before, after = HEAD + b"Content-Length: %d\r\n\r\n" % len(body), b""
    else:
        before, after = CHUNKED + b"%x\r\n" % len(body), b"\r\n" + LAST
    read = upload(served, turns, before, body + after)
    assert max(read) == RECEIVE_BODY_BYTES
