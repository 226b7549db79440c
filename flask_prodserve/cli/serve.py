"""``flask serve``: the group behind the ``flask.commands`` entry point.

Every ``flask`` command imports this module, so it imports click and flask only. The options, the
settings and the server are imported when the command is used. Only the command line exits.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from flask.cli import ScriptInfo, pass_script_info

if TYPE_CHECKING:
    from ..apps.main_app import MainApp
    from ..errors import ProdServeError
    from ..process.environment import Environment
    from ..settings import Layer, Resolved

_VERBS = {
    name: f"flask_prodserve.cli.{name}"
    for name in ("compress", "config", "reload", "scale", "stacks", "status", "stop")
}


class ServeGroup(click.Group):
    """Loads its options from the table of settings, and each verb from the module of its name, when
    needed.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self.params:
            from .options import setting_options

            self.params.extend(setting_options())
        return super().get_params(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = getattr(import_module(_VERBS[name]), name)
        return command


@click.group("serve", cls=ServeGroup, invoke_without_command=True, short_help="Run the app in a production server.")
@pass_script_info
@click.pass_context
def serve(ctx: click.Context, info: ScriptInfo, /, **values: object) -> None:
    """Run the app in a production server: multi-threaded, with limits and deadlines, ready for a
    reverse proxy.

    Every option is also a setting PRODSERVE_<NAME> in the environment and in app.config. 'flask
    serve config' shows the values in force and where they came from.
    """
    if ctx.invoked_subcommand is not None:
        return
    from ..apps.green_threads import refuse_green_threads
    from ..errors import ProdServeError
    from ..launcher import launch, supervise
    from ..observe.standard_streams import queue_streams
    from ..process.environment import Environment
    from ..process.privileges import assume
    from ..settings import without_supervisor

    queue_streams()  # before the app is loaded: its handlers may keep sys.stderr
    try:
        refuse_green_threads(tls=False)  # `python -m gevent.monkey` patches before anything is imported
        environment = Environment.of_this_process()
        layers = layers_without_app(values, environment)
        early = _resolve_early(info, layers)
        if _is_one_process(early):
            # Before the app is loaded, so that it never runs under the wrong account.
            without_supervisor(early, app_is_loaded=False)
            assume(None, early.settings.process.umask)
            main, resolved = load(info, layers)
            name = info.app_import_path or main.flask.import_name
            code = launch(main, resolved, import_path=name, ends_process=True, keeps_signals=True)
        else:
            code = supervise(
                lambda log_notices: load(info, layers, log_notices=log_notices),
                early,
                environment,
                import_path=info.app_import_path,
            )
    except ProdServeError as error:
        fail(ctx, error)
    ctx.exit(code)


def layers_without_app(values: dict[str, Any], environment: Environment | None = None) -> list[Layer]:
    """Return the settings that are known without the app, strongest first: the options in *values*,
    and the environment.
    """
    from ..process.environment import Environment
    from ..settings import command_line

    environment = environment or Environment.of_this_process()
    return [command_line({name.upper(): value for name, value in values.items()}), *environment.layers()]


def _is_one_process(resolved: Resolved) -> bool:
    from ..launcher import can_supervise

    return resolved.settings.workers.workers == 0 or not can_supervise()


def _resolve_early(info: ScriptInfo, layers: list[Layer]) -> Resolved:
    """Resolve the settings that are known without the app.

    Raises SettingsError, which includes the problems of the app's own keys. To find those, the app
    is loaded, but not as root if USER is set, or if an unknown name may stand for USER.
    """
    from ..settings import SettingsError, resolve

    try:
        return resolve(layers, complete=False)
    except SettingsError:
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        if not any("USER" in layer.values or (is_root and layer.unknown) for layer in layers):
            load(info, layers)
        raise


def load(info: ScriptInfo, layers: list[Layer], *, log_notices: bool = True) -> tuple[MainApp, Resolved]:
    """Load the app as ``flask run`` does, resolve its settings below *layers*, and load its mounts.

    Never pushes an app context. *log_notices*: warn of a command of the app that this one hides.
    Raises AppLoadError or SettingsError; if the app's own keys are wrong, the latter includes the
    problems of *layers*.
    """
    from dataclasses import replace

    from ..apps.app_state import app_layers
    from ..apps.debug_mode import django_debug_pages
    from ..apps.green_threads import refuse_green_threads
    from ..apps.main_app import load_main_app
    from ..apps.mounting import with_mounts
    from ..settings import SettingsError, resolve, without_supervisor

    try:
        main = load_main_app(info)
    except SettingsError as error:
        # ProdServe refused the app's keys. Report these together with all other problems.
        try:
            resolve(layers)
        except SettingsError as other:
            raise SettingsError([*other.problems, *error.problems]) from error
        raise
    app = main.flask
    if log_notices and "serve" in app.cli.commands:
        click.secho(
            " * The app's own 'serve' command is hidden by flask-prodserve's. Rename it to use it.",
            fg="yellow",
            err=True,
        )
    layers = [*layers, *app_layers(app)]
    resolved = resolve(layers)
    if _is_one_process(resolved):
        resolved = without_supervisor(resolved, app_is_loaded=False)
    remarks = main.remarks
    if not resolved.settings.behaviour.allow_debug:
        remarks += django_debug_pages([("/", main.wsgi)])
    resolved = replace(resolved, warnings=(*resolved.warnings, *remarks))
    resolved = with_mounts(app, resolved, layers)
    refuse_green_threads(tls=bool(resolved.settings.tls.pairs))
    return main, resolved


def fail(ctx: click.Context, error: ProdServeError) -> None:
    """Print *error* and exit with its code. The app's threads and processes delay this by
    COMMAND_SECONDS at most.
    """
    from ..observe.logging import coloured
    from ..observe.printable import printable_lines

    if sys.stderr is not None:  # a daemon may have closed it; the exit code remains
        click.secho(f"Error: {printable_lines(error.what)}", fg="red", err=True, color=coloured(sys.stderr))
        if error.hint:
            click.echo(error.hint, err=True)
        sys.stderr.flush()
    end_soon(error.exit_code)
    ctx.exit(error.exit_code)


def end_soon(code: int) -> None:
    """Let the app's threads and processes delay the exit by COMMAND_SECONDS at most. *code* is the
    exit code.
    """
    from ..clock import Deadline
    from ..process.exit_guard import COMMAND_SECONDS, ExitGuard

    ExitGuard(Deadline(COMMAND_SECONDS), code, limit="").leave()
