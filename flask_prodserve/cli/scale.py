"""``flask serve scale``: more workers, or fewer."""

from __future__ import annotations

import re

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process import control
from .reach import answer
from .serve import fail


def _parsed(ctx: click.Context, parameter: click.Parameter, text: str) -> control.Scale:
    match = re.fullmatch(r"([+-]?)([0-9]{1,6})", text)
    if match is None:
        raise click.BadParameter("a number of workers such as 4, or how many more (+1) or fewer (-1)", ctx, parameter)
    sign, digits = match.groups()
    return control.Scale(change=int(sign + digits)) if sign else control.Scale(int(digits))


# Without ignore_unknown_options -1 would be one.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("workers", callback=_parsed)
@pass_script_info
@click.pass_context
def scale(ctx: click.Context, info: ScriptInfo, workers: control.Scale) -> None:
    """Have WORKERS workers (4), so many more (+1) or so many fewer (-1). It holds until the server ends, also across reloads."""
    try:
        wanted = answer(ctx, info, workers)["workers"]
    except ProdServeError as error:
        fail(ctx, error)
    else:
        click.echo(f"{wanted} worker{'s'[: wanted != 1]} from now on.")
