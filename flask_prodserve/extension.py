"""The names that an app imports: ``ProdServe``, and ``serve`` for scripts.

The state of an app is kept in ``app.extensions["prodserve"]``. A ``ProdServe`` holds only its
default settings, and the hooks and mounts registered with it, so one object serves any number of
apps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from flask import cli
from flask.helpers import get_debug_flag, get_load_dotenv

from .apps.app_state import AppState, app_layers
from .apps.green_threads import refuse_green_threads
from .apps.hooks import EXTENSION, Hooks
from .apps.limits import limits
from .apps.main_app import MainApp
from .apps.mounting import with_mounts
from .errors import ProdServeError
from .settings import Layer, Resolved, arguments, environment, platform, resolve, without_supervisor
from .settings.layers import ENVIRONMENT_PREFIXES, Raw
from .settings.mounts import parse_mount

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from flask import Flask

    from .settings.mounts import Mount

Target = TypeVar("Target")
Function = TypeVar("Function", bound="Callable[[Flask], object]")


class ProdServe:
    """Attaches the production server to Flask apps.

    Keyword arguments are defaults for settings, in lower case: ``ProdServe(app, threads=8)``. All
    other places that give a setting override them; see the settings reference.
    """

    def __init__(self, app: Flask | None = None, **settings: object) -> None:
        self._arguments: Mapping[str, object] = MappingProxyType(settings)
        self._hooks = Hooks()
        self._mounts: list[Mount] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Attach to *app*, and check its ``PRODSERVE_*`` keys at once.

        Raises :class:`~flask_prodserve.settings.SettingsError` with all problems found.
        """
        app.extensions[EXTENSION] = AppState(self._arguments, self._hooks, self._mounts)
        own = [environment(_only("REPLACE_RUN", os.environ)), *app_layers(app)]
        if resolve(own, complete=False).settings.behaviour.replace_run:
            _replace_run(app)

    @staticmethod
    def limits(
        *, timeout: object = None, max_body: object = None, max_concurrency: object = None, queue_timeout: object = None
    ) -> Callable[[Target], Target]:
        """Limit a view (a function or a class), or each view of a blueprint:
        ``@prodserve.limits(timeout="5m", max_concurrency=2)``.

        *timeout*, *max_body* and *queue_timeout* replace REQUEST_TIMEOUT, MAX_BODY_SIZE and
        QUEUE_TIMEOUT for the view, and are written like these: a number of seconds or bytes, or a
        text such as ``"5m"`` or ``"1GiB"``; a *timeout* of 0 is no limit. *max_concurrency* is how
        many requests for the view may run at the same time in one process; others wait up to
        *queue_timeout*. A request that got 504 counts until its view ends.

        A view's limits override its blueprint's, and ENDPOINT_LIMITS overrides both. Raises
        ValueError if a value is not valid.
        """
        return limits(timeout=timeout, max_body=max_body, max_concurrency=max_concurrency, queue_timeout=queue_timeout)

    def before_fork(self, function: Function) -> Function:
        """With PRELOAD, run *function* in the supervisor, after the app is loaded and before any
        worker is forked: ``@prodserve.before_fork``.

        Use it to close what processes must not share: connections, sockets, files that are written
        to. An exception stops the start.

        Like all hooks, *function* is called with the app, outside any app context. Several
        functions run in the order of registration, which may come before or after :meth:`init_app`.
        If one object serves several apps, they run for each. Raises TypeError if *function* does
        not take one argument or is async.
        """
        self._hooks.before_fork(function)
        return function

    def worker_started(self, function: Function) -> Function:
        """Run *function* in each serving process, after the app is loaded (with PRELOAD: after the
        fork) and before the first request: ``@prodserve.worker_started``.

        Use it to open what each process needs for itself. If it raises an exception, the worker
        fails to start.
        """
        self._hooks.worker_started(function)
        return function

    def worker_stopping(self, function: Function) -> Function:
        """Run *function* in each serving process, after its last request and before it ends:
        ``@prodserve.worker_stopping``.

        Several functions run in reverse order. An exception is logged, and the other functions
        still run.
        """
        self._hooks.worker_stopping(function)
        return function

    def once(self, function: Function) -> Function:
        """Run *function* in exactly one process of the server, in its own thread:
        ``@prodserve.once``. When that process stops, another one takes over.

        Use it for schedulers and the like. A generator function with one ``yield`` starts something
        before the ``yield`` and stops it afterwards. The second part runs in the same thread when
        its process begins to stop, and before another process takes over. A plain function may
        return or run for ever. It is not told to stop; if it still runs, another process takes over
        after its process has ended.

        An exception is logged, and ends *function* for this process.
        """
        self._hooks.once(function)
        return function

    def mount(self, place: str, app: Callable[..., Iterable[bytes]] | str) -> None:
        """Serve *app* beside the Flask app: ``prodserve.mount("/admin",
        "project.wsgi:application")``.

        *place* is a path, a host, or a host with a path, as in MOUNTS. *app* is a WSGI callable, or
        the import string of one, which is imported when the server starts. Call it before that,
        before or after :meth:`init_app`. If MOUNTS has the same place, MOUNTS wins. Raises
        ValueError if *place* or *app* is not valid, or *place* is taken.
        """
        try:
            mount = parse_mount(place, app)
        except ValueError as error:
            raise ValueError(f"mount() takes {error}") from None
        if mount.key in {other.key for other in self._mounts}:
            raise ValueError(f"mount() takes each place once, but {mount.key} is mounted already")
        self._mounts.append(mount)

    def run(self, app: WSGIApplication, **settings: object) -> None:
        """Serve *app* until the server is stopped. Does the same as :func:`serve`."""
        _serve(app, [arguments(settings, "run")])


