"""A steady load of strict clients, in one thread, and all that went wrong with it.

Rules:

- A request carries a number that no other has, and its answer must be 200, whole, and carry that number; whatever else happens to it is
  a failure. The app under load answers ``NUMBER PID VERSION`` (see ``server``).
- Clients obey HTTP: a connection is given up after ``Connection: close``, and the next request goes out when the last answer is there.
- A connection that was answered on before and ends before a byte of the next answer is what RFC 9112 section 9.3.1 lets clients try
  again: counted as a retry, and tried once more. A server that says ``Connection: close`` beforehand causes none.
- The load is light on purpose: clients pause between requests, so that two cores are enough for them and for the server.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import random
import re
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from findings import CLOSING_SECONDS, Answer, Failure, Result

from serving import PATIENCE, wait_until

Address = tuple[str, int] | str

LOOK_SECONDS = 0.2
"""How often deadlines are looked at, and whether to go on."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a client behaves: *keeps* its connection, begins the next request after about *pause* seconds, and sends *body* in a
    packet of its own, *split* seconds after the head.
    """

    keeps: bool
    target: str
    pause: float
    body: bytes = b""
    split: float = 0.0


KINDS = {
    "keeping": Kind(True, "/echo", 0.12),
    "connecting": Kind(False, "/echo", 0.12),
    "slow": Kind(True, "/slow", 0.05, body=b"b" * 2000, split=0.03),
}


class Load:
    """``with Load(address) as load:`` runs until the block ends, over TLS with the context *tls*. Everything may be read at any time, from
    any thread.
    """

    def __init__(
        self,
        address: Address,
        *,
        host: str = "load",
        tls: ssl.SSLContext | None = None,
        keeping: int = 12,
        connecting: int = 4,
        slow: int = 3,
        at_once: bool = False,
    ) -> None:
        self.address = address
        self.host = host
        self.tls = tls
        self.failures: list[Failure] = []
        self.retries: list[Failure] = []
        self.refused: list[float] = []
        """When clients were refused after :meth:`expect_end`, each once, for the first time and the last."""
        self.answered: Counter[int] = Counter()
        """By the process that answered."""
        self.last: dict[str, Answer] = {}
        """By client."""
        self.numbers = itertools.count(1)
        self.stopping = self.ending = False
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._scheduled = itertools.count()
        self._random = random.Random(5)
        counts = {"keeping": keeping, "connecting": connecting, "slow": slow}
        self.clients = [
            _Client(self, f"{name}-{index}", KINDS[name]) for name in counts for index in range(counts[name])
        ]
        now = time.monotonic()
        for client in self.clients:
            self.at(now if at_once else now + self.spread(client.kind.pause), client.begin)
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._crash: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_for(self, count: int) -> None:
        """Until there are so many answers more."""
        before = self.answered.total()
        wait_until(
            lambda: self.answered.total() >= before + count or not self._thread.is_alive(), f"{count} answers more"
        )

    def wait_until_all(self, holds: Callable[[Answer], bool], what: str) -> None:
        """Until *holds* is true of the last answer of every client."""
        wait_until(
            lambda: len(self.last) == len(self.clients) and all(map(holds, list(self.last.values()))),
            what,
        )

    def wait_for_processes(self, count: int) -> None:
        """Until so many processes have answered."""
        wait_until(lambda: len(self.answered) >= count, f"answers of {count} processes")

    def expect_end(self) -> None:
        """From now on it is no failure to be refused a new connection; the client stays away then."""
        self.ending = True

    def wait_ended(self) -> None:
        """Until every client has been refused."""
        wait_until(lambda: not self._thread.is_alive(), "every client to be refused")

    def stop(self) -> None:
        """Begin no more requests, and wait for the answers to those that are under way."""
        self.stopping = True
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive(), "the load does not end"
        if self._crash is not None:
            raise self._crash

    def result(self) -> Result:
        """Stop, and say what has happened."""
        self.stop()
        closing = CLOSING_SECONDS if isinstance(self.address, str) else 0.0
        return Result(self.answered.total(), self.answered, self.failures, self.retries, self.refused, closing)

    # For the clients, in the thread of the load.

    def at(self, when: float, function: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (when, next(self._scheduled), function))

    def spread(self, seconds: float) -> float:
        """Between half and one and a half of *seconds*, so that requests come at all points of what the server does."""
        return seconds * self._random.uniform(0.5, 1.5)

    def watch(self, client: _Client, sock: socket.socket, events: int) -> None:
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, client)
        else:
            self._selector.register(sock, events, client)

    def forget(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    def _run(self) -> None:
        try:
            next_look = 0.0
            while any(not client.over for client in self.clients):
                now = time.monotonic()
                until = min(self._due[0][0] if self._due else now + LOOK_SECONDS, now + LOOK_SECONDS)
                events = self._selector.select(max(0.0, until - now))
                now = time.monotonic()
                for key, _ in events:
                    key.data.handle(now)
                while self._due and self._due[0][0] <= now:
                    heapq.heappop(self._due)[2](now)
                if now >= next_look:
                    next_look = now + LOOK_SECONDS
                    for client in self.clients:
                        client.look(now)
        except BaseException as error:  # raised where the load is stopped
            self._crash = error
        finally:
            for client in self.clients:
                client.close()
            self._selector.close()


class _Client:
    """One client: at rest, connecting (and shaking hands), or waiting for the answer to request *_number*."""

    def __init__(self, load: Load, name: str, kind: Kind) -> None:
        self.kind = kind
        self.over = False
        self._name = name
        self._load = load
        self._socket: socket.socket | None = None
        self._connected = self._asking = self._retried = False
        self._opened = self._began = self._began_before = 0.0
        self._number = 0
        self._received = b""
        self._pid: int | None = None

    def begin(self, now: float) -> None:
        """Ask the next request."""
        if self.over:
            return
        if self._load.stopping:
            self._end()
            return
        self._number = next(self._load.numbers)
        self._asking, self._retried = True, False
        self._began_before, self._began = self._began, now
        if self._socket is not None and self._has_ended():
            self.close()  # which the server may do while it is idle, and a client sees before it asks
        self._ask(now)

    def handle(self, now: float) -> None:
        """Something has happened on the connection."""
        assert self._socket is not None
        if not self._connected:
            failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                self._not_connected(failed, now)
            else:
                self._shake_hands(now)
            return
        try:
            data = self._socket.recv(65536)  # more than one record, and an answer is one
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._broken("reset", now, repr(error))
            return
        if not data:
            self._broken("ended", now)
        elif not self._asking:
            self._fail("unasked", now, repr(data))
        else:
            self._received += data
            self._read(now)

    def look(self, now: float) -> None:
        if self._asking and now > self._began + PATIENCE:
            self._fail("unanswered" if self._connected else "unconnected", now)
        elif self._load.stopping and not self._asking:
            self._end()

    def close(self) -> None:
        if self._socket is not None:
            self._load.forget(self._socket)
            self._socket.close()
        self._socket, self._connected, self._pid = None, False, None

    def _end(self) -> None:
        self.close()
        self.over = True

    def _has_ended(self) -> bool:
        assert self._socket is not None
        try:
            # A peek is not to be had over TLS. What comes unasked and is taken here is missing in the next answer.
            return self._socket.recv(1, 0 if self._load.tls else socket.MSG_PEEK) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def _ask(self, now: float) -> None:
        self._received = b""
        if self._socket is None:
            self._connect(now)
        else:
            self._send(now)

    def _connect(self, now: float) -> None:
        address = self._load.address
        self._opened = now
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._socket.setblocking(False)
        self._load.watch(self, self._socket, selectors.EVENT_WRITE)
        failed = self._socket.connect_ex(address)
        if failed not in (0, errno.EINPROGRESS):
            self._not_connected(failed, now)

    def _not_connected(self, failed: int, now: float) -> None:
        if failed in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT) and self._load.ending:
            self._load.refused.append(now)
            self._end()
        else:
            self._fail("refused" if failed == errno.ECONNREFUSED else "unconnected", now, errno.errorcode[failed])

    def _shake_hands(self, now: float) -> None:
        assert self._socket is not None
        if self._load.tls is not None:
            if not isinstance(self._socket, ssl.SSLSocket):
                self._socket = self._load.tls.wrap_socket(
                    self._socket, server_hostname="localhost", do_handshake_on_connect=False
                )
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                self._load.watch(self, self._socket, selectors.EVENT_READ)
                return
            except OSError as error:
                self._fail("unconnected", now, repr(error))
                return
        self._connected = True
        self._load.watch(self, self._socket, selectors.EVENT_READ)
        self._send(now)

    def _send(self, now: float) -> None:
        kind, number = self.kind, self._number
        lines = [f"{'POST' if kind.body else 'GET'} {kind.target}/{number} HTTP/1.1", f"Host: {self._load.host}"]
        if kind.body:
            lines.append(f"Content-Length: {len(kind.body)}")
        if not kind.keeps:
            lines.append("Connection: close")
        self._put("\r\n".join([*lines, "", ""]).encode("ascii"), now)
        if kind.body:
            connection = self._socket
            self._load.at(now + kind.split, lambda now: self._send_body(connection, number, now))

    def _send_body(self, connection: socket.socket | None, number: int, now: float) -> None:
        if self._asking and number == self._number and connection is self._socket:
            self._put(self.kind.body, now)

    def _put(self, data: bytes, now: float) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise
            self._broken("reset", now, repr(error))
        else:
            assert sent == len(data), "an empty socket buffer takes a small request whole"

    def _broken(self, kind: str, now: float, detail: str = "") -> None:
        if not self._asking:
            self.close()
        elif self._pid is not None and not self._received and not self._retried:
            self._load.retries.append(self._failure(kind, now, detail))
            self._retried = True
            self.close()
            self._ask(now)
        else:
            self._fail(kind, now, f"{detail} after {self._received!r}")

    def _read(self, now: float) -> None:
        head, gap, body = self._received.partition(b"\r\n\r\n")
        if not gap:
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._fail("status", now, repr(self._received[:300]))
            return
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head + b"\r\n", re.IGNORECASE)
        if length is None or len(body) > int(length[1]):
            self._fail("framing", now, repr(self._received[:300]))
        elif len(body) == int(length[1]):
            self._answered(body, b"\r\nconnection: close\r\n" in head.lower() + b"\r\n", now)

    def _answered(self, body: bytes, last: bool, now: float) -> None:
        number, pid, version = body.decode().split()
        if int(number) != self._number:
            self._fail("body", now, repr(body))
            return
        self._pid = int(pid)
        self._load.answered[self._pid] += 1
        self._load.last[self._name] = Answer(self._name, self._number, now, self._pid, version)
        if last or not self.kind.keeps:
            self.close()
        self._rest(now)

    def _rest(self, now: float) -> None:
        self._asking = False
        self._load.at(now + self._load.spread(self.kind.pause), self.begin)

    def _failure(self, kind: str, now: float, detail: str) -> Failure:
        # Both ends may have been kept from running: what counts is what the server may have seen at most.
        idle = 0.0 if self._pid is None else now - self._began_before
        return Failure(kind, self._name, self._number, self._opened, now, self._pid, idle, detail)

    def _fail(self, kind: str, now: float, detail: str = "") -> None:
        self._load.failures.append(self._failure(kind, now, detail))
        self.close()
        if self._asking:
            self._rest(now)
