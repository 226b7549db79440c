"""Loads the apps that are mounted beside the main one, and finds out what they say for themselves.

Rules:

- What is wrong with one of them names its mount and its import string; where its code has failed, the traceback begins in that code.
- Settings are the server's, and so the main app's. Of a mounted Flask app its ENDPOINT_LIMITS count and, inside of it, its
  MAX_CONTENT_LENGTH and SEND_FILE_MAX_AGE_DEFAULT, unless the command line or the environment say MAX_BODY_SIZE or STATIC_MAX_AGE; of all
  others it is said that they do not.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from flask import Flask
from flask.cli import NoAppException

from ..errors import AppLoadError, ProdServeError
from ..settings import Layer, Problem, Resolved, SettingsError, resolve, rules
from ..settings.mounts import Mount
from .attached import app_layers, state_of
from .importing import checked, find_app, import_source, trace_of_app

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
        warnings += debug_pages((mount.key, mount.application) for mount in loaded)
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


def debug_pages(apps: Iterable[tuple[str, object]]) -> Iterator[Problem]:
    """A Django project with debug pages: a fresh one has them. Django is never imported for this: where nobody has, it is not mounted."""
    wsgi = sys.modules.get("django.core.handlers.wsgi")
    places = [place for place, app in apps if wsgi and isinstance(app, wsgi.WSGIHandler)]
    if places and sys.modules["django.conf"].settings.DEBUG:
        yield Problem(
            f"The Django project at {' and '.join(places)} is in debug mode, which shows code and settings to whoever causes an error.",
            "Say DEBUG = False in its settings.",
        )


def _load(mount: Mount) -> WSGIApplication:
    try:
        return find_app(*import_source(mount.source)) if mount.application is None else checked(mount.application)
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
        traceback.print_exception(type(error), error, trace_of_app(error))
        raise AppLoadError(
            f"The app at {mount.key}, '{mount.source}', could not be loaded: {type(error).__name__}: {error}"
        ) from error
