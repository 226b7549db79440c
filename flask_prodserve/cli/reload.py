"""``flask serve reload``: bring new code and new settings in, without a request being lost."""

from __future__ import annotations

import threading

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process import control
from .reach import server
from .serve import fail

_LOOK_SECONDS = 0.2


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait until the new code serves, or has failed.")
@pass_script_info
@click.pass_context
def reload(ctx: click.Context, info: ScriptInfo, no_wait: bool) -> None:
    """Have new workers load the app afresh, and replace the old ones once they are ready.

    If the new code does not load, the old workers go on, and this command fails with the reason.
    """
    try:
        path = server(ctx, info)
        with control.Connection(path) as connection:
            if no_wait:
                connection.send(control.Reload())
                click.echo("Reloading.")
                return
            told = connection.ask(control.Reload(), None)
        if told.get("replaced"):  # with PRELOAD: the one that was asked is no more
            _follow(path, told["generation"])
    except control.RefusedError as error:
        fail(ctx, ProdServeError(f"The new code is not served: {error.what}", "The workers that were there go on."))
    except ProdServeError as error:
        fail(ctx, error)
    else:
        click.echo(f"Reloaded: generation {told['generation']} serves.")


def _follow(path: str, generation: int) -> None:
    """Wait until the next supervisor has brought *generation* in. Raises RefusedError if it has not."""
    pause = threading.Event()
    while (told := control.ask(path, control.Status(), None))["state"] == "reloading":
        pause.wait(_LOOK_SECONDS)
    if told["generation"] < generation:
        raise control.RefusedError("The server's log says why.")
