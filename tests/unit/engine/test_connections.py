"""Who may have a connection: counts in all and per client, and who makes room. Without sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from flask_prodserve.engine.connection.progress import SILENT_SECONDS, ClientProgress
from flask_prodserve.engine.connection.table import SLACK, ConnectionTable
from flask_prodserve.engine.exchange.peer import Peer
from flask_prodserve.engine.exchange.reply import Reply
from flask_prodserve.observe.limit_events import LimitEvents
from serving import ManualClock


class Connected:
    """As much of a channel as ConnectionTable looks at."""

    numbers = iter(range(10**9))

    def __init__(
        self, connections: ConnectionTable, address: str = "192.0.2.1", turned_away: Reply | None = None
    ) -> None:
        self.descriptor = next(self.numbers)
        self.peer = Peer(address, 1, "localhost", 80, "http")
        self.turned_away = turned_away
        self.idle: float | None = None
        self.busy_in_the_last_moment = False
        self.silent = False
        self.progress = ClientProgress(connections._clock(), min_send_rate=0)
        self.connected = True
        self.answered = 0
        self._connections = connections
        connections.add(cast(Any, self))

    @property
    def is_turned_away(self) -> bool:
        return self.turned_away is not None

    def turn_away(self, refusal: Reply) -> None:
        self.turned_away = refusal

    def idle_since(self) -> float | None:
        return self.idle if self.connected else None

    def close_idle(self) -> bool:
        if self.busy_in_the_last_moment:
            self.idle = None
            return False
        assert self.connected, "closed twice"
        self.close()
        return True

    def close(self) -> None:
        self.connected = False
        self._connections.remove(cast(Any, self))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limit_events() -> LimitEvents:
    return LimitEvents(ManualClock())


def make(
    limit_events: LimitEvents,
    clock: ManualClock,
    most: int = 3,
    most_per_client: int = 0,
    exempt: Callable[[str], bool] = lambda address: not address,
) -> ConnectionTable:
    return ConnectionTable(most, most_per_client, exempt, limit_events, clock)


def test_up_to_the_limit(limit_events: LimitEvents, clock: ManualClock) -> None:
    """MAX_CONNECTIONS may be there, and one more is told to come back; when one leaves there is room for one."""
    connections = make(limit_events, clock)
    open_ones = []
    for _ in range(3):
        assert connections.refusal("192.0.2.1") is None
        open_ones.append(Connected(connections))
    assert len(connections) == 3
    reply = connections.refusal("192.0.2.1")
    assert reply is not None
    assert (reply.status, reply.closes) == (503, True)
    assert reply.retry_after
    assert limit_events.counts == {"MAX_CONNECTIONS": 1}
    open_ones[1].close()
    assert connections.refusal("192.0.2.1") is None


def test_those_that_are_turned_away_do_not_count(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Connections that are there only to be told that there is no room take none, and there may be SLACK of them."""
    connections = make(limit_events, clock)
    for _ in range(3):
        Connected(connections)
    turned_away = []
    for _ in range(SLACK):
        reply = connections.refusal("192.0.2.1")
        assert reply is not None
        assert connections.has_slack
        turned_away.append(Connected(connections, turned_away=reply))
    assert not connections.has_slack
    turned_away[0].close()
    assert connections.has_slack
    assert connections.refusal("192.0.2.1") is not None


