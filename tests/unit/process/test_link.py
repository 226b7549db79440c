"""Messages between a supervisor and a worker, over a real pair of sockets; and what is refused as none."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from flask_prodserve.observe.events import Drained
from flask_prodserve.process.link import MOST_BYTES, Broken, Link
from flask_prodserve.process.messages import (
    Abort,
    Appoint,
    Drain,
    Failed,
    Loaded,
    Ready,
    Released,
    Reopen,
    Report,
    Retire,
    SendStacks,
    Serve,
    Stacks,
    decode,
    encode,
)

MESSAGES = [
    Loaded("app", "module:app", {"THREADS": "4", "SERVER_HEADER": 'ü "\n'}, {"THREADS": "--threads"}, True),
    Failed("Could not import 'x'.\nüñ"),
    Ready(),
    Report(1, 2, 3, 4, 5, False, 6),
    Retire("MAX_REQUESTS"),
    Released(),
    Stacks("x" * 100_000),
    Drained(3, 1),
    Serve(["127.0.0.1:8000", "unix:/run/app.sock"], 3),
    Drain(0.5, True, False),
    Abort(),
    Appoint(),
    Reopen(),
    SendStacks(),
]


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    """The supervisor's end and the worker's."""
    ours, theirs = Link.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_are_read_as_they_were_written(message: Any) -> None:
    """A message is one line, and is read back equal."""
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"message": "Nothing"}',
        b'{"message": ["Ready"]}',
        b'{"message": "Ready", "more": 1}',
        b'{"message": "Retire"}',
        b'{"message": "Retire", "reason": 3}',
        b'{"message": "Drain", "delay": "5"}',
        json.dumps({"message": "Serve", "addresses": [3], "slot": 0}).encode(),
        json.dumps(
            {
                "message": "Loaded",
                "app_name": "",
                "import_path": "",
                "values": {"A": 1},
                "origins": {},
                "has_once": False,
            }
        ).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_message(ends: tuple[Link, Link], line: bytes) -> None:
    """What is no message breaks the link, and nothing else."""
    ours, theirs = ends
    theirs.socket.sendall(line + b"\n")
    with pytest.raises(Broken):
        ours.receive()


def test_pieces(ends: tuple[Link, Link]) -> None:
    """Messages that arrive in pieces, or several at once, are read one by one; a nonblocking end returns with nothing."""
    ours, theirs = ends
    data = encode(Ready()) + encode(Retire("x"))
    received: list[Any] = []
    for byte in data:
        theirs.socket.send(bytes([byte]))
        received += ours.receive() or []
    assert received == [Ready(), Retire("x")]
    assert ours.receive() == []
    theirs.socket.sendall(data)
    assert ours.receive() == [Ready(), Retire("x")]
    theirs.close()
    assert ours.receive() is None
    assert not ours.send(Reopen())


def test_endless_message(ends: tuple[Link, Link]) -> None:
    """A line that does not end is no message."""
    ours, theirs = ends
    for _ in range(MOST_BYTES >> 16):
        theirs.socket.sendall(b"x" * 65536)
        assert ours.receive() == []
    theirs.socket.sendall(b"x" * 65536)
    with pytest.raises(Broken, match="does not end"):
        ours.receive()


def test_reports_never_wait(ends: tuple[Link, Link]) -> None:
    """Where the supervisor does not read, reports are dropped."""
    ours, theirs = ends
    report = Report(1, 2, 3, 4, 5, True, 6)
    offered = 0
    while theirs.offer(report):
        offered += 1
        assert offered < 1_000_000
    received: list[Any] = []
    while messages := ours.receive():
        received += messages
    assert received == [report] * offered


def test_descriptors(ends: tuple[Link, Link]) -> None:
    """Descriptors go along with a message, and are not passed on to other programs."""
    ours, theirs = ends
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert ours.send(Serve(["127.0.0.1:0"], 0), [listening.fileno(), listening.fileno()])
        assert theirs.receive() == [Serve(["127.0.0.1:0"], 0)]
        taken = theirs.take_descriptors()
        assert len(taken) == 2
        assert theirs.take_descriptors() == []
        for descriptor in taken:
            assert not os.get_inheritable(descriptor)
            with socket.socket(fileno=descriptor) as same:
                assert same.getsockname() == listening.getsockname()
