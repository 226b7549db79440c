"""The open connections of all listeners, and who may have one. The loop's thread only, unless said.

At MAX_CONNECTIONS a connection is closed for each new one, in this order:

1. The oldest silent connection, on which nothing has come, if it is older than SILENT_SECONDS, or if more than half of all
   connections are silent: to open thousands costs an attacker nothing. It stays if its request has arrived in the kernel meanwhile.
2. A connection that has sent its last response and waits for the client to close.
3. The connection that has been idle for longest since its last response.
4. The oldest silent connection.

If there is none, the new connection is refused: its first request gets 503, and it is closed. Up to SLACK of these may be open on top
of MAX_CONNECTIONS; further ones are closed unread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..clock import Clock
from ..observe.cuts import Cuts
from .progress import SILENT_SECONDS
from .reply import RETRY_AFTER_SECONDS, Reply
from .task import Task

if TYPE_CHECKING:
    from .channel import Channel

SLACK = 64
"""Connections that may be open on top of MAX_CONNECTIONS for as long as it takes to tell them so."""

SCAN_SECONDS = 0.1
"""How long no idle connection is looked for after none was found, however many new ones come."""

_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: %d\r\n\r\n"
    % RETRY_AFTER_SECONDS
)


class Connections:
    """*most* and *most_per_client* (0: no limit) are MAX_CONNECTIONS and MAX_CONNECTIONS_PER_CLIENT; *exempt* says of which addresses
    the second does not hold.
    """

    def __init__(
        self, most: int, most_per_client: int, exempt: Callable[[str], bool], cuts: Cuts, clock: Clock
    ) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._exempt = exempt
        self._cuts = cuts
        self._clock = clock
        self._by_client: Counter[str] = Counter()
        self._turned_away = 0
        self._idle: deque[tuple[Channel, float]] = deque()
        self._silent: OrderedDict[Channel, None] = OrderedDict()
        """By age: those that were silent when they were last looked at."""
        self._next_scan = clock()
        self.channels: dict[int, Channel] = {}
        """By descriptor. waitress's ``active_channels``."""
        self.changed: Callable[[], None] = _nobody_asks
        """Called when there is one connection more or less."""
        self._answered = 0
        self.left: set[Channel] = set()
        """Those that are closed while the app still runs their request. Added to by the loop's thread, removed from by any.

        A server that stops waits for views that have not begun their response: what they do, such as storing an order, matters without
        the client, too. It does not wait for streams, which only produce a response.
        """

    def __len__(self) -> int:
        return len(self.channels)

    def refusal(self, address: str) -> Reply | None:
        """Why a new connection from *address*, ``""`` for a Unix socket, cannot be had; None where it can. Makes room for it."""
        if self._has_enough(address):
            return self._too_many_of_one()
        if not self.full or self.evict():
            return None
        self._cuts.count("MAX_CONNECTIONS", f"{self._most} connections, none of them idle; new ones get 503")
        return Reply(503, "The server has no room for more connections.", retry_after=RETRY_AFTER_SECONDS)

    @property
    def full(self) -> bool:
        """Whether there is no room for another one, unless an idle one makes it."""
        return len(self.channels) - self._turned_away >= self._most

    @property
    def has_slack(self) -> bool:
        """Whether one more that is turned away can be told why."""
        return self._turned_away < SLACK

    def add(self, channel: Channel) -> None:
        self.channels[channel._fileno] = channel
        if channel.turned_away is not None:
            self._turned_away += 1
        else:
            self._silent[channel] = None
            if self._most_per_client and not self._exempt(channel.addr[0]):
                self._count(channel)
        self.changed()

    def identify(self, channel: Channel) -> bool:
        """Count *channel* as its client's, who is known only now: its peer, a proxy and not counted, has said who it is.

        Returns whether it may stay, be it to be told that its client has too many.
        """
        if channel.turned_away is not None or not self._most_per_client:
            return True
        if not self._has_enough(channel.addr[0]):
            self._count(channel)
            return True
        refusal = self._too_many_of_one()
        if not self.has_slack:
            return False
        channel.turned_away = refusal
        self._turned_away += 1
        return True

    def _has_enough(self, address: str) -> bool:
        return bool(self._most_per_client) and self._by_client[_client(address)] >= self._most_per_client

    def _too_many_of_one(self) -> Reply:
        self._cuts.count("MAX_CONNECTIONS_PER_CLIENT", f"{self._most_per_client} connections of one address")
        return Reply(503, "Too many connections from your address.", retry_after=RETRY_AFTER_SECONDS)

    def _count(self, channel: Channel) -> None:
        channel.counted_as = _client(channel.addr[0])
        self._by_client[channel.counted_as] += 1

    def remove(self, channel: Channel) -> None:
        del self.channels[channel._fileno]
        self._silent.pop(channel, None)
        self._answered += channel.answered
        if channel.turned_away is not None:
            self._turned_away -= 1
        elif (client := channel.counted_as) is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
        self.changed()

    @property
    def answered(self) -> int:
        """Requests whose answer has begun, on all connections that there have been."""
        return self._answered + sum(channel.answered for channel in self.channels.values())

    def left_views(self) -> int:
        """How many of :attr:`left` have not begun their response."""
        tasks = [channel.task for channel in list(self.left)]
        return sum(isinstance(task, Task) and not task.response.begun for task in tasks)

    def evict(self) -> bool:
        """Close the connection that will be missed least. Returns whether there was one."""
        seconds = 0.0 if self._mostly_silent() else SILENT_SECONDS
        return self._evict_silent(seconds) or self._evict_idle() or self._evict_silent(0.0)

    def _mostly_silent(self) -> bool:
        if len(self._silent) > self._most / 2:  # some of these may have spoken since
            for channel in [channel for channel in self._silent if not channel.silent]:
                del self._silent[channel]
        return len(self._silent) > self._most / 2

    def _evict_silent(self, seconds: float) -> bool:
        """Close the oldest silent connection, if it is older than so many *seconds*."""
        while self._silent:
            channel = next(iter(self._silent))
            if channel.silent and self._clock() - channel.progress.accepted_at < seconds:
                return False
            del self._silent[channel]
            if channel.silent and channel.close_idle():
                self._cuts.count(
                    "silent",
                    f"closed connections that had sent nothing, to make room for new ones (MAX_CONNECTIONS: {self._most})",
                    logging.INFO,
                )
                return True
        return False

    def _evict_idle(self) -> bool:
        while self._idle or self._scan():
            channel, since = self._idle.popleft()
            if channel.idle_since() == since and channel.close_idle():
                self._cuts.count("idle", "idle connections are closed early, to make room for new ones", logging.INFO)
                return True
        return False

    def _scan(self) -> bool:
        """Put down who is idle. Returns whether anybody is."""
        now = self._clock()
        if now < self._next_scan:
            return False
        idle = [(channel, since) for channel in self.channels.values() if (since := channel.idle_since()) is not None]
        self._idle.extend(sorted(idle, key=lambda entry: entry[1]))
        if not self._idle:
            self._next_scan = now + SCAN_SECONDS
        return bool(self._idle)


def _nobody_asks() -> None:
    pass


def turn_away(sock: socket.socket, *, tls: bool) -> None:
    """Say 503 to somebody to whom nothing more can be said, as far as that goes at once, and hang up."""
    with contextlib.suppress(OSError), sock:
        sock.setblocking(False)
        if not tls:
            sock.send(_TURNED_AWAY)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)  # what is unread would make the kernel reset the connection


def _client(address: str) -> str:
    """What counts as one client: an address, or the /64 network that one IPv6 subscriber has."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
