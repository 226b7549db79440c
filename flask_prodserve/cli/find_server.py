"""Finds the running server that a verb is for. The app is not loaded: its name and the folder
identify the server.
"""

from __future__ import annotations

from typing import Any

import click
from flask.cli import ScriptInfo

from ..process import control
from ..process.environment import Environment
from ..settings import resolve
from .serve import layers_without_app

SECONDS = 10.0
"""How long to wait for an answer that the supervisor has at once, or asks its workers for."""


def find_server(ctx: click.Context, info: ScriptInfo, *, changes: bool = True) -> str:
    """Return the path of the control socket of the server that the verb of *ctx* is for.

    *changes*: the verb changes the server. Raises ProdServeError.
    """
    assert ctx.parent is not None
    environment = Environment.of_this_process()
    settings = resolve(layers_without_app(ctx.parent.params, environment), complete=False).settings
    # As in the supervisor: .env does not choose the control socket.
    folder = control.working_folder(environment.started)

    def note(text: str) -> None:
        click.echo(text, err=True)

    return control.locate(
        settings.observe.control_socket, info.app_import_path, folder, environment.started, note, changes=changes
    )


def ask_server(ctx: click.Context, info: ScriptInfo, request: control.Request) -> dict[str, Any]:
    """Send *request* to that server and return its answer. Raises ProdServeError."""
    changes = not isinstance(request, control.Status | control.Stacks)
    return control.ask(find_server(ctx, info, changes=changes), request, SECONDS)
