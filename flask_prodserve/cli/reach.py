"""The running server that a verb is about. The app is not loaded: its name and the folder say which server is meant."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import ScriptInfo

from ..process import control
from ..process.environment import Environment
from ..settings import resolve
from .serve import layers_without_app

SECONDS = 10.0
"""For what a supervisor answers at once, and for what it asks its workers."""


def server(ctx: click.Context, info: ScriptInfo, *, changes: bool = True) -> str:
    """The path of the control socket of the server that *ctx*, a verb's, is for. *changes*: the verb does more than look at it.

    Raises ProdServeError.
    """
    assert ctx.parent is not None
    environment = Environment.of_this_process()
    settings = resolve(layers_without_app(ctx.parent.params, environment), complete=False).settings
    # As the supervisor has it: .env does not say where the control socket is.
    folder = control.working_folder(environment.started)

    def note(text: str) -> None:
        click.echo(text, err=True)

    return control.locate(
        settings.observe.control_socket, info.app_import_path, folder, environment.started, note, changes=changes
    )


def answer(ctx: click.Context, info: ScriptInfo, request: control.Request) -> dict[str, Any]:
    """What that server answers to *request*. Raises ProdServeError."""
    changes = not isinstance(request, control.Status | control.Stacks)
    return control.ask(server(ctx, info, changes=changes), request, SECONDS)
