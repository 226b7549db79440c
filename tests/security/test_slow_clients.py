"""Slow clients by the thousand, each kind beside normal clients, which must not notice.

Nothing is compared with an absolute time but deadlines: how fast the normal clients are served is measured just before, without attackers.
"""

from __future__ import annotations

import contextlib
import http.client
import os
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
from flask_prodserve.engine.connection.table import SLACK
from flask_prodserve.observe.cuts import QUIET_SECONDS
from flask_prodserve.protocol.deadlines import RATE_SECONDS
from serving import PATIENCE, run, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the attackers need epoll, and the tests /proc")

SECONDS = float(os.environ.get("TEST_ATTACK_SECONDS", "30"))
"""How long each kind attacks: with 30, an attacker is cut twice or more; a slow reader once or more."""
assert SECONDS >= 25, "TEST_ATTACK_SECONDS: in less than 25 some attackers would not reach their deadline"

HEADER_TIMEOUT = 10.0
BODY_TIMEOUT = 8.0
SEND_TIMEOUT = 8.0
KEEPALIVE_TIMEOUT = 10.0

TOLERANCE = 2.0
"""Seconds after its deadline in which an attacker is cut."""

EARLY = 0.5
"""Seconds before its deadline in which it may seem to be cut, since it has seen late that its turn began."""

BASE_REQUESTS = 500
"""Normal requests that are measured without attackers."""

SLOWDOWN = 5.0
"""How many times as long the slowest hundredth of the normal requests may take with attackers."""

LEAST_BASE = 0.005
"""Seconds, in place of a measured base that is less. So long may any request wait by chance, where three busy processes and others share
two processors: for the GIL, which is passed on after 5 ms, or for a time slice of the system's.
"""

PAUSE_SECONDS = 0.01
"""Between two requests of a normal client."""


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
        while not self._stop.wait(PAUSE_SECONDS):
            began = time.monotonic()
            try:
                connection.request("GET", "/", headers=fields)
                response = connection.getresponse()
                answer = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            self.seconds.append(time.monotonic() - began)
            if answer != (200, QUICK):
                self.failures.append(repr(answer))
        connection.close()

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


@dataclass
class Outcome:
    """Of an attack: what the normal clients saw before and during it, what the attackers report, and the server's most *descriptors*."""

    base: float
    clients: NormalClients
    report: Report
    descriptors: int

    def check_clients(self) -> None:
        """The normal clients have not noticed it."""
        assert self.clients.failures == []
        p99, most = self.clients.p99, SLOWDOWN * max(self.base, LEAST_BASE)
        assert p99 < most


def attack(served: Target, counts: dict[str, int], seconds: float) -> Outcome:
    """Attack with so many of each kind, and wait for the end of that."""
    before = NormalClients(served.address, served.tls)
    with before.asking():
        wait_until(lambda: len(before.seconds) >= BASE_REQUESTS or before.failures, "normal requests")
    assert before.failures == []
    memory = served.mebibytes("VmRSS")
    during = NormalClients(served.address, served.tls)
    host, port = served.address
    kinds = [f"{kind}={count}" for kind, count in counts.items()]
    descriptors = 0
    began = time.monotonic()
    with (
        during.asking(),
        run([sys.executable, attackers.__file__, host, str(port), str(seconds), *kinds], cwd=Path.cwd()) as attacking,
    ):
        while attacking.process.poll() is None:
            assert time.monotonic() - began < seconds + PATIENCE, "the attackers do not end"
            descriptors = max(descriptors, served.descriptors)
            with contextlib.suppress(subprocess.TimeoutExpired):
                attacking.process.wait(0.25)
        assert attacking.exit_code() == 0, attacking.output
    outcome = Outcome(before.p99, during, Report.parse(attacking.output), descriptors)
    print(
        f"p99 {outcome.base * 1000:.1f} ms before, {during.p99 * 1000:.1f} ms during the attack, of {len(during.seconds)} requests; "
        f"memory {memory:.0f} MiB before, at most {served.mebibytes('VmHWM'):.0f} MiB; at most {descriptors} descriptors; "
        f"{len(outcome.report.connections)} connections, looked at every {outcome.report.lag:.2f}s or more often; {dict(served.logged)}"
    )
    return outcome


def check_cuts(report: Report, counts: dict[str, int], *, may_be_early: bool) -> None:
    """All attackers were cut at their deadlines, every time, in the way that their kind is."""
    for kind, count in counts.items():
        cut = CUTS[kind]
        connections = [connection for connection in report.connections if connection.kind == kind]
        assert {connection.how for connection in connections} <= {cut.how, "open"}
        latest = cut.deadline + cut.ahead + TOLERANCE
        assert [connection for connection in connections if connection.open_for > latest] == []
        closed = [connection for connection in connections if connection.how == cut.how]
        if not may_be_early:
            assert [connection for connection in closed if connection.cut_by < cut.deadline - EARLY] == []
        stalls_after, period = KINDS[kind].stalls_after or 0.0, KINDS[kind].period
        longest = max(stalls_after + latest + REST_SECONDS, period)
        times_cut = Counter(connection.attacker for connection in closed)
        assert len(times_cut) == count
        assert min(times_cut.values()) >= (SECONDS - period) // longest


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
    with target(
        tmp_path,
        MAX_CONNECTIONS="2500",
        HEADER_TIMEOUT=f"{HEADER_TIMEOUT}s",
        BODY_TIMEOUT=f"{BODY_TIMEOUT}s",
        SEND_TIMEOUT=f"{SEND_TIMEOUT}s",
        KEEPALIVE_TIMEOUT=f"{KEEPALIVE_TIMEOUT}s",
        tls=localhost if "half-handshake" in counts else None,
    ) as served:
        memory = served.mebibytes("VmRSS")
        with served.left_as_found():
            outcome = attack(served, counts, SECONDS)
        outcome.check_clients()
        check_cuts(outcome.report, counts, may_be_early=early is not None)
        assert served.mebibytes("VmHWM") < memory + growth
        assert set(served.logged) <= {early, *(CUTS[kind].setting for kind in counts)}
        assert max(served.logged.values()) <= 1 + SECONDS // QUIET_SECONDS


def test_more_idle_connections_than_there_may_be(tmp_path: Path) -> None:
    """With twice as many idle connections as MAX_CONNECTIONS allows, which come again and again, each new client finds room."""
    most = 200
    with target(tmp_path, MAX_CONNECTIONS=str(most)) as served:
        with served.left_as_found():
            before = served.descriptors
            outcome = attack(served, {"idle": 2 * most}, SECONDS / 3)
        outcome.check_clients()
        assert {connection.how for connection in outcome.report.connections} == {"closed", "open"}
        assert before + most / 2 < outcome.descriptors <= before + most + SLACK
        assert served.logged == {"idle": 1}
