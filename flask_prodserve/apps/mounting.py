"""Loads the apps that are mounted beside the main one, and finds out what they say for themselves.

Rules:

- What is wrong with one of them names its mount and its import string; where its code has failed, the traceback begins in that code.
- Settings are the server's, and so the main app's. Of a mounted Flask app its ENDPOINT_LIMITS count and, inside of it, its
  MAX_CONTENT_LENGTH and SEND_FILE_MAX_AGE_DEFAULT, unless the command line or the environment say MAX_BODY_SIZE or STATIC_MAX_AGE; of all
  others it is said that they do not.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.cli import NoAppException, find_best_app, prepare_import

from ..errors import AppLoadError, ProdServeError
from ..settings import Layer, Problem, Resolved, SettingsError, resolve, rules
from ..settings.mounts import Mount
from .attached import app_layers, state_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_THEIR_OWN = frozenset({"ENDPOINT_LIMITS", "MAX_BODY_SIZE", "STATIC_MAX_AGE", "REPLACE_RUN"})
"""Settings that a mounted app may have: those that count inside of it, and one that is about being run alone."""


def with_mounts(app: Flask, resolved: Resolved, layers: Iterable[Layer]) -> Resolved:
    """*resolved* with everything that is mounted beside *app*, loaded: what MOUNTS says, and what the code has added. *layers* are those
    that it was resolved from.

    Raises AppLoadError, or SettingsError where what an app says of itself is wrong.
    """
    configured = resolved.settings.wsgi.mounts or ()
    state = state_of(app)
    keys = {mount.key for mount in configured}
    added = tuple(mount for mount in (state.mounts if state else ()) if mount.key not in keys)
    mounts = configured + added
    if not mounts:
        return resolved
    origins = dict(resolved.origins)
    if added:
        origins["MOUNTS"] = f"{origins['MOUNTS']} and ProdServe.mount()" if configured else "ProdServe.mount()"
    settings = replace(resolved.settings, wsgi=replace(resolved.settings.wsgi, mounts=mounts))
    if problems := list(rules.contradictions(settings, origins, frozenset())):
        raise SettingsError(problems)
    stronger = {name for layer in layers if not layer.late for name in layer.values}
    warnings = list(resolved.warnings)
    loaded = []
    for mount in mounts:
        mount = replace(mount, application=_load(mount))
        if isinstance(mount.application, Flask):
            mount = _with_its_own(mount, mount.application, resolved, stronger, warnings)
        loaded.append(mount)
    warnings += _shared_cookies(app, loaded)
    if not resolved.settings.behaviour.allow_debug:
        warnings += _debug_pages(loaded)
    settings = replace(settings, wsgi=replace(settings.wsgi, mounts=tuple(loaded)))
    return Resolved(settings, origins, tuple(warnings))


def _with_its_own(mount: Mount, app: Flask, main: Resolved, stronger: Set[str], warnings: list[Problem]) -> Mount:
    """*mount* with what *app*, which is mounted there, says of itself; *warnings* get what does not count. What is *stronger*, the command
    line and the environment, speaks of the *main* app, also where this one repeats it (``Config.from_prefixed_env`` does).
    """
    layers = app_layers(app)
    try:
        own = resolve(layers, complete=False)
    except SettingsError as error:
        raise error.within(f"The app at {mount.key}") from error
    for name, raw in {name: raw for layer in reversed(layers) for name, raw in layer.values.items()}.items():
        if name not in _THEIR_OWN | stronger:
            warnings.append(
                Problem(
                    f"{raw.origin} of the app at {mount.key} has no effect, because that app does not run the server.",
                    "What the main app says holds for all of them.",
                )
            )
    says = {name for layer in layers for name in layer.values} - stronger
    limits = own.settings.limits.endpoint_limits
    repeated = "ENDPOINT_LIMITS" in stronger and limits == main.settings.limits.endpoint_limits
    return replace(
        mount,
        endpoint_limits=() if repeated else limits,
        max_body=own.settings.limits.max_body_size if "MAX_BODY_SIZE" in says else None,
        static_max_age=own.settings.files.static_max_age if "STATIC_MAX_AGE" in says else None,
    )


def _shared_cookies(app: Flask, mounts: Sequence[Mount]) -> Iterator[Problem]:
    """Flask apps that keep their sessions in one cookie, and cannot read each other's."""
    beside = [(mount.key, mount.application) for mount in mounts if not mount.host]
    known: dict[tuple[str, str, str | None], tuple[str, object]] = {}
    for place, one in [("/", app), *beside]:
        if not isinstance(one, Flask) or not one.secret_key:
            continue
        interface = one.session_interface
        cookie = interface.get_cookie_name(one), interface.get_cookie_path(one), interface.get_cookie_domain(one)
        other, secret = known.setdefault(cookie, (place, one.secret_key))
        if secret != one.secret_key:
            yield Problem(
                f"The apps at {other} and {place} have their sessions in the same cookie and cannot read each other's: "
                "each ends those of the other.",
                f"Give the app at {place} a SESSION_COOKIE_NAME of its own, or the same SECRET_KEY.",
            )


