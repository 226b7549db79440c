"""``flask serve stop``: stop the running server, and wait until it is gone."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process import control
from .find_server import SECONDS, find_server
from .serve import fail

_POLL_SECONDS = 1.0


@click.command()
@click.option("--now", is_flag=True, help="Cut running requests instead of letting them finish.")
@pass_script_info
@click.pass_context
def stop(ctx: click.Context, info: ScriptInfo, now: bool) -> None:
    """Stop the running server, and wait until it is gone. Running requests get GRACEFUL_TIMEOUT to
    finish.
    """
    try:
        with control.Connection(find_server(ctx, info)) as connection:
            connection.ask(control.Stop(now), SECONDS)
            _watch(connection)
    except ProdServeError as error:
        fail(ctx, error)
    else:
        click.echo("Stopped.")


def _watch(connection: control.Connection) -> None:
    """Print what is still running, until the server closes *connection*."""
    printed = ""
    try:
        while not connection.ends_within(_POLL_SECONDS):
            text = _still_running(connection.ask(control.Status(), SECONDS))
            if text != printed:
                click.echo(text)
                printed = text
    except control.ServerGoneError:
        pass  # it ended after the check


def _still_running(status: dict[str, Any]) -> str:
    workers = len(status["workers"])
    requests = sum(worker["busy"] + worker["queued"] for worker in status["workers"])
    return f"Stopping: {requests} request{'s'[: requests != 1]} in {workers} worker{'s'[: workers != 1]} to finish"
