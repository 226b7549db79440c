"""The app that the server is started for: what is called for a request, and the Flask app that tells everything else about it.

Most often both are one Flask app. WSGI middleware around a Flask app is called, and the Flask app is looked for inside of it. Any other
WSGI app gets an empty Flask app beside it: no URL rules, no config, no hooks.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.cli import NoAppException, ScriptInfo
from flask.helpers import get_debug_flag

from ..settings import Problem
from .importing import ModuleMissing, find_app, import_source, trace_of_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_INNER = ("app", "wsgi_app", "application", "wsgi", "_app", "__wrapped__")
"""What middleware calls the app inside of it: attributes, or variables that a function keeps. ``wsgi`` is OpenTelemetry's."""

_DEEPEST = 32
"""Layers that are looked into. Real apps have a handful."""


@dataclass(frozen=True, slots=True)
class MainApp:
    """*flask* has the URL rules, the config and the hooks; *wsgi* is what is called. *passed_by* names middleware around it that is not
    called, because only the module was named.
    """

    flask: Flask
    wsgi: WSGIApplication
    passed_by: str = ""

    @classmethod
    def of(cls, found: WSGIApplication, name: str = "") -> MainApp:
        """*found* with the Flask app in it, or with an empty one that is called *name*."""
        for layer in layers(found):
            if isinstance(layer, Flask):
                return cls(layer, found)
        return cls(_Unknown(name or type(found).__module__), found)

    @property
    def around(self) -> list[Any]:
        """The middleware around the Flask app, outermost first; its own ``wsgi_app`` is not looked at."""
        return [layer for layer in layers(self.wsgi) if layer is not self.flask and not _belongs_to(layer, self.flask)]

    @property
    def remarks(self) -> list[Problem]:
        """What the person who named the app may not expect."""
        if self.passed_by:
            return [
                Problem(
                    f"The app is served without the middleware that is around it in '{self.passed_by}', as 'flask run' does.",
                    f"To serve it with that, name it: flask --app {self.passed_by} serve.",
                )
            ]
        if not isinstance(self.flask, _Unknown):
            return []
        return [
            Problem(
                f"'{self.flask.name}' is a WSGI app, and no Flask app was found in it. The server knows no URL rules of it, so "
                "ENDPOINT_LIMITS and STATIC have no effect, and no app.config.",
                "Set everything else on the command line or as PRODSERVE_* variables.",
            )
        ]


class _Unknown(Flask):
    """Stands beside a WSGI app that is not of Flask, or hides it."""

    def __init__(self, name: str) -> None:
        # Both folders are named, since Flask would look for the module's.
        super().__init__(name, static_folder=None, root_path=os.getcwd(), instance_path=os.getcwd())


def layers(found: Any) -> Iterator[Any]:
    """*found*, and what is wrapped in it, outermost first, up to the first Flask app."""
    seen: list[Any] = []
    while found is not None and len(seen) < _DEEPEST and not any(found is other for other in seen):
        yield found
        if isinstance(found, Flask):
            return
        seen.append(found)
        found = _inside(found)


def _inside(layer: Any) -> Any:
    owner = getattr(layer, "__self__", None)  # of app.wsgi_app, a method
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
    """What a function that was defined in another one keeps of it."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    kept = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            kept[name] = cell.cell_contents
        except ValueError:  # it is empty
            continue
    return kept


def _belongs_to(layer: Any, app: Flask) -> bool:
    return getattr(layer, "__self__", None) is app


def _passed_by(module: ModuleType, app: Flask) -> str:
    """The import string of what other servers would call in *module*, if that is middleware around *app*."""
    for name in ("application", "app"):
        found = getattr(module, name, None)
        if callable(found) and found is not app and app in layers(found):
            return f"{module.__name__}:{name}"
    return ""


# Loading it.


def load_main_app(info: ScriptInfo) -> MainApp:
    """The app that *info* names, found as ``flask run`` finds it. Raises NoAppException, and what the app's own code raises."""
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
            lines = traceback.format_exception(type(error), error, trace_of_app(error))
            raise NoAppException(f"While importing {name!r}, an ImportError was raised:\n\n{''.join(lines)}") from None
        else:
            name = f"{module.__name__}:{expression}" if expression else module.__name__
            main = MainApp.of(find_app(module, expression), name)
            if expression or main.wsgi is not main.flask:
                return main
            return replace(main, passed_by=_passed_by(module, main.flask))
    raise NoAppException(
        "Could not locate a Flask application. Use the 'flask --app' option, 'FLASK_APP' environment variable, "
        "or a 'wsgi.py' or 'app.py' file in the current directory."
    )
