"""Messages that could be understood in two ways, through each proxy: the server behind it reads what the proxy has read, or refuses.

What a proxy has read as a request has the proxy's word on it, so that its client is CLIENT; what the server alone took for one has not.
A proxy may well read the hidden request as one that follows, as some do behind a line that ends in LF: that is one reading, and the
client gets that request's own answer.
"""

from __future__ import annotations

import contextlib

import h11
import pytest
from edges import CLIENT, Edge, ask, connection, head
from real_proxies import HOST
from smuggling_messages import HIDDEN, MESSAGES, Message

from wire import Wire

WAITING_SECONDS = 1.0
"""How long a proxy may say nothing until it counts as one that waits for more of the message. Where it is only slow, less is checked."""


def _answers(wire: Wire) -> tuple[list[str], bool]:
    """The requests that the app's answers are to, up to the last one, and whether the proxy waits for more."""
    wire.socket.settimeout(WAITING_SECONDS)
    answered: list[str] = []
    # It may close, also in the middle of what nobody could read as an answer.
    with contextlib.suppress(ConnectionError, AssertionError, h11.RemoteProtocolError):
        while answered[-1:] != ["/named/last"]:
            try:
                path = wire.response().get("Answer-To")
            except TimeoutError:
                return answered, True
            if path is not None:
                answered.append(path)
    return answered, False


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_one_reading(edge: Edge, message: Message) -> None:
    """What the app sees are the requests that the proxy has read, each with the proxy's word on it, and they are answered in that order."""
    before = len(edge.behind.seen)
    with connection(edge) as wire:
        with contextlib.suppress(ConnectionError):  # it may be refused, and closed, before all is sent
            wire.send(message.data)
            wire.send(head("/named/last", "Connection: close"))
        answered, waits = _answers(wire)
    assert ask(edge, "/named/other").body == b"named other"
    edge.served.settle()
    seen = edge.behind.seen[before:]
    assert {(client, host) for client, host, _ in seen} <= {(CLIENT, HOST), (CLIENT, message.host)}
    if not waits:
        assert [path for _, _, path in seen] == [*answered, "/named/other"]


def test_request_past_the_proxy(edge: Edge) -> None:
    """A request that reaches the server past the proxy is one that the tests here would notice."""
    with Wire(edge.served.address) as wire:
        wire.send(HIDDEN)
        assert wire.response().body == b"named hidden"
    client, _, path = edge.behind.seen[-1]
    assert path == "/named/hidden"
    assert client != CLIENT
