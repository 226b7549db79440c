"""``flask serve stop``: stop the running server, and wait until it is gone."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process import control
from .reach import SECONDS, server
from .serve import fail

_LOOK_SECONDS = 1.0


@click.command()
@click.option("--now", is_flag=True, help="Cut running requests instead of letting them finish.")
@pass_script_info
@click.pass_context
def stop(ctx: click.Context, info: ScriptInfo, now: bool) -> None:
    """Stop the running server, and wait until it is gone. Running requests have GRACEFUL_TIMEOUT to finish."""
    try:
        with control.Connection(server(ctx, info)) as connection:
            connection.ask(control.Stop(now), SECONDS)
            _watch(connection)
    except ProdServeError as error:
        fail(ctx, error)
    else:
        click.echo("Stopped.")


def _watch(connection: control.Connection) -> None:
    """Say what is still running, until the server closes *connection*."""
    said = ""
    try:
        while not connection.ends_within(_LOOK_SECONDS):
            going = _still_running(connection.ask(control.Status(), SECONDS))
            if going != said:
                click.echo(going)
                said = going
    except control.ServerGoneError:
        pass  # between the look and the question


def _still_running(told: dict[str, Any]) -> str:
    workers = len(told["workers"])
    requests = sum(worker["busy"] + worker["queued"] for worker in told["workers"])
    return f"Stopping: {requests} request{'s'[: requests != 1]} in {workers} worker{'s'[: workers != 1]} to finish"
