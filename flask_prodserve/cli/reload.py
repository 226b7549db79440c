"""``flask serve reload``: replace the workers with new code and new settings, without losing a
request.
"""

from __future__ import annotations

import threading

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process import control
from .find_server import find_server
from .serve import fail

_POLL_SECONDS = 0.2


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait until the new code serves or fails.")
@pass_script_info
@click.pass_context
def reload(ctx: click.Context, info: ScriptInfo, no_wait: bool) -> None:
    """Load the app again in new workers, and replace the old ones once they are ready.

    If the new code does not load, the old workers keep serving, and this command fails with the
    reason.
    """
    try:
        path = find_server(ctx, info)
        with control.Connection(path) as connection:
            if no_wait:
                connection.send(control.Reload())
                click.echo("Reloading.")
                return
            answer = connection.ask(control.Reload(), None)
        if answer.get("replaced"):  # with PRELOAD, another supervisor replaces the one that was asked
            _follow(path, answer["generation"])
    except control.RefusedError as error:
        fail(ctx, ProdServeError(f"Reload failed: {error.what}", "The previous workers keep serving."))
    except ProdServeError as error:
        fail(ctx, error)
    else:
        click.echo(f"Reloaded: generation {answer['generation']} serves.")


def _follow(path: str, generation: int) -> None:
    """Wait until the next supervisor serves *generation*. Raises RefusedError if it failed to."""
    pause = threading.Event()
    while (status := control.ask(path, control.Status(), None))["state"] == "reloading":
        pause.wait(_POLL_SECONDS)
    if status["generation"] < generation:
        raise control.RefusedError("see the server's log.")
