"""``flask serve config``: show the settings in force and their origins."""

from __future__ import annotations

import click
from flask.cli import ScriptInfo, pass_script_info

from ..errors import ProdServeError
from ..process.environment import PREFLIGHT, Environment
from ..settings import TABLE, render, resolve, unknown_setting
from ..settings.for_root import refuse_from_app, refuse_untrusted
from .serve import end_soon, fail, layers_without_app, load

_FORMATS = {"table": render.as_table, "json": render.as_json, "env": render.as_environment}


@click.command()
@click.option("--format", "style", type=click.Choice(list(_FORMATS)), default="table", help="How to print it.")
@click.option("--explain", metavar="NAME", help="Explain one setting and its default.")
@pass_script_info
@click.pass_context
def config(ctx: click.Context, info: ScriptInfo, style: str, explain: str | None) -> None:
    """Show every setting with its value and where it came from."""
    assert ctx.parent is not None
    environment = Environment.of_this_process()
    try:
        layers = layers_without_app(ctx.parent.params, environment)
        _, resolved = load(info, layers)
        if PREFLIGHT in environment.started:  # the next supervisor, as root, will refuse the same
            early = resolve(layers, complete=False)
            refuse_untrusted(early, environment.untrusted())
            refuse_from_app(early.settings, resolved.settings)
    except ProdServeError as error:
        fail(ctx, error)
    if explain is None:
        click.echo(_FORMATS[style](resolved))
        end_soon(0)
        return
    name = explain.upper().replace("-", "_").removeprefix("PRODSERVE_").lstrip("_")
    if name not in TABLE:
        problem = unknown_setting(explain, name)
        raise click.BadParameter(f"{problem.what} {problem.hint}", param_hint="--explain")
    click.echo(render.explain(TABLE[name], resolved))
    end_soon(0)
