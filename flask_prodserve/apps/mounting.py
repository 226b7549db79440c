"""Loads the apps that are mounted beside the main app, and reads their own settings.

Rules:

- An error in a mounted app names its mount and its import string. If its code failed, the traceback
  starts in that code.
- The main app's settings are the server's. Of a mounted Flask app only these count, and only for
  requests to it: ENDPOINT_LIMITS, MAX_CONTENT_LENGTH and SEND_FILE_MAX_AGE_DEFAULT, the latter two
  unless the command line or the environment set MAX_BODY_SIZE or STATIC_MAX_AGE. A warning names
  each other setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from flask import Flask

from ..settings import Layer, Problem, Resolved, SettingsError, resolve, rules
from ..settings.mounts import Mount
from .app_state import app_layers, state_of
from .debug_mode import django_debug_pages
from .importing import checked, find_app, import_source
from .loading import load_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_ALLOWED = frozenset({"ENDPOINT_LIMITS", "MAX_BODY_SIZE", "STATIC_MAX_AGE", "REPLACE_RUN"})
"""Settings that a mounted app may have: those that count inside it, and REPLACE_RUN, which is for
running it alone.
"""


def with_mounts(app: Flask, resolved: Resolved, layers: Iterable[Layer]) -> Resolved:
    """Load the apps of MOUNTS and ``ProdServe.mount()``, and return *resolved* with them.

    *app* is the main app; *resolved* was resolved from *layers*. Raises AppLoadError, or
    SettingsError if a mounted app's own settings are wrong.
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
            mount = _with_own_settings(mount, mount.application, resolved, stronger, warnings)
        loaded.append(mount)
    warnings += _shared_cookies(app, loaded)
    if not resolved.settings.behaviour.allow_debug:
        warnings += django_debug_pages((mount.key, mount.application) for mount in loaded)
    settings = replace(settings, wsgi=replace(settings.wsgi, mounts=tuple(loaded)))
    return Resolved(settings, origins, tuple(warnings))


def _with_own_settings(mount: Mount, app: Flask, main: Resolved, stronger: Set[str], warnings: list[Problem]) -> Mount:
    """Return *mount* with the settings of *app*, which is mounted there; add those without effect
    to *warnings*.

    The command line and the environment, whose settings *stronger* names, speak to the *main* app,
    even if this app repeats them (``Config.from_prefixed_env`` does).
    """
    layers = app_layers(app)
    try:
        own = resolve(layers, complete=False)
    except SettingsError as error:
        raise error.within(f"The app at {mount.key}") from error
    for name, raw in {name: raw for layer in reversed(layers) for name, raw in layer.values.items()}.items():
        if name not in _ALLOWED | stronger:
            warnings.append(
                Problem(
                    f"{raw.origin} of the app at {mount.key} has no effect, because that app does not run the server.",
                    "The main app's value is used for all apps.",
                )
            )
    given = {name for layer in layers for name in layer.values} - stronger
    limits = own.settings.limits.endpoint_limits
    repeated = "ENDPOINT_LIMITS" in stronger and limits == main.settings.limits.endpoint_limits
    return replace(
        mount,
        endpoint_limits=() if repeated else limits,
        max_body=own.settings.limits.max_body_size if "MAX_BODY_SIZE" in given else None,
        static_max_age=own.settings.files.static_max_age if "STATIC_MAX_AGE" in given else None,
    )


def _shared_cookies(app: Flask, mounts: Sequence[Mount]) -> Iterator[Problem]:
    """Report Flask apps that use one session cookie but cannot read each other's sessions."""
    beside = [(mount.key, mount.application) for mount in mounts if not mount.host]
    known: dict[tuple[str, str, str | None], tuple[str, object]] = {}
    for key, one in [("/", app), *beside]:
        if not isinstance(one, Flask) or not one.secret_key:
            continue
        interface = one.session_interface
        cookie = interface.get_cookie_name(one), interface.get_cookie_path(one), interface.get_cookie_domain(one)
        other, secret = known.setdefault(cookie, (key, one.secret_key))
        if secret != one.secret_key:
            yield Problem(
                f"The apps at {other} and {key} use the same session cookie with different keys: each destroys the other's sessions.",
                f"Give the app at {key} its own SESSION_COOKIE_NAME, or the same SECRET_KEY.",
            )


def _load(mount: Mount) -> WSGIApplication:
    name = f"The app at {mount.key}, '{mount.source}',"
    hint = "Name it as for 'flask --app': MODULE, MODULE:NAME or MODULE:FACTORY(ARGUMENTS)."

    def find() -> WSGIApplication:
        return find_app(*import_source(mount.source)) if mount.application is None else checked(mount.application)

    try:
        return load_app(find, name, hint)
    except SettingsError as error:
        raise error.within(name.rstrip(",")) from error
