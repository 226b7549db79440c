"""Check that the account in USER can read Python, the installed packages and the app.

Without this check a worker fails somewhere inside an import, with a traceback that does not name
the cause. Rules: :func:`needed` lists the paths with root's rights, :func:`check` checks them after
the rights are given up, and neither imports a module.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import PrivilegeError
from ..net.root_only import account_name

logger = logging.getLogger("flask_prodserve")

PACKAGES = (
    "blinker",
    "click",
    "flask",
    "flask_prodserve",
    "itsdangerous",
    "jinja2",
    "markupsafe",
    "waitress",
    "werkzeug",
)
"""What a worker imports before it loads the app."""


@dataclass(frozen=True, slots=True)
class Needed:
    """*required* are pairs of a description and a path; *useful* are directories without which the
    app may still load.

    All paths are resolved, which the account itself may be unable to do.
    """

    required: tuple[tuple[str, str], ...]
    useful: tuple[str, ...]


def needed(import_path: str | None, folder: str) -> Needed:
    """List what a worker must read to serve the app *import_path*, looked up in *folder*.

    Call it with root's rights.
    """
    required = [("Python", sys.executable), ("Python", os.path.dirname(os.__file__))]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name.partition(".")[0] in PACKAGES:
            required += [("the installed packages", os.path.dirname(file)), ("the installed packages", file)]
    required += [("the app", path) for path in _app(import_path, folder)]
    resolved = dict.fromkeys((what, os.path.realpath(path)) for what, path in required if os.path.exists(path))
    entries = dict.fromkeys(os.path.realpath(entry) for entry in sys.path if os.path.exists(entry or folder))
    return Needed(tuple(resolved), tuple(entries))


def check(needed: Needed, *, log_notices: bool) -> None:
    """Check that this process can read all that is *needed*. Call it after the rights are given up.

    Raises PrivilegeError if it cannot read what is required. *log_notices*: log which directories
    of ``sys.path`` it cannot read.
    """
    closed: dict[str, dict[str, str]] = {}
    for what, path in needed.required:
        if (blocked := _blocked(path)) is not None:
            closed.setdefault(blocked, {}).setdefault(what, path)
    user = account_name(os.geteuid())
    if closed:
        unread = {what: path for paths in closed.values() for what, path in paths.items()}
        shown = ", ".join(f"{what} ({path})" for what, path in unread.items())
        blocked = ", ".join(map(_described, closed))
        required = {path for _, path in needed.required}
        remedies = " and ".join(f"`chmod o+{'rX' if path in required else 'x'} {shlex.quote(path)}`" for path in closed)
        raise PrivilegeError(
            f"USER: {user} cannot read {shown}, because of the permissions of {blocked}.",
            f"Install {'it' if len(unread) == 1 else 'them'} where every account can read, such as /opt or /srv; or run {remedies}; "
            "or choose another --user.",
        )
    if log_notices:
        for entry in needed.useful:
            if (blocked := _blocked(entry)) is not None:
                logger.warning(
                    "USER: %s cannot read %s, so Python finds no modules in it. Check the permissions of %s",
                    user,
                    entry,
                    _described(blocked),
                )


def _app(import_path: str | None, folder: str) -> Iterator[str]:
    """Yield the files from which Flask will load the app, if they are below *folder* or given as a
    path.
    """
    names = ["wsgi.py", "app.py"] if import_path is None else [re.split(r":(?![\\/])", import_path, maxsplit=1)[0]]
    found = False
    for name in names:
        module = name.replace(".", os.sep)
        for candidate in (name, f"{module}.py", os.path.join(module, "__init__.py")):
            path = os.path.join(folder, candidate)
            if os.path.isfile(path):
                found = True
                yield from (os.path.dirname(path), path)
    if import_path is None and not found:
        yield folder


def _blocked(path: str) -> str | None:
    """Return the first component of *path* that this process cannot pass or read; None if it can
    read *path*.
    """
    components = [path]
    while (parent := os.path.dirname(components[-1])) not in ("", components[-1]):
        components.append(parent)
    for component in components[:0:-1]:
        if not os.access(component, os.X_OK):
            return component
    mode = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    return None if os.access(path, mode) else path


def _described(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return path
    return f"{path} ({stat.filemode(found.st_mode)}, owner {account_name(found.st_uid)})"
