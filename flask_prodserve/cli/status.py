"""``flask serve status``: show the running server and its workers."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..observe.logging import coloured
from ..observe.printable import printable
from ..process import control
from ..units import format_size
from .find_server import ask_server
from .serve import fail

_COLUMNS = (
    "worker",
    "pid",
    "generation",
    "state",
    "up",
    "served",
    "connections",
    "busy",
    "queued",
    "stuck",
    "memory",
)
_COLOURS = {"serving": "green", "ready": "green"}
_MEBIBYTE = 1024**2


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@pass_script_info
@click.pass_context
def status(ctx: click.Context, info: ScriptInfo, as_json: bool) -> None:
    """Show the running server and its workers."""
    try:
        answer = ask_server(ctx, info, control.Status())
    except ProdServeError as error:
        fail(ctx, error)
        return
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(as_table(answer), color=coloured(sys.stdout))


def as_table(status: dict[str, Any]) -> str:
    """Return the answer to Status as text for a terminal, with colours."""
    workers = status["workers"]
    ready = sum(worker["state"] == "ready" for worker in workers)
    lines = [
        f"{click.style(printable(status['app'] or 'The app'), bold=True)} on flask-prodserve {status['version']}, pid {status['pid']}",
        *map(printable, status["listen"]),
        f"{_state(status['state'])} for {span(status['uptime_seconds'])}, generation {status['generation']}, "
        f"{ready} of {status['wanted']} worker{'s'[: status['wanted'] != 1]} ready",
    ]
    if workers:
        rows = [_COLUMNS, *map(_cells, workers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        head, *body = ([_aligned(*cell) for cell in zip(_COLUMNS, row, widths, strict=True)] for row in rows)
        lines += ["", click.style("  ".join(head).rstrip(), bold=True)]
        lines += ["  ".join(_emphasized(worker, cells)) for worker, cells in zip(workers, body, strict=True)]
    return "\n".join(lines)


def span(seconds: float) -> str:
    """Return *seconds* in the two largest units that fit: ``45s``, ``3h 12m``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2])


def _cells(worker: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(worker["number"]),
        str(worker["pid"]),
        str(worker["generation"]),
        worker["state"],
        span(worker["uptime_seconds"]),
        f"{worker['served']:,}",
        *(str(worker[name]) for name in ("connections", "busy", "queued", "stuck")),
        format_size(round(worker["memory_bytes"] / _MEBIBYTE) * _MEBIBYTE) if worker["memory_bytes"] else "-",
    )


def _aligned(column: str, text: str, width: int) -> str:
    return text.ljust(width) if column == "state" else text.rjust(width)


def _emphasized(worker: dict[str, Any], cells: list[str]) -> list[str]:
    """Return *cells* with colours, which come last because they would count as width."""
    cells[_COLUMNS.index("state")] = _state(cells[_COLUMNS.index("state")])
    if worker["stuck"]:
        cells[_COLUMNS.index("stuck")] = click.style(cells[_COLUMNS.index("stuck")], fg="red")
    return cells


def _state(text: str) -> str:
    return click.style(text, fg=_COLOURS.get(text.strip(), "yellow"))
