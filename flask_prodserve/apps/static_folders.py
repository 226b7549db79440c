"""Finds the static folders of an app that can be served without it, and what runs around their
view.

Rules:

- A folder counts if Flask's own view serves it, at a URL rule of a prefix and the file's name. If
  an app replaced or wrapped the view, overrode its methods, or has variables in the prefix, it
  serves the folder itself.
- Code that runs around Flask's view may be a guard. A guard cannot be told from a counter, so all
  code counts that could answer another request for the file than this one, or answer this one
  otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Rule

from ..wsgi.folder import Folder

if TYPE_CHECKING:
    from flask import Flask

_FILE = "<path:filename>"

_AROUND_VIEWS = (
    "__call__",
    "wsgi_app",
    "request_context",
    "create_url_adapter",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "ensure_sync",
    "finalize_request",
    "make_response",
    "process_response",
)
"""Methods of Flask that every request passes through, and that an app may override."""


def folders(app: Flask) -> list[Folder]:
    """Return the static folders of *app* and its blueprints that Flask's own views serve."""
    url_map = app.url_map
    if not url_map.converters["path"].__module__.startswith("werkzeug."):
        return []
    return [folder for rule in url_map.iter_rules() if (folder := _folder(app, rule)) is not None]


def _folder(app: Flask, rule: Rule) -> Folder | None:
    blueprint, _, name = rule.endpoint.rpartition(".")
    owner: Any = app.blueprints.get(blueprint) if blueprint else app
    if name != "static" or owner is None or owner.static_folder is None:
        return None
    url = rule.rule.removesuffix(_FILE)
    if rule.arguments != {"filename"} or "<" in url or not url.endswith("/") or rule.build_only or rule.redirect_to:
        return None
    views = (app.view_functions.get(rule.endpoint), owner.send_static_file, owner.get_send_file_max_age)
    return Folder(url, owner.static_folder, rule.endpoint) if all(map(_is_flasks_own, views)) else None


def code_around(app: Flask, endpoint: str, outer: Sequence[object] = ()) -> list[str]:
    """Return the names of all code that runs around the view of *endpoint*. *outer* is the
    middleware around *app*.
    """
    blueprints = endpoint.split(".")[:-1]
    scopes = [None, *(".".join(blueprints[: count + 1]) for count in range(len(blueprints)))]
    functions = [
        function
        for kind in (app.before_request_funcs, app.after_request_funcs, app.url_value_preprocessors)
        for scope in scopes
        for function in kind.get(scope, ())
    ]
    middleware = [layer for layer in outer if not isinstance(layer, ProxyFix)]
    return [*map(_name, middleware), *_replaced(app), *map(_name, functions)]


def _replaced(app: Flask) -> Iterator[str]:
    """Yield the names of methods and classes on every request's way that the app replaced."""
    for name in _AROUND_VIEWS:
        method = getattr(app, name)
        while isinstance(method, ProxyFix):
            method = method.app
        if not _is_flasks_own(method):
            yield f"app.{name} ({_name(method)})"
    for name, used in (("request_class", app.request_class), ("response_class", app.response_class)):
        if not used.__module__.startswith("flask."):
            yield f"app.{name} ({_name(used)})"
    # Since Flask 3.1, each of the two refuses requests for other hosts.
    if app.config.get("TRUSTED_HOSTS") is not None or app.request_class.trusted_hosts is not None:
        yield "TRUSTED_HOSTS"


def _is_flasks_own(function: Any) -> bool:
    """Return whether Flask defines *function*. A wrapper copies the function's name and module, but
    not its globals.
    """
    return str(getattr(function, "__globals__", {}).get("__name__", "")).startswith("flask.")


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
