"""``flask serve scale``: change the number of workers."""

from __future__ import annotations

import re

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process import control
from .find_server import ask_server
from .serve import fail


def _parsed(ctx: click.Context, parameter: click.Parameter, text: str) -> control.Scale:
    match = re.fullmatch(r"([+-]?)([0-9]{1,6})", text)
    if match is None:
        raise click.BadParameter("use a number of workers such as 4, or a change such as +1 or -1", ctx, parameter)
    sign, digits = match.groups()
    return control.Scale(change=int(sign + digits)) if sign else control.Scale(int(digits))


# Without ignore_unknown_options, -1 would be an unknown option.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("workers", callback=_parsed)
@pass_script_info
@click.pass_context
def scale(ctx: click.Context, info: ScriptInfo, workers: control.Scale) -> None:
    """Set the number of workers (4), or change it (+1, -1). It lasts until the server stops, across
    reloads.
    """
    try:
        wanted = ask_server(ctx, info, workers)["workers"]
    except ProdServeError as error:
        fail(ctx, error)
    else:
        click.echo(f"Set to {wanted} worker{'s'[: wanted != 1]}.")
