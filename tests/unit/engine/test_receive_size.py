"""How much a request has read of itself next, by what has come of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from flask import Flask

from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.exchange.request import (
    RECEIVE_BODY_BYTES,
    RECEIVE_BYTES,
    RECEIVE_CHUNKS_BYTES,
    SMALL_CHUNKS,
    Request,
)
from flask_prodserve.extension import resolve_for
from flask_prodserve.settings import arguments

HEAD = b"POST / HTTP/1.1\r\nHost: test\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL = b"1\r\nx\r\n"


@pytest.fixture
def parser() -> Iterator[Request]:
    settings = resolve_for(Flask("sizes"), [arguments({}, "test")]).settings
    parser = Request(EngineContext.of(Flask("sizes"), settings, error_logger=logging.getLogger("sizes")))
    yield parser
    parser.close()


def test_head(parser: Request) -> None:
    """Of what may follow a head nothing is known."""
    parser.received(HEAD)
    assert parser.receive_size == RECEIVE_BYTES


def test_rest_of_a_body(parser: Request) -> None:
    """A body of known length is read by large pieces, and no more than usual of what is behind it."""
    parser.received(HEAD + b"Content-Length: 1000000\r\n\r\n")
    assert parser.receive_size == RECEIVE_BODY_BYTES
    parser.received(bytes(999_990))
    assert parser.receive_size == RECEIVE_BYTES + 10


def test_rest_of_a_chunk(parser: Request) -> None:
    """The same holds of each chunk."""
    parser.received(CHUNKED)
    assert parser.receive_size == RECEIVE_BYTES
    parser.received(b"f4240\r\n")
    assert parser.receive_size == RECEIVE_BODY_BYTES
    parser.received(bytes(999_990))
    assert parser.receive_size == RECEIVE_BYTES + 10
    parser.received(bytes(10) + b"\r\n")
    assert parser.receive_size == RECEIVE_BYTES


def test_few_small_chunks(parser: Request) -> None:
    """Small chunks are no trouble unless there are many at a time."""
    parser.received(CHUNKED)
    for _ in range(100):
        parser.received(SMALL * SMALL_CHUNKS)
    assert parser.receive_size == RECEIVE_BYTES


@pytest.mark.parametrize("size", [b"1", b"0001", b"1;a"])
def test_many_small_chunks(parser: Request, size: bytes) -> None:
    """Many at a time have less read, for good: large ones in between change that only for their own bytes."""
    parser.received(CHUNKED)
    parser.received((size + b"\r\nx\r\n") * (SMALL_CHUNKS + 1))
    assert parser.receive_size == RECEIVE_CHUNKS_BYTES
    parser.received(b"186a0\r\n")
    assert parser.receive_size == RECEIVE_CHUNKS_BYTES + 100_000
    parser.received(bytes(100_000) + b"\r\n")
    assert parser.receive_size == RECEIVE_CHUNKS_BYTES
