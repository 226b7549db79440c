"""``flask serve stacks``: show the stack of every thread of every worker."""

from __future__ import annotations

import sys

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..observe.logging import coloured
from ..observe.printable import printable_lines
from ..process import control
from .find_server import ask_server
from .serve import fail


@click.command()
@pass_script_info
@click.pass_context
def stacks(ctx: click.Context, info: ScriptInfo) -> None:
    """Show the stack of every thread of every worker, for when requests hang."""
    try:
        workers = ask_server(ctx, info, control.Stacks())["workers"]
    except ProdServeError as error:
        fail(ctx, error)
        return
    blocks = (
        click.style(f"worker {worker['number']} (pid {worker['pid']})", bold=True)
        + f"\n\n{printable_lines(worker['stacks'].strip())}\n"
        for worker in workers
    )
    click.echo("\n".join(blocks), color=coloured(sys.stdout), nl=False)
