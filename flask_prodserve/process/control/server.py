"""The supervisor's side of the control socket: connections in its one loop.

Rules:

- What is registered with the selector has a function without arguments as its data. None of them waits, and none raises for what a
  client does or leaves undone: that costs nothing but its connection.
- Of a client, a line is read ahead at most, and its next request is looked at once it has taken the answer to the last one. So what is
  kept for it is bounded by a line and an answer.
- One request a turn: other things of the supervisor come in between.
- What the supervisor itself raises while it serves a request passes through: a fork in there is how workers are born.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import place, requests
from .peer import peer_uid
from .requests import Request

Respond = Callable[[Mapping[str, object]], None]

MOST_CONNECTIONS = 16
"""At one time. Enough for everybody who looks after a server, few enough to forget about."""

LONGEST_LINE = 64 << 10
"""Bytes of a request, which in fact are fewer than a hundred."""

_ONE_READ = 4096


@dataclass(eq=False)
class _Client:
    socket: socket.socket
    received: bytes = b""
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    waiting: bool = False
    """For its answer."""
    ended: bool = False
    """It sends no more; it may still read."""
    events: int = 0
    """What the selector watches it for."""

    @property
    def asks(self) -> bool:
        """Whether there is a request to be looked at."""
        return b"\n" in self.received and not self.waiting and not self.unsent

    @property
    def reads(self) -> bool:
        """Whether there is room for what it sends."""
        return not self.ended and b"\n" not in self.received


class ControlServer:
    """Serves on *listening*, which it owns. Whoever runs the loop calls what it registers with *selector*.

    *serve* is given each request, and a function to be called with the answer, now or later; what is said after the first time, or after
    the client has gone, is ignored.
    """

    def __init__(
        self,
        listening: socket.socket,
        selector: selectors.BaseSelector,
        serve: Callable[[Request, Respond], None],
    ) -> None:
        self.listening = listening
        self._selector = selector
        self._serve = serve
        self._clients: list[_Client] = []  # in the order of their last words
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        listening.setblocking(False)
        selector.register(listening, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close everything, and remove the socket's file. Nothing is answered any more: the end is what clients of Stop wait for."""
        path = self.listening.getsockname()
        self._selector.unregister(self.listening)
        self.listening.close()
        place.remove(path)
        for client in list(self._clients):
            self._drop(client)
        self.abandon()

    def abandon(self) -> None:
        """Close everything in a child, without a word to the selector, which is the parent's."""
        for client in self._clients:
            client.socket.close()
        self._clients.clear()
        self.listening.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _accept(self) -> None:
        try:
            sock, _ = self.listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._turn_away()
            return
        sock.setblocking(False)
        if not _may_ask(sock):
            _last_words(sock, "Only the server's own user and root are served here.")
            sock.close()
            return
        if len(self._clients) >= MOST_CONNECTIONS:
            # The one that was silent for the longest; one that still hopes for an answer only if all do.
            self._drop(min(self._clients, key=lambda client: client.waiting and not client.ended))
        client = _Client(sock)
        self._clients.append(client)
        self._watch(client)

    def _turn_away(self) -> None:
        """No descriptor is left. Without this the loop would find the listener ready again and again, and never sleep."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with contextlib.suppress(OSError):
            sock, _ = self.listening.accept()
            sock.close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _ready(self, client: _Client) -> None:
        # It may have been dropped in this very turn, by what was ready before it.
        if client in self._clients and self._send(client) and self._receive(client):
            if client.asks:
                self._next_request(client)
            else:
                self._watch(client)

    def _receive(self, client: _Client) -> bool:
        """Take what it says. Returns whether it is still there."""
        if not client.reads:
            return True
        try:
            data = client.socket.recv(_ONE_READ)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return self._drop(client)
        client.ended = not data
        client.received += data
        if b"\n" not in client.received and len(client.received) > LONGEST_LINE:
            _last_words(client.socket, f"A request has at most {LONGEST_LINE} bytes.")
            return self._drop(client)
        self._clients.remove(client)
        self._clients.append(client)
        return True

    def _next_request(self, client: _Client) -> None:
        line, _, client.received = client.received.partition(b"\n")
        client.waiting = True
        answered = False

        def respond(answer: Mapping[str, object]) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._answer(client, answer)

        self._watch(client)
        try:
            request = requests.decode(line)
        except ValueError as error:
            respond({"error": str(error)})
        else:
            self._serve(request, respond)

    def _answer(self, client: _Client, answer: Mapping[str, object]) -> None:
        if client not in self._clients:
            return
        client.waiting = False
        client.unsent = memoryview(_line(answer))
        # Now, since it may be the last that this server does.
        if self._send(client):
            self._watch(client)

    def _send(self, client: _Client) -> bool:
        """Send as much as it takes at once. Returns whether it is still there."""
        try:
            if client.unsent:
                client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return self._drop(client)
        return True

    def _watch(self, client: _Client) -> None:
        """Have the selector look for what can come next, and let a client go with whom nothing can."""
        events = selectors.EVENT_READ if client.reads else 0
        if client.unsent or client.asks:
            events |= selectors.EVENT_WRITE
        if not events and not client.waiting:
            self._drop(client)
        elif events != client.events:
            if not client.events:
                self._selector.register(client.socket, events, lambda: self._ready(client))
            elif not events:
                self._selector.unregister(client.socket)
            else:
                self._selector.modify(client.socket, events, lambda: self._ready(client))
            client.events = events

    def _drop(self, client: _Client) -> bool:
        if client.events:
            self._selector.unregister(client.socket)
        self._clients.remove(client)
        client.socket.close()
        return False


def _may_ask(sock: socket.socket) -> bool:
    """Whether the peer is this account or root, where the system tells: Linux (unix(7), SO_PEERCRED). Elsewhere the file's mode says it."""
    return peer_uid(sock) in (None, 0, os.geteuid())


def _last_words(sock: socket.socket, error: str) -> None:
    with contextlib.suppress(OSError):
        sock.send(_line({"error": error}))


def _line(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer).encode("ascii") + b"\n"
