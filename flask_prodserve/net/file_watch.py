"""Whether files have been replaced or written, by what the system says of them; nothing is read."""

from __future__ import annotations

import os
from collections.abc import Sequence


class FileWatch:
    """Watches the files at *paths*, as they are now."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self.accept()

    def accept(self) -> None:
        """What is there now is known: whoever asked has read it, or will."""
        self._known = self._seen = self._stamps()

    def changed(self) -> bool:
        """Whether there are other files than those that are known; they are known then. To be called every second or so.

        Only once they are the same for two calls: who replaces a certificate and its key does one after the other.
        """
        before, self._seen = self._seen, self._stamps()
        if self._seen == self._known or self._seen != before:
            return False
        self._known = self._seen
        return True

    def _stamps(self) -> list[tuple[int, int, int, int] | None]:
        """Of each file, None where there is none, when it was written, its size, and which one it is."""
        return [_stamp(path) for path in self._paths]


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # through symbolic links, as certbot replaces them
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
