"""The app that the server is started for: the WSGI app that it calls, and the Flask app that holds
rules, config and hooks.

Usually both are the same Flask app. If WSGI middleware is around a Flask app, the middleware is
called, and the Flask app is found inside it. Any other WSGI app gets an empty Flask app beside it:
no URL rules, no config, no hooks.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.cli import NoAppException, ScriptInfo
from flask.helpers import get_debug_flag
from werkzeug.middleware.proxy_fix import ProxyFix

from ..settings import Problem
from .importing import ModuleMissing, find_app, import_source
from .loading import app_traceback, load_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings.mounts import Mount

_INNER = ("app", "wsgi_app", "application", "wsgi", "_app", "__wrapped__")
"""Names that middleware uses for the app inside it: attributes, or variables of a closure.
OpenTelemetry uses ``wsgi``.
"""

_DEEPEST = 32
"""How many layers are searched. Real apps have a handful."""


@dataclass(frozen=True, slots=True)
class MainApp:
    """*flask* has the URL rules, the config and the hooks; *wsgi* is called for each request.

    *skipped* names middleware around the Flask app that is not called, because only the module was
    named.
    """

    flask: Flask
    wsgi: WSGIApplication
    skipped: str = ""

    @classmethod
    def of(cls, found: WSGIApplication, name: str = "") -> MainApp:
        """Make one of *found* and the Flask app inside it, or else an empty Flask app called
        *name*.
        """
        for layer in layers(found):
            if isinstance(layer, Flask):
                return cls(layer, found)
        return cls(_Unknown(name or type(found).__module__), found)

    @property
    def around(self) -> list[Any]:
        """The middleware around the Flask app, outermost first, without the layers of its own
        ``wsgi_app``.
        """
        return [layer for layer in layers(self.wsgi) if layer is not self.flask and not _belongs_to(layer, self.flask)]

    @property
    def has_proxy_fix(self) -> bool:
        """Whether a ProxyFix is around the Flask app or around its ``wsgi_app``."""
        return any(isinstance(layer, ProxyFix) for layer in (*layers(self.wsgi), *layers(self.flask.wsgi_app)))

    @property
    def remarks(self) -> list[Problem]:
        """What may surprise the person who named the app."""
        if self.skipped:
            return [
                Problem(
                    f"The app is served without the middleware around it in '{self.skipped}', as 'flask run' does.",
                    f"To serve it with the middleware, name that: flask --app {self.skipped} serve.",
                )
            ]
        if not isinstance(self.flask, _Unknown):
            return []
        return [
            Problem(
                f"'{self.flask.name}' is a WSGI app, and no Flask app was found in it. Without URL rules and app.config, "
                "ENDPOINT_LIMITS and STATIC have no effect.",
                "Set all other settings on the command line or as PRODSERVE_* variables.",
            )
        ]


class _Unknown(Flask):
    """Stands beside a WSGI app that is not a Flask app, or hides it."""

    def __init__(self, name: str) -> None:
        # Both folders are given, because Flask would look for the module's.
        super().__init__(name, static_folder=None, root_path=os.getcwd(), instance_path=os.getcwd())


def layers(found: Any) -> Iterator[Any]:
    """Yield *found* and the apps wrapped in it, outermost first, up to the first Flask app."""
    seen: list[Any] = []
    while found is not None and len(seen) < _DEEPEST and not any(found is other for other in seen):
        yield found
        if isinstance(found, Flask):
            return
        seen.append(found)
        found = _inside(found)


def _inside(layer: Any) -> Any:
    owner = getattr(layer, "__self__", None)  # app.wsgi_app is a method of the app
    if isinstance(owner, Flask):
        return owner
    kept = _variables(layer)
    for name in _INNER:
        try:
            inner = kept[name] if name in kept else getattr(layer, name, None)
        except Exception:  # noqa: S112  # a property may raise anything
            continue
        if callable(inner):
            return inner
    return None


def _variables(function: Any) -> dict[str, Any]:
    """Return the variables that *function*, a closure, keeps from the function around it."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    kept = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            kept[name] = cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    return kept


def _belongs_to(layer: Any, app: Flask) -> bool:
    return getattr(layer, "__self__", None) is app


def _skipped(module: ModuleType, app: Flask) -> str:
    """Return the import string that other servers would use in *module*, if it names middleware
    around *app*; else ``""``.
    """
    for name in ("application", "app"):
        found = getattr(module, name, None)
        if callable(found) and found is not app and app in layers(found):
            return f"{module.__name__}:{name}"
    return ""


def served_apps(app: Flask, mounts: Sequence[Mount] | None) -> list[Flask]:
    """Return *app* and the Flask apps in *mounts*, each once."""
    mounted = [mount.application for mount in mounts or ()]
    return list(dict.fromkeys([app, *(one for one in mounted if isinstance(one, Flask))]))


def load_main_app(info: ScriptInfo) -> MainApp:
    """Load the app that *info* names, as ``flask run`` does. Raises AppLoadError or another
    ProdServeError.
    """
    hint = "Name the app with 'flask --app MODULE[:NAME] serve' or FLASK_APP."
    return load_app(lambda: _find(info), "The app", hint)


def _find(info: ScriptInfo) -> MainApp:
    if info.create_app is not None or getattr(info, "_loaded_app", None) is not None:
        return MainApp.of(info.load_app())
    main = _located(info.app_import_path)
    if info.set_debug_flag:
        main.flask.debug = get_debug_flag()
    return main


def _located(source: str | None) -> MainApp:
    for candidate in [source] if source else ["wsgi.py", "app.py"]:
        try:
            module, expression = import_source(candidate)
        except ModuleMissing:
            if source:
                raise
        except ImportError as error:
            name = candidate.partition(":")[0].removesuffix(".py")
            lines = traceback.format_exception(type(error), error, app_traceback(error))
            raise NoAppException(f"While importing {name!r}, an ImportError was raised:\n\n{''.join(lines)}") from None
        else:
            name = f"{module.__name__}:{expression}" if expression else module.__name__
            main = MainApp.of(find_app(module, expression), name)
            if expression or main.wsgi is not main.flask:
                return main
            return replace(main, skipped=_skipped(module, main.flask))
    raise NoAppException(
        "Could not locate a Flask application. Use the 'flask --app' option, 'FLASK_APP' environment variable, "
        "or a 'wsgi.py' or 'app.py' file in the current directory."
    )
