"""The open connections of all listeners, and which new ones may join them. For the event loop's
thread only, unless a member says more.

At MAX_CONNECTIONS a connection is closed for each new one, in this order:

1. The oldest silent connection, on which nothing has arrived, if it is older than SILENT_SECONDS,
   or if more than half of all connections are silent: opening thousands costs an attacker nothing.
   It stays if its request has arrived in the kernel meanwhile.
2. A connection that has sent its last response and waits for the client to close.
3. The connection that has been idle for longest since its last response.
4. The oldest silent connection.

If there is none, the new connection is refused: its first request gets 503, and it is closed. Up to
SLACK of these may be open in addition to MAX_CONNECTIONS; further ones are closed unread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from ...clock import Clock
from ...observe.limit_events import LimitEvents
from ..exchange.reply import RETRY_AFTER_SECONDS, Reply
from ..exchange.task import Task
from .connection import Connection
from .progress import SILENT_SECONDS

SLACK = 64
"""Connections that may be open in addition to MAX_CONNECTIONS, for as long as it takes to refuse
them.
"""

SCAN_SECONDS = 0.1
"""How long no idle connection is searched for after none was found, however many new ones arrive.
"""

_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: %d\r\n\r\n"
    % RETRY_AFTER_SECONDS
)


class ConnectionTable:
    """*most* and *most_per_client* (0: no limit) are MAX_CONNECTIONS and
    MAX_CONNECTIONS_PER_CLIENT. *exempt* tells for which addresses the second does not hold.
    """

    def __init__(
        self, most: int, most_per_client: int, exempt: Callable[[str], bool], limit_events: LimitEvents, clock: Clock
    ) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._exempt = exempt
        self._limit_events = limit_events
        self._clock = clock
        self._by_client: Counter[str] = Counter()
        self._client_of: dict[Connection, str] = {}
        """Only of connections that count for MAX_CONNECTIONS_PER_CLIENT."""
        self._turned_away: set[Connection] = set()
        self._idle: deque[tuple[Connection, float]] = deque()
        self._silent: OrderedDict[Connection, None] = OrderedDict()
        """By age: those that were silent at the last check."""
        self._next_scan = clock()
        self._answered = 0
        self.connections: dict[int, Connection] = {}
        """By descriptor."""
        self.changed: Callable[[], None] = _ignore
        """Called when there is one connection more or less."""
        self.orphaned: set[Connection] = set()
        """Closed connections whose request the app still runs. The event loop's thread adds to it,
        any thread removes from it.

        A server that stops waits for views that have not begun their response: their effects, such
        as a stored order, matter without the client, too. It does not wait for streams, which only
        produce a response.
        """

    def __len__(self) -> int:
        return len(self.connections)

    def refusal(self, address: str) -> Reply | None:
        """Make room for a new connection from *address* (``""`` for a Unix socket). Return why
        there is none.
        """
        if self._has_enough(address):
            return self._too_many_of_one()
        if not self.full or self.evict():
            return None
        self._limit_events.count(
            "MAX_CONNECTIONS", f"answered new connections with 503: {self._most} are open, and none is idle"
        )
        return Reply(503, "The server has no room for more connections.", retry_after=RETRY_AFTER_SECONDS)

    @property
    def full(self) -> bool:
        """Whether a new connection has room only if an idle one is closed."""
        return len(self.connections) - len(self._turned_away) >= self._most

    @property
    def has_slack(self) -> bool:
        """Whether one more refused connection may be told why."""
        return len(self._turned_away) < SLACK

    def add(self, connection: Connection) -> None:
        self.connections[connection.descriptor] = connection
        if connection.is_turned_away:
            self._turned_away.add(connection)
        else:
            self._silent[connection] = None
            if self._most_per_client and not self._exempt(connection.peer.address):
                self._count(connection)
        self.changed()

    def identify(self, connection: Connection) -> bool:
        """Count *connection* as its client's, who is known only now: its peer is a proxy, which
        does not count, and has named the client.

        Return whether it may stay, even if only to be told that its client has too many.
        """
        if connection.is_turned_away or not self._most_per_client:
            return True
        if not self._has_enough(connection.peer.address):
            self._count(connection)
            return True
        refusal = self._too_many_of_one()
        if not self.has_slack:
            return False
        connection.turn_away(refusal)
        self._turned_away.add(connection)
        return True

    def _has_enough(self, address: str) -> bool:
        return bool(self._most_per_client) and self._by_client[_client(address)] >= self._most_per_client

    def _too_many_of_one(self) -> Reply:
        self._limit_events.count(
            "MAX_CONNECTIONS_PER_CLIENT",
            f"answered new connections with 503: one address has {self._most_per_client}",
        )
        return Reply(503, "Too many connections from your address.", retry_after=RETRY_AFTER_SECONDS)

    def _count(self, connection: Connection) -> None:
        client = self._client_of[connection] = _client(connection.peer.address)
        self._by_client[client] += 1

    def remove(self, connection: Connection) -> None:
        """Forget *connection*, which is about to be closed."""
        del self.connections[connection.descriptor]
        self._silent.pop(connection, None)
        self._answered += connection.answered
        self._turned_away.discard(connection)
        if (client := self._client_of.pop(connection, None)) is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
        self.changed()

    @property
    def answered(self) -> int:
        """Requests whose answer has begun, on all connections so far."""
        return self._answered + sum(connection.answered for connection in self.connections.values())

    def orphaned_views(self) -> int:
        """Count the :attr:`orphaned` that have not begun their response."""
        tasks = [connection.task for connection in list(self.orphaned)]
        return sum(isinstance(task, Task) and not task.response.begun for task in tasks)

    def evict(self) -> bool:
        """Close the connection that is missed least. Return whether there is one."""
        seconds = 0.0 if self._mostly_silent() else SILENT_SECONDS
        return self._evict_silent(seconds) or self._evict_idle() or self._evict_silent(0.0)

    def _mostly_silent(self) -> bool:
        if len(self._silent) > self._most / 2:  # some of these may have sent something since
            for connection in [connection for connection in self._silent if not connection.silent]:
                del self._silent[connection]
        return len(self._silent) > self._most / 2

    def _evict_silent(self, seconds: float) -> bool:
        """Close the oldest silent connection, if it is older than *seconds*."""
        while self._silent:
            connection = next(iter(self._silent))
            if connection.silent and self._clock() - connection.progress.accepted_at < seconds:
                return False
            del self._silent[connection]
            if connection.silent and connection.close_idle():
                self._limit_events.count(
                    "silent",
                    f"closed connections that had sent nothing, to make room for new ones (MAX_CONNECTIONS: {self._most})",
                    logging.INFO,
                )
                return True
        return False

    def _evict_idle(self) -> bool:
        while self._idle or self._scan():
            connection, since = self._idle.popleft()
            if connection.idle_since() == since and connection.close_idle():
                self._limit_events.count(
                    "idle", "closed idle connections early, to make room for new ones", logging.INFO
                )
                return True
        return False

    def _scan(self) -> bool:
        """Collect the idle connections. Return whether there are any."""
        now = self._clock()
        if now < self._next_scan:
            return False
        idle = [
            (connection, since)
            for connection in self.connections.values()
            if (since := connection.idle_since()) is not None
        ]
        self._idle.extend(sorted(idle, key=lambda entry: entry[1]))
        if not self._idle:
            self._next_scan = now + SCAN_SECONDS
        return bool(self._idle)


def _ignore() -> None:
    pass


def turn_away(sock: socket.socket, *, tls: bool) -> None:
    """Close *sock*, with a 503 as far as that goes at once."""
    with contextlib.suppress(OSError), sock:
        sock.setblocking(False)
        if not tls:
            sock.send(_TURNED_AWAY)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)  # what is unread would make the kernel reset the connection


def _client(address: str) -> str:
    """Return what counts as one client: an address, or the /64 network that one IPv6 subscriber
    has.
    """
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
