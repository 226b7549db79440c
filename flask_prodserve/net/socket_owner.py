"""Creating a Unix socket for another account, without root doing anything that this account could redirect.

Rules: the socket has its permissions from ``bind()`` on, so that nothing is changed by path afterwards. Root works with its own rights
only in a directory that only root can change; in any other it works with the owner's. Only for processes with one thread, or before
others matter: user ids and umask belong to the whole process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from .root_only import open_to_others


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a socket is for: a user, its group, and all groups that it is in."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@contextlib.contextmanager
def rights_for(folder: str, owner: Owner | None) -> Iterator[bool]:
    """Have *owner*'s rights in the block, unless only root can change *folder*. Yields whether the block runs with them.

    Without *owner* nothing changes.
    """
    if owner is None or owner.uid == 0 or open_to_others(folder) is None:
        yield False
        return
    user, group, groups = os.geteuid(), os.getegid(), os.getgroups()
    os.setgroups(owner.groups)
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield True
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)


def bind(listening: socket.socket, path: str, mode: int) -> None:
    """Bind *listening* to *path*, which has the permissions *mode* from the first moment on. Raises OSError."""
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):
            os.fchmod(listening.fileno(), mode)  # on Linux it counts even if the folder has a default ACL
    before = os.umask(~mode & 0o777)
    try:
        listening.bind(path)
    finally:
        os.umask(before)
