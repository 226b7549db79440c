"""Finds the WSGI app that an import string names: MODULE, MODULE:NAME or MODULE:FACTORY(ARGUMENTS),
as ``flask --app`` takes it.

Rules:

- A string that names a Flask app for ``flask run`` names the same app here. Other WSGI apps are
  found as well.
- A factory is called once.
- If nothing is found, NoAppException is raised, in Flask's words if Flask has any. What the
  imported code raises passes through.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.cli import NoAppException, find_best_app, prepare_import

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_FACTORIES = ("create_app", "make_app")
"""The factories that Flask looks for if the string names none."""


def import_source(source: str) -> tuple[ModuleType, str | None]:
    """Import the module of *source*. Return the module, and the expression behind the colon."""
    path, *names = re.split(r":(?![\\/])", source, maxsplit=1)  # not the colon of a Windows drive
    name = prepare_import(path)
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # this module exists, and one that it imports does not
        raise ModuleMissing(f"Could not import {name!r}.") from None
    return sys.modules[name], names[0] if names else None


class ModuleMissing(NoAppException):
    """No module has that name."""


def find_app(module: ModuleType, expression: str | None) -> WSGIApplication:
    """Return the WSGI app that *expression* names in *module*; without one, the app that is most
    likely meant.
    """
    return checked(_best_of(module) if expression is None else _evaluate(module, expression))


def checked(found: Any) -> WSGIApplication:
    """Return *found* if it can be a WSGI app. Raises NoAppException."""
    kind = "a function" if inspect.isfunction(found) else f"of type {type(found).__name__}"
    if not callable(found):
        raise NoAppException(f"It is {kind}, not a WSGI app.")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        raise NoAppException("It is an ASGI app, and this is a WSGI server.")
    if inspect.isclass(found) and not hasattr(found, "__iter__"):
        raise NoAppException(f"It is the class {found.__name__}, not an app.")
    if not _takes(found, 2):
        raise NoAppException(f"It is {kind}, and does not take the two arguments of a WSGI app.")
    application: WSGIApplication = found
    return application


def _best_of(module: ModuleType) -> Any:
    """Return the Flask app in *module*, what a factory there makes, or what other frameworks call
    their app.
    """
    if any(isinstance(value, Flask) for value in vars(module).values()):
        return find_best_app(module)
    factories = [value for name in _FACTORIES if inspect.isfunction(value := getattr(module, name, None))]
    called = [factory for factory in factories if _takes_none(factory)]
    for factory in called:
        if callable(made := factory()):
            return made
    for name in ("application", "app"):
        if callable(found := getattr(module, name, None)):
            return found
    if called:
        raise NoAppException(
            f"Failed to find Flask application or factory in module {module.__name__!r}. "
            f"Use '{module.__name__}:name' to specify one."
        )
    return find_best_app(module)  # raises with the reason


def _evaluate(module: ModuleType, expression: str) -> Any:
    """Return the value of a name in *module*, or of a call with literal arguments.

    A function that takes no arguments is a factory, as in Flask; a function that takes some is the
    app.
    """
    try:
        parsed = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        raise _not_parsed(expression) from None
    positional, named = None, {}
    match parsed:
        case ast.Name(id=name):
            pass
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            try:
                positional = [ast.literal_eval(argument) for argument in args]
                named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg}
            except ValueError:
                raise NoAppException(f"Failed to parse arguments as literal values: {expression!r}.") from None
        case _:
            raise _not_parsed(expression)
    if not hasattr(module, name):
        raise NoAppException(f"Failed to find attribute {name!r} in {module.__name__!r}.")
    found = getattr(module, name)
    if positional is None:
        if not inspect.isfunction(found):
            return found
        if _takes_none(found):
            return found()
        if name in _FACTORIES:
            raise NoAppException(
                f"Detected factory {name!r} in module {module.__name__!r}, but could not call it without arguments. "
                f"Use '{module.__name__}:{name}(args)' to specify arguments."
            )
        return found
    if not callable(found) or not _binds(inspect.signature(found), *positional, **named):
        raise NoAppException(
            f"The factory {expression!r} in module {module.__name__!r} could not be called with the specified arguments."
        )
    return found(*positional, **named)


def _not_parsed(expression: str) -> NoAppException:
    return NoAppException(f"Failed to parse {expression!r} as an attribute name or function call.")


def _takes_none(factory: Callable[..., Any]) -> bool:
    return _binds(inspect.signature(factory))


def _takes(found: Any, count: int) -> bool:
    """Return whether *found* takes *count* arguments, as far as its signature tells."""
    try:
        # The wrapper is called, so its signature counts and not that of the wrapped function.
        signature = inspect.signature(found, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    return _binds(signature, *[None] * count)


def _binds(signature: inspect.Signature, *positional: object, **named: object) -> bool:
    try:
        signature.bind(*positional, **named)
    except TypeError:
        return False
    return True
