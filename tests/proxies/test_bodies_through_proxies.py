"""Large bodies, and those that come bit by bit, in both directions through each proxy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading

import pytest
from app_behind import LARGE, large
from edges import Edge, connection, head

from serving import PATIENCE, wait_until
from wire import Response, Wire

DIGEST = hashlib.sha256(b"".join(large())).hexdigest()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize("target", ["/collected", "/upload"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_upload(edge: Edge, target: str, chunked: bool) -> None:
    """An upload of 20 MiB arrives whole, with or without its length, whether the proxy collects it first or passes it on."""
    with connection(edge) as wire:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {LARGE}"
        wire.send(head(target, framing, method="POST"))
        for block in large():
            wire.send(_chunk(block) if chunked else block)
        if chunked:
            wire.send(b"0\r\n\r\n")
        assert json.loads(wire.response("POST").body) == {"size": LARGE, "digest": DIGEST}


def test_upload_that_is_passed_on_as_it_comes(edge: Edge) -> None:
    """A chunked upload reaches the server, chunked, before its end is there."""

    def in_part() -> bool:
        channels = edge.served.connections
        requests = [channel.receiver.incoming for channel in channels if channel.receiver.incoming is not None]
        return any(
            request.head is not None and request.head.chunked and request._body is not None and request._body.size
            for request in requests
        )

    with connection(edge) as wire:
        wire.send(head("/upload", "Transfer-Encoding: chunked", method="POST"))
        wire.send(_chunk(bytes(100_000)))  # more than a proxy reads before it looks for a server
        wait_until(in_part, "the first part of the upload")
        wire.send(_chunk(b"end") + b"0\r\n\r\n")
        assert json.loads(wire.response("POST").body)["size"] == 100_003


def test_upload_that_is_too_large(edge: Edge) -> None:
    """Of an upload that is too large its client learns so, by 413, once it has sent it if not before."""
    with connection(edge) as wire:
        wire.send(head("/upload", f"Content-Length: {LARGE + 2}", method="POST"))
        sent = threading.Thread(target=_send_large, args=(wire,), daemon=True)
        sent.start()
        assert wire.response("POST").status == 413
    sent.join(PATIENCE)


def _send_large(wire: Wire) -> None:
    with contextlib.suppress(OSError):  # a proxy may close before it has taken all
        for block in large():
            wire.send(block)
        wire.send(b"ab")


@pytest.mark.parametrize("target", ["/large", "/streamed"])
def test_large_response(edge: Edge, target: str) -> None:
    """A response of 20 MiB arrives whole, be its length known or not, and the connection can be used again."""
    with connection(edge) as wire:
        wire.send(head(target))
        response = wire.response()
        assert hashlib.sha256(response.body).hexdigest() == DIGEST
        assert response.get("Content-Length") == (str(LARGE) if target == "/large" else None)
        wire.send(head("/named/next"))
        assert wire.response().body == b"named next"


def _read_until(wire: Wire, marker: bytes) -> bytes:
    received = b""
    while marker not in received:
        data = wire.socket.recv(65536)
        assert data, f"closed before {marker!r}: {received!r}"
        received += data
    return received


def test_events(edge: Edge) -> None:
    """Each server-sent event arrives before the next one is made, also where the client would take compressed ones."""
    with connection(edge) as wire:
        wire.send(head("/events", "Accept: text/event-stream", "Accept-Encoding: gzip"))
        for number in range(3):
            edge.behind.next_event.release()
            _read_until(wire, b"data: %d\n\n" % number)


def test_client_that_leaves(edge: Edge) -> None:
    """A client that leaves in the middle of a response is one whose leaving the app is told of."""
    edge.behind.left.clear()
    with connection(edge) as wire:
        wire.send(head("/endless"))
        _read_until(wire, b"more\n")
    wait_until(edge.behind.left.is_set, "waitress.client_disconnected")


def test_client_that_leaves_in_an_upload(edge: Edge) -> None:
    """Of an upload whose client leaves before its end the app never hears, and the next request is answered."""
    with connection(edge) as wire:
        wire.send(head("/upload", f"Content-Length: {LARGE}", method="POST") + bytes(100_000))
    with connection(edge) as wire:
        wire.send(head("/named/after"))
        assert _body(wire.response()) == b"named after"
    assert edge.behind.seen[-1][2] == "/named/after"


def _body(response: Response) -> bytes:
    assert response.status == 200, response
    return response.body