def _debug_pages(mounts: Sequence[Mount]) -> Iterator[Problem]:
    """A Django project with debug pages: a fresh one has them. Django is never imported for this: where nobody has, it is not mounted."""
    wsgi = sys.modules.get("django.core.handlers.wsgi")
    places = [mount.key for mount in mounts if wsgi and isinstance(mount.application, wsgi.WSGIHandler)]
    if places and sys.modules["django.conf"].settings.DEBUG:
        yield Problem(
            f"The Django project at {' and '.join(places)} is in debug mode, which shows code and settings to whoever causes an error.",
            "Say DEBUG = False in its settings.",
        )


def _load(mount: Mount) -> WSGIApplication:
    try:
        return _checked(_find(mount.source) if mount.application is None else mount.application)
    except NoAppException as error:
        raise AppLoadError(
            f"The app at {mount.key}, '{mount.source}', could not be loaded: {error.format_message().strip()}",
            "It is named as for 'flask --app': MODULE, MODULE:NAME or MODULE:FACTORY(ARGUMENTS).",
        ) from error
    except SettingsError as error:
        raise error.within(f"The app at {mount.key}, '{mount.source}'") from error
    except ProdServeError:
        raise
    except Exception as error:
        # That app's own fault: shown from its first frame on, which is below ours and Flask's.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals["__name__"] in (__name__, "flask.cli"):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        raise AppLoadError(
            f"The app at {mount.key}, '{mount.source}', could not be loaded: {type(error).__name__}: {error}"
        ) from error


def _find(source: str) -> Any:
    """What *source* names, as ``flask --app`` takes it, but of any framework. Raises NoAppException where there is nothing of the kind,
    and what the code that is imported raises.
    """
    path, *names = re.split(r":(?![\\/])", source, maxsplit=1)  # not the colon of a Windows drive
    name = prepare_import(path)
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and one that it imports is not
        raise NoAppException(f"There is no module {error.name!r}.") from None
    module = sys.modules[name]
    return _evaluate(module, names[0]) if names else _best_of(module)


def _checked(found: Any) -> WSGIApplication:
    """*found*, if it may be a WSGI app. Raises NoAppException."""
    if not callable(found):
        raise NoAppException(f"It is no WSGI app, but of type {type(found).__name__}.")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        raise NoAppException("It is an ASGI app, and this is a WSGI server.")
    # Not what a decorator says of the function inside of it: how this one is called is what counts.
    if inspect.isfunction(found) and not _takes(inspect.signature(found, follow_wrapped=False), 2):
        raise NoAppException("It is a function, and does not take the two arguments of a WSGI app.")
    application: WSGIApplication = found
    return application


def _best_of(module: ModuleType) -> Any:
    """The Flask app in *module*, or else what other frameworks call their app there."""
    try:
        return find_best_app(module)
    except NoAppException:
        for name in ("application", "app"):
            if hasattr(module, name):
                return getattr(module, name)
        raise


def _evaluate(module: ModuleType, expression: str) -> Any:
    """A name in *module*, or a call of one with literal arguments. A function that takes none is a factory, as in Flask; one that does is
    the app.
    """
    try:
        parsed = ast.parse(expression.strip(), mode="eval").body
        match parsed:
            case ast.Name(id=name):
                call = None
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg}
                call = tuple(map(ast.literal_eval, args)), named
            case _:
                raise ValueError
    except (SyntaxError, ValueError):
        raise NoAppException(f"{expression!r} is neither a name nor a call of one with literal arguments.") from None
    if not hasattr(module, name):
        raise NoAppException(f"There is no {name!r} in {module.__name__}.")
    found = getattr(module, name)
    if call is not None:
        positional, named = call
        return found(*positional, **named)
    return found() if inspect.isfunction(found) and _takes(inspect.signature(found), 0) else found


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
