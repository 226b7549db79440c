"""Slow clients by the thousand, each kind beside normal clients, which must not notice.

Nothing here depends on how fast the machine is, or how busy: normal clients are compared with those of a server
beside this one that nobody attacks, and deadlines leave out the time in which the server waits for a processor.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import attackers
import pytest
from attackers import KINDS, REST_SECONDS, Report
from target import QUICK, Target, target

from certificates import Pair
from flask_prodserve.engine.connection.progress import SILENT_SECONDS
from flask_prodserve.engine.connection.table import SLACK
from flask_prodserve.observe.limit_events import QUIET_SECONDS
from flask_prodserve.protocol.deadlines import RATE_SECONDS
from profiles import sized
from serving import PATIENCE, run, wait_until

pytestmark = [
    pytest.mark.usefixtures("precedence"),
    pytest.mark.skipif(sys.platform != "linux", reason="the attackers need epoll, and the tests /proc"),
]

SECONDS = sized(30.0, 30.0, 120.0)
"""How long each kind attacks. In less than 25 some attackers would not reach their deadline; in 30 each one
is cut twice or more, a slow reader once or more."""

HEADER_TIMEOUT = 10.0
BODY_TIMEOUT = 8.0
SEND_TIMEOUT = 8.0
KEEPALIVE_TIMEOUT = 10.0

TOLERANCE = 2.0
"""Seconds after its deadline in which an attacker is cut. Time in which a thread of the server waits for a
processor does not count."""

EARLY = 0.5
"""Seconds before its deadline in which it may seem to be cut, since it has seen late that its turn began."""

BASE_REQUESTS = 500
"""Normal requests that are measured without attackers."""

SLOWDOWN = 5.0
"""How many times as long the slowest hundredth of the normal requests may take with attackers."""

LEAST_BASE = 0.005
"""Seconds, in place of a measured base that is less. Any request may wait this long by chance if busy processes
share two processors: for the GIL, which is passed on after 5 ms, or for a time slice of the system's.
"""

PAUSE_SECONDS = 0.01
"""Between two requests of a normal client."""

STARVED_SECONDS = 0.5
"""If a thread of the server waited for a processor this long within TOLERANCE, other programs kept the server from
running, and how fast it answered says nothing about it. As root the server runs before other programs: see ``precedence``."""

IDLE_SECONDS = 10 * PAUSE_SECONDS
"""A client that was kept from running for so long counts as idle: its connection may be closed meanwhile."""


@dataclass(frozen=True)
class Cut:
    """What becomes of attackers of a kind: *how* they are cut at the *deadline*, and by which *setting*, where the log names that.

    *ahead* is for how many seconds a client may have been ahead of its least rate before: so much later it is cut.
    """

    deadline: float
    how: str
    setting: str | None
    ahead: float = 0.0


CUTS = {
    "slow-head": Cut(HEADER_TIMEOUT, "408", "HEADER_TIMEOUT"),
    "dripping-body": Cut(RATE_SECONDS, "408", "MIN_BODY_RATE"),
    "stalled-body": Cut(BODY_TIMEOUT, "408", "BODY_TIMEOUT"),
    # Its system takes the beginning at once. How much that is, is the system's matter.
    "dripping-reader": Cut(RATE_SECONDS, "reset", "MIN_SEND_RATE", ahead=RATE_SECONDS),
    "stalled-reader": Cut(SEND_TIMEOUT, "reset", "SEND_TIMEOUT"),
    "silent": Cut(HEADER_TIMEOUT, "closed", "HEADER_TIMEOUT"),
    "idle": Cut(KEEPALIVE_TIMEOUT, "closed", None),  # nothing out of the ordinary
    "silent-handshake": Cut(HEADER_TIMEOUT, "closed", "HEADER_TIMEOUT"),
    "half-hello": Cut(HEADER_TIMEOUT, "closed", "HEADER_TIMEOUT"),
    "dripping-hello": Cut(HEADER_TIMEOUT, "closed", "HEADER_TIMEOUT"),
    "half-handshake": Cut(HEADER_TIMEOUT, "closed", "HEADER_TIMEOUT"),
}


@dataclass
class NormalClients:
    """Two clients: one keeps its connection, the other has a new one for each request. *seconds* is what each request took."""

    address: tuple[str, int]
    tls: ssl.SSLContext | None = None
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(fields,)) for fields in ({}, {"Connection": "close"})]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(2 * PATIENCE)

    def _ask(self, fields: dict[str, str]) -> None:
        connection: http.client.HTTPConnection
        if self.tls is not None:
            connection = http.client.HTTPSConnection(*self.address, timeout=PATIENCE, context=self.tls)
        else:
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        ended = time.monotonic()
        while not self._stop.wait(PAUSE_SECONDS):
            began = sent = time.monotonic()
            try:
                connection.request("GET", "/", headers=fields)
                sent = time.monotonic()
                response = connection.getresponse()
                answer = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, TimeoutError) or max(sent, began) - ended < IDLE_SECONDS:
                    self.failures.append(repr(error))
                connection.close()
                ended = time.monotonic()
                continue
            ended = time.monotonic()
            self.seconds.append(ended - began)
            if answer != (200, QUICK):
                self.failures.append(repr(answer))
        connection.close()

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


class Delays:
    """How long the threads of a server had to wait for a processor."""

    def __init__(self, served: Target) -> None:
        self._served = served
        self._looks: list[tuple[float, dict[str, float]]] = []

    def look(self) -> None:
        self._looks.append((time.monotonic(), self._served.delays))

    @property
    def longest(self) -> float:
        """The longest wait of a thread, in seconds, between two looks that are about TOLERANCE apart."""
        waits = [0.0]
        for index, (began, before) in enumerate(self._looks):
            for ended, after in self._looks[index + 1 :]:
                waits += [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]
                if ended - began > TOLERANCE:
                    break
        return max(waits)


@dataclass
class Outcome:
    """Of an attack: the *base* for the normal *clients*, what the attackers report, the most *descriptors* of the
    server, how *late* it was for want of a processor, and how many *seconds* it took."""

    base: float
    clients: NormalClients
    report: Report
    descriptors: int
    late: float
    seconds: float

    def check_clients(self) -> None:
        """Check that the normal clients have not noticed it."""
        assert self.clients.failures == []
        if self.late < STARVED_SECONDS:
            p99, most = self.clients.p99, SLOWDOWN * max(self.base, LEAST_BASE)
            assert p99 < most
        else:
            print("normal clients are not compared: other programs kept the server from running")

    def check_log(self, logged: Counter[str], expected: set[str | None]) -> None:
        """Check that the log names the *expected* reasons and no others, each once a minute."""
        if self.late >= STARVED_SECONDS:
            expected = {*expected, "THREADS"}  # requests waited for threads, as these for a processor
        assert set(logged) <= expected
        assert max(logged.values()) <= 1 + self.seconds // QUIET_SECONDS


def attack(served: Target, beside: Target, counts: dict[str, int], seconds: float) -> Outcome:
    """Attack *served*, and not *beside*, with so many of each kind, and wait for the end of that."""
    before = NormalClients(served.address, served.tls)
    with before.asking():
        wait_until(lambda: len(before.seconds) >= BASE_REQUESTS or before.failures, "normal requests")
    assert before.failures == []
    memory = served.mebibytes("VmRSS")
    during = NormalClients(served.address, served.tls)
    elsewhere = NormalClients(beside.address, beside.tls)
    delays = Delays(served)
    host, port = served.address
    kinds = [f"{kind}={count}" for kind, count in counts.items()]
    descriptors = 0
    began = time.monotonic()
    with (
        during.asking(),
        elsewhere.asking(),
        run([sys.executable, attackers.__file__, host, str(port), str(seconds), *kinds], cwd=Path.cwd()) as attacking,
    ):
        while attacking.process.poll() is None:
            assert time.monotonic() - began < seconds + PATIENCE, "the attackers do not end"
            descriptors = max(descriptors, served.descriptors)
            delays.look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                attacking.process.wait(0.25)
        assert attacking.exit_code() == 0, attacking.output
    base = max(before.p99, elsewhere.p99)
    took = time.monotonic() - began
    outcome = Outcome(base, during, Report.parse(attacking.output), descriptors, delays.longest, took)
    print(
        f"p99 {before.p99 * 1000:.1f} ms before, {elsewhere.p99 * 1000:.1f} ms elsewhere, {during.p99 * 1000:.1f} ms during the "
        f"attack, of {len(during.seconds)} requests; late by {outcome.late:.2f}s; "
        f"memory {memory:.0f} MiB before, at most {served.mebibytes('VmHWM'):.0f} MiB; at most {descriptors} descriptors; "
        f"{len(outcome.report.connections)} connections, looked at every {outcome.report.lag:.2f}s or more often; {dict(served.logged)}"
    )
    return outcome


def check_cuts(outcome: Outcome, counts: dict[str, int], *, may_be_early: bool) -> None:
    """Check that all attackers were cut at their deadlines, every time, in the way that their kind is."""
    report, late = outcome.report, outcome.late
    for kind, count in counts.items():
        cut = CUTS[kind]
        connections = [connection for connection in report.connections if connection.kind == kind]
        assert {connection.how for connection in connections} <= {cut.how, "open"}
        latest = cut.deadline + cut.ahead + TOLERANCE + late
        assert [connection for connection in connections if connection.open_for > latest] == []
        closed = [connection for connection in connections if connection.how == cut.how]
        if not may_be_early:
            earliest = cut.deadline - EARLY - report.lag
            assert [connection for connection in closed if connection.cut_by < earliest] == []
        period = KINDS[kind].period
        stalls_after = (KINDS[kind].stalls_after or 0) * (KINDS[kind].every + report.lag)
        longest = max(stalls_after + latest + REST_SECONDS, period) + report.lag
        times_cut = Counter(connection.attacker for connection in closed)
        assert len(times_cut) == count
        assert min(times_cut.values()) >= (SECONDS - period - report.lag) // longest


@pytest.mark.parametrize(
    ("counts", "growth", "early"),
    [
        pytest.param({"slow-head": 1000}, 64, None, id="heads"),
        pytest.param({"dripping-body": 500, "stalled-body": 500}, 64, None, id="bodies"),
        pytest.param({"silent": 500, "idle": 500}, 64, None, id="idle"),
        pytest.param(
            {"silent-handshake": 250, "half-hello": 250, "dripping-hello": 250, "half-handshake": 250},
            128,
            None,
            id="handshakes",
        ),
        # What is kept for them is within MAX_SPOOL, so that they may stay until their deadline.
        pytest.param({"dripping-reader": 40, "stalled-reader": 40}, 512, None, id="readers"),
        pytest.param({"dripping-reader": 250, "stalled-reader": 250}, 512, "MAX_SPOOL", id="readers-of-too-much"),
    ],
)
def test_slow_clients(
    tmp_path: Path, localhost: Pair, counts: dict[str, int], growth: float, early: str | None
) -> None:
    """Slow clients are cut at their deadlines, or by *early* before, and leave nothing behind; the log has a line a minute for each reason;
    the memory grows by less than *growth* MiB; and normal clients do not notice."""
    settings = {
        "MAX_CONNECTIONS": "2500",
        "HEADER_TIMEOUT": f"{HEADER_TIMEOUT}s",
        "BODY_TIMEOUT": f"{BODY_TIMEOUT}s",
        "SEND_TIMEOUT": f"{SEND_TIMEOUT}s",
        "KEEPALIVE_TIMEOUT": f"{KEEPALIVE_TIMEOUT}s",
        "QUEUE_TIMEOUT": f"{10 * PATIENCE}s",  # no machine is too slow for this
    }
    tls = localhost if "half-handshake" in counts else None
    with target(tmp_path, tls=tls, **settings) as served, target(tmp_path, tls=tls, **settings) as beside:
        memory = served.mebibytes("VmRSS")
        with served.left_as_found():
            outcome = attack(served, beside, counts, SECONDS)
        outcome.check_clients()
        check_cuts(outcome, counts, may_be_early=early is not None)
        assert served.mebibytes("VmHWM") < memory + growth
        outcome.check_log(served.logged, {early, *(CUTS[kind].setting for kind in counts)})


def test_more_idle_connections_than_there_may_be(tmp_path: Path) -> None:
    """With twice as many idle connections as MAX_CONNECTIONS allows, which come again and again, each new client finds room."""
    most = 200
    with target(tmp_path, MAX_CONNECTIONS=str(most)) as served, target(tmp_path) as beside:
        with served.left_as_found():
            before = served.descriptors
            outcome = attack(served, beside, {"idle": 2 * most}, 10.0)
        outcome.check_clients()
        assert {connection.how for connection in outcome.report.connections} == {"closed", "open"}
        assert before + most / 2 < outcome.descriptors <= before + most + SLACK
        assert served.logged["idle"] > 0
        # An attacker that was kept from sending its request for a second counts as silent.
        waited = max(outcome.report.lag, outcome.late) > SILENT_SECONDS / 2
        outcome.check_log(served.logged, {"idle", "silent"} if waited else {"idle"})
