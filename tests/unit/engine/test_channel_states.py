"""The channel as a state machine: whatever the order of events, the client gets the responses it asked for, byte for byte, in order."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from by_hand import ByHand
from flask_prodserve.clock import monotonic
from flask_prodserve.engine.connection.connection import Connection, TurnEnd
from flask_prodserve.engine.connection.table import ConnectionTable
from flask_prodserve.engine.connection.transport import TCPTransport
from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.exchange.peer import Peer
from flask_prodserve.extension import resolve_for
from flask_prodserve.observe.limit_events import LimitEvents
from flask_prodserve.settings import arguments
from profiles import sized

SIZES = [0, 1, 100, 70_000, 1_500_000]
DATE = "Sat, 21 Nov 2026 00:00:00 GMT"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with the number and the body of the request, repeated up to the size that the query names."""
    body = environ["wsgi.input"].read()
    size = int(environ["QUERY_STRING"])
    content = environ["PATH_INFO"].encode() + body
    start_response("200 OK", [("Date", DATE), ("Content-Type", "text/plain")])
    return [(content * (size // len(content) + 1))[:size]]


def request(number: int, size: int, body: bytes, chunked: bool) -> tuple[bytes, bytes]:
    """The bytes of a request, and those of its response."""
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n\r\n"
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        framing = b"Content-Length: %d\r\n\r\n" % len(body)
        sent = body
    head = b"POST /%d?%d HTTP/1.1\r\nHost: test\r\n" % (number, size)
    content = b"/%d%b" % (number, body)
    response = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % (
        DATE.encode(),
        size,
    )
    return head + framing + sent, response + (content * (size // len(content) + 1))[:size]


class States(RuleBasedStateMachine):
    @initialize()
    def connect(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(listening.getsockname())
        self.client.setblocking(False)
        accepted, address = listening.accept()
        listening.close()
        accepted.setblocking(False)
        resolved = resolve_for(Flask("states"), [arguments({}, "test")]).settings
        self.channel = Connection(
            TCPTransport(accepted),
            Peer(*address, "127.0.0.1", 80, "http"),
            EngineContext.of(application, resolved, error_logger=logging.getLogger("states")),
            ByHand(),
            table := ConnectionTable(10, 0, bool, LimitEvents(), monotonic),
        )
        table.add(self.channel)
        self.number = 0
        self.unsent = b""
        self.expected = b""
        self.received = bytearray()
        self.half_closed = False

    @precondition(lambda self: not self.half_closed and self.number < 12)
    @rule(size=st.sampled_from(SIZES), body=st.binary(max_size=300), chunked=st.booleans())
    def ask(self, size: int, body: bytes, chunked: bool) -> None:
        """The client makes up another request, which it will send behind those before."""
        sent, response = request(self.number, size, body, chunked)
        self.number += 1
        self.unsent += sent
        self.expected += response

    @precondition(lambda self: self.unsent)
    @rule(share=st.floats(min_value=0.0, max_value=1.0))
    def send(self, share: float) -> None:
        """The client sends a part of what it has, wherever that ends."""
        count = max(1, int(len(self.unsent) * share))
        self.client.sendall(self.unsent[:count])
        self.unsent = self.unsent[count:]

    @precondition(lambda self: self.number and not self.unsent and not self.half_closed)
    @rule()
    def shut_down_sending(self) -> None:
        """The client has nothing more to send, and says so."""
        self.client.shutdown(socket.SHUT_WR)
        self.half_closed = True

    @rule()
    def loop_reads(self) -> None:
        if self.channel.connected and self.channel.readable() and not self.channel.running:
            self.channel.read()

    @rule()
    def loop_writes(self) -> None:
        if self.channel.connected and self.channel.writable():
            self.channel.handle_write()

    @rule()
    def loop_pauses(self) -> None:
        """An event comes although a thread runs the channel."""
        if self.channel.running:
            self.channel.pause()

    @rule()
    def thread_answers(self) -> None:
        if self.channel.running and self.channel.current is not None and self.channel.answer() is TurnEnd.DONE:
            self.channel.finish_turn(in_loop=False)

    @rule(count=st.sampled_from([1, 1000, 10_000_000]))
    def client_takes(self, count: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.received += self.client.recv(count)

    @invariant()
    def responses_are_right_so_far(self) -> None:
        if self.number:
            assert self.expected.startswith(self.received)

    @invariant()
    def running_means_a_request(self) -> None:
        if hasattr(self, "channel"):
            assert (self.channel.current is not None) == self.channel.running
            assert not (self.channel.running and self.channel.readable())

    def teardown(self) -> None:
        """Let everything happen that can: then all responses are there."""
        if not hasattr(self, "channel"):
            return
        try:
            if self.unsent:
                self.client.sendall(self.unsent)
            for _ in range(100_000):
                if len(self.received) == len(self.expected):
                    break
                self.loop_reads()
                self.thread_answers()
                self.loop_writes()
                self.client_takes(10_000_000)
            assert bytes(self.received) == self.expected
            assert not self.channel.running
        finally:
            self.client.close()
            self.channel.close()


TestConnection = States.TestCase
TestConnection.settings = settings(max_examples=sized(20, 60, 2000), stateful_step_count=60)