def serve(app: WSGIApplication, **settings: object) -> None:
    """Serve *app*, a Flask app or middleware around one, until SIGTERM or SIGINT, in this process:
    ``serve(app, port=8000)``.

    Keyword arguments are settings in lower case, and override all other places. Made for scripts:
    errors are printed, and the process exits with the code for their kind (SystemExit). Returns
    after a requested stop.

    After that, non-daemon threads and multiprocessing children of the script and the app keep the
    process alive, as in any Python program. ``flask serve`` and ``app.run()`` (REPLACE_RUN) end
    them at GRACEFUL_TIMEOUT.

    There is no supervisor: USER, GROUP and UMASK are refused, and a warning names settings without
    effect, such as WORKERS.
    """
    _serve(app, [arguments(settings, "serve")])


def resolve_for(app: Flask, stronger: Iterable[Layer], weaker: Iterable[Layer] = ()) -> Resolved:
    """Resolve the settings of *app* between the caller's *stronger* and *weaker* layers, and load
    its mounts.

    Raises SettingsError or AppLoadError.
    """
    layers = [*stronger, *environment_layers(), *app_layers(app), *weaker]
    return with_mounts(app, resolve(layers), layers)


def environment_layers() -> list[Layer]:
    """Return the settings in the environment of this process, strongest first."""
    environ = dict(os.environ)
    if environ.get("LISTEN_PID") != str(os.getpid()):
        environ.pop("LISTEN_FDS", None)  # for another process (sd_listen_fds(3))
    return [environment(environ), platform(environ)]


def _serve(
    app: WSGIApplication, stronger: list[Layer], weaker: Iterable[Layer] = (), *, ends_process: bool = False
) -> None:
    from .launcher import launch

    try:
        main = MainApp.of(app)
        resolved = without_supervisor(resolve_for(main.flask, stronger, weaker), app_is_loaded=True)
        refuse_green_threads(tls=bool(resolved.settings.tls.pairs))
        resolved = replace(resolved, warnings=(*resolved.warnings, *main.remarks))
        code = launch(main, resolved, import_path=main.flask.import_name, ends_process=ends_process)
    except ProdServeError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        sys.exit(code)


def _only(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    variables = {prefix + name for prefix in ENVIRONMENT_PREFIXES}
    return {variable: environ[variable] for variable in variables & environ.keys()}


# app.run(), replaced.

_WITHOUT_EFFECT = {
    "threaded": "requests run in THREADS threads; THREADS=1 runs one at a time",
    "processes": "this server does not fork for requests",
    "use_reloader": "the production server does not watch code; use `flask run --debug`",
    "use_debugger": "the production server has no debugger; use `flask run --debug`",
}


def _replace_run(app: Flask) -> None:
    """Make ``app.run()`` start this server, unless Flask would start none."""
    development_run = app.run

    def run(
        host: str | None = None,
        port: int | None = None,
        debug: bool | None = None,
        load_dotenv: bool = True,
        **options: Any,
    ) -> None:
        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
            development_run()  # prints that it is ignored
            return
        # As Flask.run() does it: .env first, then FLASK_DEBUG, then the argument.
        if get_load_dotenv(load_dotenv):
            cli.load_dotenv()
            if "FLASK_DEBUG" in os.environ:
                app.debug = get_debug_flag()
        if debug is not None:
            app.debug = bool(debug)
        if app.debug:
            development_run(host, port, load_dotenv=False, **options)
            return
        given: dict[str, object] = {"host": host or None, "port": port}
        context = options.pop("ssl_context", None)
        if isinstance(context, tuple) and len(context) == 2:
            cert, key = context
            given["tls_cert"], given["tls_key"] = (
                cert,
                key or cert,
            )  # without a key file, Werkzeug expects the key in the other
        elif context is not None:
            shown = repr(context) if isinstance(context, str) else type(context).__name__
            print(
                f"Error: app.run(ssl_context=...) is {shown}, which the production server does not support.\n"
                "Pass the paths of a certificate and its key, ssl_context=('cert.pem', 'key.pem'), or set TLS_CERT and TLS_KEY.",
                file=sys.stderr,
            )
            sys.exit(2)
        for option, value in options.items():
            if not value and option in ("use_reloader", "use_debugger"):
                continue  # asks for what this server does anyway
            reason = _WITHOUT_EFFECT.get(option, "it belongs to the development server")
            print(f" * app.run({option}=...) has no effect: {reason}.", file=sys.stderr)
        _serve(app, [arguments(given, "app.run")], [_development_defaults(app)], ends_process=True)

    app.run = run  # type: ignore[method-assign]  # the setting asks for it


def _development_defaults(app: Flask) -> Layer:
    """Return the address that ``app.run()`` uses by default: SERVER_NAME's host and port, or else
    port 5000.
    """
    host, _, port = (app.config.get("SERVER_NAME") or "").partition(":")
    values = {"PORT": Raw(port or 5000, "default of app.run()")}
    if host and not os.environ.get("PORT"):  # a platform's router could not reach SERVER_NAME
        values["HOST"] = Raw(host, 'app.config["SERVER_NAME"], as in app.run()')
    return Layer(values)
