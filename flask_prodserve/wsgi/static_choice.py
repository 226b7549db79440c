"""Whether the static files of an app are served without it: what STATIC says, what is installed, and what the app has around them."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from .routes import Routes
from .static_folders import Folder, folders, passed_over

if TYPE_CHECKING:
    from ..settings.table import Files
    from .static import StaticFiles

logger = logging.getLogger("flask_prodserve.static")

_NAMED = 3
"""Of folders, and of what is around them, so many are named in a log line. All are named at the debug level."""


def static_files(
    app: Any, files: Files, place: str = "", *, around: Sequence[object] = (), says: bool = False
) -> StaticFiles | None:
    """Those of *app*, a Flask app; None where it is to serve them itself.

    *place* is the key that it is mounted by, *around* the middleware that is called before it; *says*: log what is decided.
    Raises MissingExtraError where STATIC is on and cannot be.
    """
    if files.static == "off":
        return None
    if importlib.util.find_spec("whitenoise") is None:
        if files.static == "on":
            raise MissingExtraError(
                "STATIC is on, and whitenoise, which it needs, is not installed.",
                "pip install 'flask-prodserve[static]', or set STATIC to auto or off.",
            )
        if says and any(os.path.isdir(folder.path) for folder in folders(app)):
            logger.info(
                "static files are left to %s, since whitenoise is not installed: pip install 'flask-prodserve[static]'",
                _named(place),
            )
        return None
    routes = Routes(app.url_map, app.config["SERVER_NAME"])
    chosen = _chosen(app, files, routes, place, around, says=says)
    if not chosen:
        return None
    from .static import StaticFiles

    def endpoint_of(path: str) -> str | None:
        rule = routes.find("GET", path, "")
        return None if rule is None else rule.endpoint

    found = StaticFiles(chosen, endpoint_of, max_age=files.static_max_age)
    if says and found.files:
        urls = [place + folder.url for folder in chosen]
        logger.info("static files are sent without %s: %d at %s", _named(place), len(found.files), _some(urls))
        logger.debug("static files are sent without %s at %s", _named(place), ", ".join(urls))
    return found


def _named(place: str) -> str:
    return f"the app at {place}" if place else "the app"


def _chosen(app: Any, files: Files, routes: Routes, place: str, outer: Sequence[object], *, says: bool) -> list[Folder]:
    if routes.by_host:
        if says:
            logger.info("static files are left to %s, since its URL rules depend on the host", _named(place))
        return []
    chosen = []
    left: list[str] = []
    guards: dict[str, None] = {}
    for folder in folders(app):
        if not os.path.isdir(folder.path):  # Flask makes an app a folder that it may not have
            continue
        around = passed_over(app, folder.endpoint, outer) if files.static == "auto" else []
        if not around:
            chosen.append(folder)
            continue
        left.append(place + folder.url)
        guards.update(dict.fromkeys(around))
        if says:
            logger.debug("static files at %s are left to the app: %s", left[-1], ", ".join(around))
    if left and says:
        logger.info(
            "static files at %s are left to the app, since this runs for them, too, and may be a guard: %s. "
            "STATIC=on serves them past it",
            _some(left),
            _some(list(guards)),
        )
    return chosen


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
