"""What several rounds come to, as a table for people and a document for ``--json`` and the chart.

Medians over the rounds, with two exceptions: errors are added up, and CPU time per request is all CPU time by all requests. A ratio
is the median of the ratios within each round, whose servers ran within seconds of each other: what slows the machine for longer than
a round then slows both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from load import Row, Sample
from peers import OURS

BARE = "bare"
"""The app without a server."""

Document = dict[str, Any]


def summarize(row: Row, rounds: Mapping[str, Sequence[Sample]], failures: Mapping[str, str]) -> Document:
    """*rounds* has one sample per round for each server that lived through all; *failures* says of the others what happened."""
    return {
        "name": row.name,
        "title": row.title,
        "connections": row.connections,
        "chart": row.chart,
        "failures": dict(failures),
        "servers": {name: _summary(samples, rounds) for name, samples in rounds.items()},
    }


def _summary(samples: Sequence[Sample], rounds: Mapping[str, Sequence[Sample]]) -> Document:
    requests = sum(sample.requests for sample in samples)
    extras = {key for sample in samples for key in sample.extra}
    return {
        "requests_per_second": median(sample.rate for sample in samples),
        "ratio": _ratio(samples, rounds.get(OURS)),
        "ratio_to_bare": _ratio(samples, rounds.get(BARE)),
        "p50_seconds": _median(sample.p50 for sample in samples),
        "p99_seconds": _median(sample.p99 for sample in samples),
        "requests": requests,
        "errors": sum(sample.errors for sample in samples),
        "cpu_seconds_per_request": sum(sample.cpu for sample in samples) / requests if requests else None,
        "client_cores": _median(
            None if (cpu := sample.client_cpu) is None else cpu / sample.seconds for sample in samples
        ),
        "memory_bytes": _median(sample.memory for sample in samples),
        **{key: _median(sample.extra.get(key) for sample in samples) for key in sorted(extras)},
        "rounds": [asdict(sample) for sample in samples],
    }


def _median(values: Iterable[float | None]) -> float | None:
    """Of those that are there."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _ratio(samples: Sequence[Sample], others: Sequence[Sample] | None) -> float | None:
    """How many times as many requests per second as *others*, or None where that cannot be said."""
    if not others or not all(other.requests for other in others):
        return None
    return median(sample.rate / other.rate for sample, other in zip(samples, others, strict=True))


_COLUMNS = (
    ("requests/s", "requests_per_second", 1.0, ",.0f"),
    ("ratio", "ratio", 1.0, ".2f"),
    ("of bare", "ratio_to_bare", 1.0, ".2f"),
    ("p50 ms", "p50_seconds", 1e3, ",.2f"),
    ("p99 ms", "p99_seconds", 1e3, ",.2f"),
    ("errors", "errors", 1.0, ",.0f"),
    ("CPU us/req", "cpu_seconds_per_request", 1e6, ",.0f"),
    ("wrk cores", "client_cores", 1.0, ".2f"),
    ("RSS MB", "memory_bytes", 1e-6, ",.1f"),
    ("slow p50", "slow_p50", 1e3, ",.1f"),
    ("slow p99", "slow_p99", 1e3, ",.1f"),
    ("idle held", "idle_held", 1.0, ",.0f"),
    ("kB/idle", "idle_bytes", 1e-3, ",.1f"),
)
"""Title, key of the document, factor, format. Columns in which a row has nothing are left out."""


def table(row: Document) -> str:
    """The servers of a row, this one first and the others by requests per second."""
    servers: dict[str, Document] = row["servers"]
    names = sorted(servers, key=lambda name: (name != OURS, -servers[name]["requests_per_second"]))
    columns = [column for column in _COLUMNS if any(server.get(column[1]) is not None for server in servers.values())]
    lines = [[row["name"], *(title for title, *_ in columns)]]
    for name in names:
        lines.append([name, *(_cell(servers[name].get(key), factor, form) for _, key, factor, form in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    failed = [f"{name}: FAILED. {what}" for name, what in row["failures"].items()]
    return "\n".join([row["title"], *text, *failed])


def _cell(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else format(value * factor, form)
