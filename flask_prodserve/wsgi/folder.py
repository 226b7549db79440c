"""A folder that is served at a URL, and the files in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple


class Folder(NamedTuple):
    """The files below *path* are served below *url*, which starts and ends with a slash, by the
    view of *endpoint*.
    """

    url: str
    path: str
    endpoint: str


def regular_files(root: str) -> dict[str, os.stat_result]:
    """Return the files below *root* by path, without dotfiles, files in dotted folders, and files
    that cannot be examined.
    """
    return dict(_below(root, frozenset()))


def _below(folder: str, around: frozenset[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below *folder*. *around* identifies the folders around it, so that a circle
    of links ends.
    """
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
