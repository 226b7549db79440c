"""slowhttptest, Debian's, which asks every second whether the server still answers, while it holds connections in its ways."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import pytest
from target import QUICK, target

from flask_prodserve.observe.limit_events import QUIET_SECONDS
from programs import program
from serving import PATIENCE, run, wait_until
from wire import get

pytestmark = [
    # The program asks for an answer within PROBE_SECONDS, which must not depend on other programs.
    pytest.mark.usefixtures("precedence"),
    pytest.mark.skipif(sys.platform != "linux", reason="the tests look into /proc"),
]

CONNECTIONS = 400
SECONDS = 16
PROBE_SECONDS = 3
"""After which a server that has not answered is not available."""

LIMITS = {"HEADER_TIMEOUT": "5s", "BODY_TIMEOUT": "5s", "SEND_TIMEOUT": "5s"}


@pytest.mark.parametrize(
    ("mode", "path", "reasons"),
    [
        pytest.param(["-H"], "/", {"HEADER_TIMEOUT"}, id="head"),
        pytest.param(["-B", "-s", "100000"], "/upload", {"MIN_BODY_RATE"}, id="body"),
        # Reads 16 bytes a second, and says that its window is 512 to 1024 bytes.
        pytest.param(
            ["-X", "-n", "1", "-z", "16", "-w", "512", "-y", "1024"],
            "/large",
            {"MIN_SEND_RATE", "SEND_TIMEOUT", "MAX_SPOOL"},
            id="read",
        ),
    ],
)
def test_service_is_available(tmp_path: Path, mode: list[str], path: str, reasons: set[str]) -> None:
    """The service is available in every second of the attack, whose connections are cut meanwhile, and after it."""
    with target(tmp_path, **LIMITS) as served, served.left_as_found():
        began = time.monotonic()
        host, port = served.address
        arguments = {
            "-c": CONNECTIONS,
            "-r": CONNECTIONS // SECONDS,
            "-i": 1,
            "-l": SECONDS,
            "-p": PROBE_SECONDS,
            "-u": f"http://{host}:{port}{path}",
            "-o": "report",
        }
        options = [text for option, value in arguments.items() for text in (option, str(value))]
        with run([program("slowhttptest"), *mode, "-g", *options], cwd=tmp_path) as attacking:
            wait_until(lambda: served.logged, "connections to be cut")
            attacking.process.wait(SECONDS + PATIENCE)
            assert attacking.exit_code() == 0, attacking.output
        with (tmp_path / "report.csv").open(newline="") as report:
            rows = list(csv.DictReader(report))
        # The column has the number of connections, for a chart, or 0.
        assert [row for row in rows if int(row["Service Available"]) != CONNECTIONS] == []
        assert len(rows) >= SECONDS / 2
        assert get(served.address).body == QUICK
        assert set(served.logged) <= reasons
        assert max(served.logged.values()) <= 1 + (time.monotonic() - began) // QUIET_SECONDS