def test_the_longest_idle_makes_room(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Who has been idle since the earliest time goes first, then the next, and who is not idle stays."""
    connections = make(limit_events, clock, most=4)
    open_ones = [Connected(connections) for _ in range(4)]
    for channel, since in zip(open_ones, (30.0, None, 10.0, 20.0), strict=True):
        channel.idle = since
    gone = []
    for _ in range(3):
        clock.advance(1)
        assert connections.refusal("192.0.2.9") is None
        gone.append(next(c for c in open_ones if not c.connected and c not in gone))
        Connected(connections)
    assert gone == [open_ones[2], open_ones[3], open_ones[0]]
    assert open_ones[1].connected
    clock.advance(1)
    assert connections.refusal("192.0.2.9") is not None


def test_idle_no_longer(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Who has been used since it was seen idle, and idle again, has its place at the end; who is closed is passed over."""
    connections = make(limit_events, clock, most=4)
    open_ones = [Connected(connections) for _ in range(4)]
    for since, channel in enumerate(open_ones):
        channel.idle = float(since)
    assert connections.refusal("192.0.2.9") is None
    Connected(connections)
    assert not open_ones[0].connected
    open_ones[1].idle = 50.0
    open_ones[2].close()
    Connected(connections)
    assert connections.refusal("192.0.2.9") is None
    assert not open_ones[3].connected
    Connected(connections)
    clock.advance(1)
    assert connections.refusal("192.0.2.9") is None
    assert not open_ones[1].connected


def test_a_request_in_the_last_moment(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Who turns out to have a request is spared, and the next one goes."""
    connections = make(limit_events, clock, most=2)
    first, second = Connected(connections), Connected(connections)
    first.idle, second.idle = 1.0, 2.0
    first.busy_in_the_last_moment = True
    assert connections.refusal("192.0.2.9") is None
    assert first.connected
    assert not second.connected


def fill(connections: ConnectionTable, *, silent: int, idle: int) -> tuple[list[Connected], list[Connected]]:
    """Connections that have sent nothing, and others that have been idle since their number."""
    mute = [Connected(connections) for _ in range(silent)]
    others = [Connected(connections) for _ in range(idle)]
    for channel in mute:
        channel.silent = True
    for number, channel in enumerate(others):
        channel.idle = float(number)
    return mute, others


def make_room(connections: ConnectionTable, channels: list[Connected], times: int) -> list[Connected]:
    """Which of *channels* are closed for so many others, in this order."""
    gone: list[Connected] = []
    for _ in range(times):
        assert connections.refusal("192.0.2.9") is None
        gone.append(next(c for c in channels if not c.connected and c not in gone))
        Connected(connections)
    return gone


def test_a_flood_of_silent_ones(limit_events: LimitEvents, clock: ManualClock) -> None:
    """If more than half are silent, the oldest of them goes, however young it is, until half are."""
    connections = make(limit_events, clock, most=6)
    silent, idle = fill(connections, silent=5, idle=1)
    assert make_room(connections, [*silent, *idle], 3) == [*silent[:2], *idle]
    assert limit_events.counts == {"silent": 2, "idle": 1}


def test_young_silent_ones_go_last(limit_events: LimitEvents, clock: ManualClock) -> None:
    """A client that has just connected has a second for its first bytes, for which idle ones go; where there are none, it goes."""
    connections = make(limit_events, clock, most=6)
    silent, idle = fill(connections, silent=3, idle=3)
    assert make_room(connections, [*silent, *idle], 4) == [*idle, silent[0]]


def test_old_silent_ones_go_first(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Who has been silent for a second goes before those that have sent requests, however long they have been idle."""
    connections = make(limit_events, clock, most=6)
    silent, idle = fill(connections, silent=3, idle=3)
    clock.advance(SILENT_SECONDS)
    assert make_room(connections, [*silent, *idle], 4) == [*silent, idle[0]]


def test_silent_no_longer(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Who has said something since, or says it in the last moment, is not silent; who has gone is forgotten."""
    connections = make(limit_events, clock, most=4)
    silent, _ = fill(connections, silent=4, idle=0)
    silent[0].silent = False
    silent[1].busy_in_the_last_moment = True
    silent[2].close()
    Connected(connections)
    assert make_room(connections, silent[:2] + silent[3:], 1) == [silent[3]]
    clock.advance(1)
    assert connections.refusal("192.0.2.9") is not None
    for channel in list(connections.connections.values()):
        channel.close()
    assert not connections._silent


def test_a_flood_costs_no_scan(limit_events: LimitEvents, clock: ManualClock) -> None:
    """With silent connections there, making room for each of a thousand new ones looks at none of the others."""
    connections = make(limit_events, clock, most=10)

    class Silent(Connected):
        def idle_since(self) -> float | None:
            raise AssertionError("looked at")

    for _ in range(10):
        Silent(connections).silent = True
    for _ in range(1000):
        assert connections.refusal("192.0.2.9") is None
        Silent(connections).silent = True
    assert limit_events.counts == {"silent": 1000}
    assert len(connections) == len(connections._silent) == 10


def test_looking_for_idle_ones_is_bounded(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Where none is idle, a thousand new connections do not mean that all are looked at a thousand times."""
    looks = [0]
    connections = make(limit_events, clock, most=2)

    class Counting(Connected):
        def idle_since(self) -> float | None:
            looks[0] += 1
            return None

    for _ in range(2):
        Counting(connections)
    for _ in range(1000):
        assert connections.refusal("192.0.2.9") is not None
    assert looks[0] <= 4
    clock.advance(1)
    assert connections.refusal("192.0.2.9") is not None
    assert looks[0] > 2


# MAX_CONNECTIONS_PER_CLIENT


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("2001:db8::1", "2001:0db8:0000::0001", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "::1", False),
    ],
)
def test_what_one_client_is(limit_events: LimitEvents, clock: ManualClock, one: str, other: str, same: bool) -> None:
    """An IPv4 address, however it is written, or the /64 network of an IPv6 address, is one client."""
    connections = make(limit_events, clock, most=100, most_per_client=1)
    channel = Connected(connections, one)
    assert (connections.refusal(other) is not None) == same
    channel.close()
    assert connections.refusal(other) is None
    assert not connections._by_client, "clients that have gone are forgotten"


def test_limit_of_one_client(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Beyond its limit a client is told to come back, whether its connections are idle or not, and others are not disturbed."""
    connections = make(limit_events, clock, most=100, most_per_client=2)
    first, second = (Connected(connections, "192.0.2.1") for _ in range(2))
    first.idle = second.idle = 1.0
    reply = connections.refusal("192.0.2.1")
    assert reply is not None
    assert (reply.status, reply.closes) == (503, True)
    assert reply.retry_after
    turned_away = Connected(connections, "192.0.2.1", reply)
    assert connections.refusal("192.0.2.2") is None
    assert first.connected
    first.close()
    assert connections.refusal("192.0.2.1") is None
    turned_away.close()
    Connected(connections, "192.0.2.1")
    assert connections.refusal("192.0.2.1") is not None
    assert limit_events.counts == {"MAX_CONNECTIONS_PER_CLIENT": 2}


def test_no_limit_of_one_client(limit_events: LimitEvents, clock: ManualClock) -> None:
    """0 is no limit, and nothing is counted."""
    connections = make(limit_events, clock, most=1000)
    for _ in range(500):
        assert connections.refusal("192.0.2.1") is None
        Connected(connections, "192.0.2.1")
    assert not connections._by_client


def test_exempt(limit_events: LimitEvents, clock: ManualClock) -> None:
    """Who is exempt, as proxies and Unix sockets are, is not counted."""
    connections = make(limit_events, clock, 100, 1, lambda address: address in ("", "192.0.2.1"))
    for address in ("", "192.0.2.1"):
        for _ in range(10):
            assert connections.refusal(address) is None
            Connected(connections, address)
    assert not connections._by_client
    Connected(connections, "192.0.2.2")
    assert connections.refusal("192.0.2.2") is not None


def test_a_client_that_is_known_later(limit_events: LimitEvents, clock: ManualClock) -> None:
    """A connection of an exempt proxy counts as its client's once that is known, and is turned away beyond the limit."""
    connections = make(limit_events, clock, most=100, most_per_client=1, exempt=lambda address: address == "10.0.0.1")
    announced = [Connected(connections, "10.0.0.1") for _ in range(SLACK + 2)]
    verdicts = []
    for channel in announced:
        channel.peer = channel.peer._replace(address="2001:db8::1")
        verdicts.append(connections.identify(cast(Any, channel)))
    assert verdicts == [True] * (SLACK + 1) + [False]
    assert [channel.turned_away is not None for channel in announced] == [False, *[True] * SLACK, False]
    assert connections.refusal("2001:db8::2") is not None  # of the same network
    for channel in announced:
        channel.close()
    assert not connections._by_client
    assert connections.has_slack
    assert connections.refusal("2001:db8::1") is None
