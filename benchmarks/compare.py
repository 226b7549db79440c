"""Run this server and its peers side by side, and print what each did: ``python compare.py [--rows ...] [--servers ...]``.

For each row all servers are started afresh and stay up, idle; then come several short rounds, in which they are measured one after
the other, each round beginning with another one. So a machine that is slower for a while is slower for all of them. Absolute numbers
say much about the machine; the ratios are the result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import chart
import files
from load import ROWS, LoadFailed, Row, Sample, measure, measure_bare, warm_up
from peers import OURS, PEERS, Peer
from processes import Server, ServerFailed, free_ports
from report import BARE, Document, summarize, table


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and for how many seconds, each of *peers* is measured in each of *rows*."""

    rows: tuple[Row, ...]
    peers: tuple[Peer, ...]
    bare: bool
    threads: int
    rounds: int
    seconds: int


def run_row(row: Row, plan: Plan) -> Document:
    """Measure one row with those it is for. A server that fails is left out of the rest of the row, and the document says why."""
    peers = [peer for peer in plan.peers if peer.static in (row.static, None) and (peer.tls or not row.tls)]
    samples: dict[str, list[Sample]] = {}
    failures: dict[str, str] = {}

    @contextlib.contextmanager
    def failing(name: str) -> Iterator[None]:
        try:
            yield
        except (ServerFailed, LoadFailed) as error:
            failures[name] = str(error)

    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for peer, port in zip(peers, free_ports(len(peers)), strict=True):
            with failing(peer.name):
                servers[peer.name] = stack.enter_context(Server(peer, port, plan.threads, tls=row.tls))
        for name, server in servers.items():
            with failing(name):
                server.wait_ready()
                warm_up(row, server)
        contestants = [*servers, *([BARE] if plan.bare and row.bare else [])]
        for number in range(plan.rounds):
            first = number % max(1, len(contestants))
            for name in contestants[first:] + contestants[:first]:
                if name in failures:
                    continue
                with failing(name):
                    samples.setdefault(name, []).append(
                        measure_bare(row, plan.seconds)
                        if name == BARE
                        else measure(row, servers[name], plan.seconds, first=number == 0)
                    )
    return summarize(row, {name: rounds for name, rounds in samples.items() if name not in failures}, failures)


def machine() -> Document:
    """What the numbers depend on."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "flask": version("flask"),
        "wrk": _wrk_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def _wrk_version() -> str:
    # wrk ends with code 1 after it has said its version.
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout  # noqa: S607  # the wrk on the PATH
    return " ".join(said.split()[1:2])


def _selection(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows, servers = [row.name for row in ROWS], [*(peer.name for peer in PEERS), BARE]
    parser.add_argument("--rows", type=_selection, default=rows, help=f"comma-separated, of {', '.join(rows)}")
    usual = [*(peer.name for peer in PEERS if peer.by_default), BARE]
    parser.add_argument("--servers", type=_selection, default=usual, help=f"comma-separated, of {', '.join(servers)}")
    parser.add_argument("--seconds", type=int, default=3, help="length of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=16, help="threads of each server (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw the rows for the documentation to FILE, as SVG"
    )
    options = parser.parse_args(argv)
    for given, known, what in ((options.rows, rows, "row"), (options.servers, servers, "server")):
        for name in given:
            if name not in known:
                parser.error(f"there is no {what} {name!r}; there are {', '.join(known)}")
    if min(options.seconds, options.rounds, options.threads) < 1:
        parser.error("--seconds, --rounds and --threads are whole numbers from 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    if shutil.which("wrk") is None:
        print("wrk is missing: apt-get install wrk, or https://github.com/wg/wrk", file=sys.stderr)
        return 2
    # SIGTERM unwinds as Ctrl-C does, so that every server is ended; a shell has jobs in the background ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # The idle connections, on both sides; the servers inherit the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    asked = [peer for peer in PEERS if peer.name in options.servers]
    versions = {peer.name: peer.version() for peer in asked}
    plan = Plan(
        tuple(row for row in ROWS if row.name in options.rows),
        tuple(peer for peer in asked if versions[peer.name] is not None),
        BARE in options.servers,
        options.threads,
        options.rounds,
        options.seconds,
    )
    files.make()
    document: Document = {
        "machine": machine(),
        "threads": plan.threads,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "servers": {peer.name: {"version": versions[peer.name], "note": peer.note} for peer in plan.peers},
        "missing": [name for name, found in versions.items() if found is None],
        "rows": [],
    }
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()))
    print(
        f"{plan.rounds} round{'s' * (plan.rounds > 1)} of {plan.seconds} s, {plan.threads} threads; ratio: requests/s against {OURS}"
    )
    for peer in plan.peers:
        print(f"  {peer.name} {versions[peer.name]}{': ' if peer.note else ''}{peer.note}")
    for name in document["missing"]:
        print(f"  {name} is MISSING: not installed, left out (pip install -r requirements.txt)")
    try:
        for row in plan.rows:
            document["rows"].append(run_row(row, plan))
            print(f"\n{table(document['rows'][-1])}", flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted: every server has been ended; what was measured until now is kept", file=sys.stderr)
        code = 130
    else:
        code = 1 if any(row["failures"] for row in document["rows"]) else 0
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.chart:
        options.chart.write_text(chart.draw(document))
    return code


if __name__ == "__main__":
    sys.exit(main())
