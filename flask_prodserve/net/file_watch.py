"""Detects that files were replaced or written, from their metadata. Never reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence


class FileWatch:
    """Watches the files at *paths* for changes from now on."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self.accept()

    def accept(self) -> None:
        """Take the files as they are now as known."""
        self._known = self._seen = self._stamps()

    def changed(self) -> bool:
        """Return whether the files have changed, and take them as known. Call it about every
        second.

        Returns True only once they are the same in two calls: a certificate and its key are
        replaced one after the other.
        """
        before, self._seen = self._seen, self._stamps()
        if self._seen == self._known or self._seen != before:
            return False
        self._known = self._seen
        return True

    def _stamps(self) -> list[tuple[int, int, int, int] | None]:
        """Return the time, size and identity of each file, or None if it is missing."""
        return [_stamp(path) for path in self._paths]


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # follows symbolic links, which certbot replaces
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
