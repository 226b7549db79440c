"""How many bytes are kept for clients, in total: request bodies and unsent parts of responses, in
memory and on disk.
"""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Callable

PRESSURE = 0.9
"""The share of the bound at which room has to be made."""

RELIEF = 0.8
"""The share down to which room is made."""

MEMORY_SHARE = 64
"""Request bodies may take 1/64 of the bound in memory; further ones go to disk at once. With the
default of MAX_SPOOL that is 16 MiB: 32 bodies of the largest size that stays in memory, twice as
many as there are THREADS to read them.
"""

ROOM_SECONDS = 1.0
"""How long a thread waits for room before it goes on without it."""


class SpoolFull(OSError):
    """No more bytes may be kept."""


class Spool:
    """A count of bytes, for any thread. *most* is its bound. *make_room* is called under pressure,
    and again when the spool is full.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.in_memory = 0
        self.full = False
        self.make_room: Callable[[], None] = lambda: None
        self._room = threading.Condition()
        self._reported = 0
        """The level that *make_room* has been called for: 0, 1 (pressure), or 2 (full)."""

    def add(self, count: int) -> None:
        with self._room:
            self.size += count
            self.full = self.size > self.most
            level = self.pressed + self.full
            if level <= self._reported:
                return
            self._reported = level
        self.make_room()

    def remove(self, count: int) -> None:
        with self._room:
            self.size -= count
            if self.full and self.size <= self.most:
                self.full = False
                self._room.notify_all()
            self._reported = min(self._reported, self.pressed + self.full)

    def take_memory(self, count: int) -> bool:
        """Count *count* bytes of a body as kept in memory, if they fit. Return whether they do."""
        with self._room:
            fits = self.in_memory + count <= self.most // MEMORY_SHARE
            if fits:
                self.in_memory += count
            return fits

    def return_memory(self, count: int) -> None:
        with self._room:
            self.in_memory -= count

    def await_room(self) -> None:
        """Wait until the spool is not full. That is soon, since slow clients are cut for it."""
        with self._room:
            self._room.wait_for(lambda: not self.full, ROOM_SECONDS)

    @property
    def pressed(self) -> bool:
        return self.size > PRESSURE * self.most

    @property
    def excess(self) -> int:
        """Bytes to free until there is enough room again."""
        return max(0, self.size - int(RELIEF * self.most))


def cannot_be_kept(error: OSError) -> str:
    """Describe why bytes cannot be written to a temporary file, and what to do."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "raise the limit of open files (ulimit -n)"
    else:
        hint = f"see what fills {tempfile.gettempdir()}, or name another directory in TMPDIR"
    return f"cannot be kept: {error.strerror or error}; {hint}"
