"""Decides whether static files are served without the app: by STATIC, what is installed, and the
code around them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask import Flask

from ..errors import MissingExtraError
from ..wsgi.folder import Folder
from ..wsgi.mounts import MountTable
from .static_folders import code_around, folders
from .url_rules import UrlRules

if TYPE_CHECKING:
    from ..settings.groups.apps import Files
    from ..settings.mounts import Mount
    from ..wsgi.static import StaticFiles
    from .main_app import MainApp

logger = logging.getLogger("flask_prodserve.static")

_NAMED = 3
"""How many folders, or pieces of code around them, a log line names. The debug level names all."""


def static_files_of(
    main: MainApp, mounts: Sequence[Mount], files: Files, *, log_notices: bool = False
) -> MountTable[StaticFiles | None] | None:
    """Index the static files of *main* and of *mounts*; None if the apps serve all of them.

    *log_notices*: log what is decided. Raises MissingExtraError if STATIC is on and whitenoise is
    missing.
    """
    own = static_files(main.flask, files, around=main.around, log_notices=log_notices)
    mounted = [(mount, _of_mount(mount, files, log_notices=log_notices)) for mount in mounts]
    if own is None and all(found is None for _, found in mounted):
        return None
    return MountTable(own, mounted)


def _of_mount(mount: Mount, files: Files, *, log_notices: bool) -> StaticFiles | None:
    if not isinstance(mount.application, Flask):
        return None
    if mount.static_max_age is not None:
        files = dataclasses.replace(files, static_max_age=mount.static_max_age)
    return static_files(mount.application, files, mount.key, log_notices=log_notices)


def static_files(
    app: Flask, files: Files, key: str = "", *, around: Sequence[object] = (), log_notices: bool = False
) -> StaticFiles | None:
    """Index the static files of *app*; None if the app is to serve them itself.

    *key* is that of its mount, *around* the middleware that is called before it. *log_notices*: log
    what is decided. Raises MissingExtraError if STATIC is on and whitenoise is missing.
    """
    if files.static == "off":
        return None
    if importlib.util.find_spec("whitenoise") is None:
        if files.static == "on":
            raise MissingExtraError(
                "STATIC is on, but whitenoise, which it needs, is not installed.",
                "pip install 'flask-prodserve[static]', or set STATIC to auto or off.",
            )
        if log_notices and any(os.path.isdir(folder.path) for folder in folders(app)):
            logger.info(
                "%s serves its static files itself, because whitenoise is not installed: pip install 'flask-prodserve[static]'",
                _named(key),
            )
        return None
    rules = UrlRules.of(app)
    chosen = _chosen(app, files, rules, key, around, log_notices=log_notices)
    if not chosen:
        return None
    from ..wsgi.static import StaticFiles

    def endpoint_of(path: str) -> str | None:
        rule = rules.find("GET", path, "")
        return None if rule is None else rule.endpoint

    found = StaticFiles(chosen, endpoint_of, max_age=files.static_max_age)
    if log_notices and found.files:
        urls = [key + folder.url for folder in chosen]
        logger.info("serving static files without %s: %d at %s", _named(key), len(found.files), _some(urls))
        logger.debug("serving static files without %s at %s", _named(key), ", ".join(urls))
    return found


def _named(key: str) -> str:
    return f"the app at {key}" if key else "the app"


def _chosen(
    app: Flask, files: Files, rules: UrlRules, key: str, outer: Sequence[object], *, log_notices: bool
) -> list[Folder]:
    if rules.by_host:
        if log_notices:
            logger.info("%s serves its static files itself, because its URL rules depend on the host", _named(key))
        return []
    chosen = []
    left: list[str] = []
    guards: dict[str, None] = {}
    for folder in folders(app):
        if not os.path.isdir(folder.path):  # Flask gives an app a static folder that may not exist
            continue
        around = code_around(app, folder.endpoint, outer) if files.static == "auto" else []
        if not around:
            chosen.append(folder)
            continue
        left.append(key + folder.url)
        guards.update(dict.fromkeys(around))
        if log_notices:
            logger.debug("the app serves static files at %s itself: %s", left[-1], ", ".join(around))
    if left and log_notices:
        logger.info(
            "the app serves static files at %s itself, because this code runs before them and may be a guard: %s. "
            "STATIC=on bypasses it",
            _some(left),
            _some(list(guards)),
        )
    return chosen


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
