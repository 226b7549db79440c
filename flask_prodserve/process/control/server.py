"""The supervisor's side of the control socket: connections in its one loop.

Rules:

- What is registered with the selector has a function without arguments as its data. None of these
  functions blocks. A client's errors raise nothing and cost only its own connection.
- The server reads at most one line ahead, and handles a client's next request only after the client
  has taken the previous answer. So the memory per client is bounded by a line and an answer.
- One request per turn of the loop, so that clients cannot hold up the supervisor.
- An exception of *serve* passes through.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import requests, socket_path
from .peer import peer_uid
from .requests import Request

Respond = Callable[[Mapping[str, object]], None]

MOST_CONNECTIONS = 16
"""At one time: enough for all who operate a server, and few enough to cost nothing."""

LONGEST_LINE = 64 << 10
"""Most bytes of a request. Real ones have fewer than a hundred."""

_ONE_READ = 4096


@dataclass(eq=False)
class _Client:
    socket: socket.socket
    received: bytes = b""
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    waiting: bool = False
    """It waits for its answer."""
    ended: bool = False
    """It will send no more; it may still read."""
    events: int = 0
    """What the selector watches it for."""

    @property
    def asks(self) -> bool:
        """Whether its next request can be handled."""
        return b"\n" in self.received and not self.waiting and not self.unsent

    @property
    def reads(self) -> bool:
        """Whether to read more from it."""
        return not self.ended and b"\n" not in self.received


class ControlServer:
    """Serves on *listening*, which it owns.

    The owner of *selector* calls the functions that are registered with it.

    *serve* gets each request, and a function to call with the answer, now or later. Further
    answers, and answers to clients that have disconnected, are ignored.
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
        self._clients: list[_Client] = []  # the one that was silent for the longest first
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        listening.setblocking(False)
        selector.register(listening, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close everything, without answers, and remove the socket's file.

        A client of Stop waits for this end of its connection.
        """
        path = self.listening.getsockname()
        self._selector.unregister(self.listening)
        self.listening.close()
        socket_path.remove(path)
        for client in list(self._clients):
            self._drop(client)
        self.abandon()

    def abandon(self) -> None:
        """Close everything in a child, without unregistering it: the selector is the parent's."""
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
            _last_words(sock, "Only root and the server's own user may send requests.")
            sock.close()
            return
        if len(self._clients) >= MOST_CONNECTIONS:
            # The one that was silent for the longest. One that waits for an answer goes only if all
            # do.
            self._drop(min(self._clients, key=lambda client: client.waiting and not client.ended))
        client = _Client(sock)
        self._clients.append(client)
        self._watch(client)

    def _turn_away(self) -> None:
        """Accept and close a connection with the spare descriptor; no other is left.

        Otherwise the loop would spin on the listener.
        """
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with contextlib.suppress(OSError):
            sock, _ = self.listening.accept()
            sock.close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _ready(self, client: _Client) -> None:
        # An earlier callback of the same turn may have dropped it.
        if client in self._clients and self._send(client) and self._receive(client):
            if client.asks:
                self._next_request(client)
            else:
                self._watch(client)

    def _receive(self, client: _Client) -> bool:
        """Read from the client. Returns whether it is still connected."""
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
        # Sent now, because the server may be about to exit.
        if self._send(client):
            self._watch(client)

    def _send(self, client: _Client) -> bool:
        """Send as much as goes without blocking. Returns whether the client is still connected."""
        try:
            if client.unsent:
                client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return self._drop(client)
        return True

    def _watch(self, client: _Client) -> None:
        """Register the client for what it can do next, and drop it if it can do nothing."""
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
    """Return whether the peer is this account or root.

    If the system does not tell, the mode of the socket's file has checked it.
    """
    return peer_uid(sock) in (None, 0, os.geteuid())


def _last_words(sock: socket.socket, error: str) -> None:
    with contextlib.suppress(OSError):
        sock.send(_line({"error": error}))


def _line(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer).encode("ascii") + b"\n"
