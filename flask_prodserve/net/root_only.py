"""Checks whether only root can change what is at a path.

Rules: each component of a path is checked, as written and as resolved: an account that can write to
one of the directories can replace what is in it. In a directory with the sticky bit (``/tmp``),
others cannot replace what root owns.
"""

from __future__ import annotations

import os
import stat

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def open_to_others(path: str) -> str | None:
    """Return which component of *path* an account other than root can change, and why; None if
    none.

    A component that cannot be examined counts as one that others can change.
    """
    for name in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        for component in _components(name):
            try:
                found = os.lstat(component)
            except OSError as error:
                return f"{component}: {error.strerror}"
            if found.st_uid != 0:
                return f"{component} belongs to {account_name(found.st_uid)}"
            sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
            if found.st_mode & _OTHERS_WRITE and not sticky and not stat.S_ISLNK(found.st_mode):
                return f"{component} is writable by others ({stat.filemode(found.st_mode)})"
    return None


def account_name(uid: int) -> str:
    """Return the name of the account *uid*, or its number if it has no name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _components(path: str) -> list[str]:
    """Return ``/``, ``/srv``, ``/srv/app`` for ``/srv/app``."""
    components = [path]
    while (parent := os.path.dirname(components[-1])) != components[-1]:
        components.append(parent)
    return components[::-1]
