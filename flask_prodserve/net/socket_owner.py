"""Creates a Unix socket for another account, without letting that account redirect what root does.

Rules: the socket has its permissions from ``bind()`` on, so nothing is changed by path afterwards.
Root uses its own rights only in a directory that only root can change; in any other it uses the
owner's. Only for processes with one thread, or before other threads matter: user ids and the umask
belong to the whole process.
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
    """The owner of a socket: a user, its group, and all its groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@contextlib.contextmanager
def rights_for(folder: str, owner: Owner | None) -> Iterator[bool]:
    """Run the block with *owner*'s rights, unless only root can change *folder*. Yields whether it
    does.

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
    """Bind *listening* to *path*, which has the permissions *mode* from the start. Raises OSError."""
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):
            os.fchmod(listening.fileno(), mode)  # on Linux this counts even if the folder has a default ACL
    before = os.umask(~mode & 0o777)
    try:
        listening.bind(path)
    finally:
        os.umask(before)
