"""Which folders of an app are served as they are, and at which URLs; what of the app somebody else would pass over; what is in them.

Reads a Flask app's attributes, and knows Flask by the names of its modules only.

Rules:

- A folder counts where Flask's own view serves it, by a URL rule that is a prefix and the file's name. A view that an app has replaced or
  wrapped, methods that it has overridden, and prefixes with variables are the app's own affair.
- What runs around Flask's view may be a guard. Nobody can tell a guard from a counter, so everything counts that could answer another
  request for the file than this one, or answer this one otherwise.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Rule

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
"""Methods of Flask through which every request goes, and which an app may override."""


class Folder(NamedTuple):
    """The files below *path* are served below *url*, which begins and ends with a slash, by the view of *endpoint*."""

    url: str
    path: str
    endpoint: str


def folders(app: Any) -> list[Folder]:
    """The static folders of *app* and of its blueprints that Flask's own views serve."""
    url_map = app.url_map
    if not url_map.converters["path"].__module__.startswith("werkzeug."):
        return []
    return [folder for rule in url_map.iter_rules() if (folder := _folder(app, rule)) is not None]


def _folder(app: Any, rule: Rule) -> Folder | None:
    blueprint, _, name = rule.endpoint.rpartition(".")
    owner = app.blueprints.get(blueprint) if blueprint else app
    if name != "static" or owner is None or owner.static_folder is None:
        return None
    url = rule.rule.removesuffix(_FILE)
    if rule.arguments != {"filename"} or "<" in url or not url.endswith("/") or rule.build_only or rule.redirect_to:
        return None
    views = (app.view_functions.get(rule.endpoint), owner.send_static_file, owner.get_send_file_max_age)
    return Folder(url, owner.static_folder, rule.endpoint) if all(map(_is_of_flask, views)) else None


def passed_over(app: Any, endpoint: str, outer: Sequence[object] = ()) -> list[str]:
    """What runs around the view of *endpoint*, by names for people. *outer* is the middleware around *app*."""
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


def _replaced(app: Any) -> Iterator[str]:
    """What every request goes through, and is not Flask's, or not as Flask has it."""
    for name in _AROUND_VIEWS:
        method = getattr(app, name)
        while isinstance(method, ProxyFix):
            method = method.app
        if not _is_of_flask(method):
            yield f"app.{name} ({_name(method)})"
    for name, used in (("request_class", app.request_class), ("response_class", app.response_class)):
        if not used.__module__.startswith("flask."):
            yield f"app.{name} ({_name(used)})"
    # Since Flask 3.1 either refuses requests for other hosts.
    if app.config.get("TRUSTED_HOSTS") is not None or app.request_class.trusted_hosts is not None:
        yield "TRUSTED_HOSTS"


def _is_of_flask(function: Any) -> bool:
    """Whether the code is Flask's. A decorator that wraps a function gives its own the function's name and module, not its globals."""
    return str(getattr(function, "__globals__", {}).get("__name__", "")).startswith("flask.")


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def regular_files(root: str) -> dict[str, os.stat_result]:
    """The files below *root*, without dotfiles and what is in dotted folders, and without what cannot be looked at."""
    return dict(_below(root, frozenset()))


def _below(folder: str, around: frozenset[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """*around*: the folders that this one is in, so that links in a circle end."""
    try:
        own = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    identity = own.st_dev, own.st_ino
    if identity in around:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            found = os.stat(entry.path)  # the link's target; on Windows, other than entry.stat(), with the inode
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from _below(entry.path, around | {identity})
        elif stat.S_ISREG(found.st_mode):
            yield entry.path, found
