"""How much is kept for clients, all together: request bodies, and what has not been taken of responses; in memory and on disk."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Callable

PRESSURE = 0.9
"""The share of the bound at which room has to be made."""

RELIEF = 0.8
"""The share down to which it is made."""


MEMORY_SHARE = 64
"""The part of the bound that request bodies may take in memory, all together; what comes beyond goes to disk at once. With the default of
MAX_SPOOL that is 16 MiB: 32 bodies of the largest size that stays in memory, twice as many as there are THREADS to read them.
"""

ROOM_SECONDS = 1.0
"""How long who has something to be kept waits for room at the most, before it goes on all the same."""


class SpoolFull(OSError):
    """No more may be kept."""


class Spool:
    """A count of bytes, for any thread. *most* is its bound. *make_room* is called when there is pressure, and again when it is full."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self.in_memory = 0
        self.full = False
        self.make_room: Callable[[], None] = lambda: None
        self._room = threading.Condition()
        self._told = 0

    def add(self, count: int) -> None:
        with self._room:
            self.size += count
            self.full = self.size > self.most
            level = self.pressed + self.full
            if level <= self._told:
                return
            self._told = level
        self.make_room()

    def remove(self, count: int) -> None:
        with self._room:
            self.size -= count
            if self.full and self.size <= self.most:
                self.full = False
                self._room.notify_all()
            self._told = min(self._told, self.pressed + self.full)

    def take_memory(self, count: int) -> bool:
        """Count so many bytes of a body as kept in memory, if there is room for them. Returns whether there is."""
        with self._room:
            fits = self.in_memory + count <= self.most // MEMORY_SHARE
            if fits:
                self.in_memory += count
            return fits

    def return_memory(self, count: int) -> None:
        with self._room:
            self.in_memory -= count

    def await_room(self) -> None:
        """Wait until it is not full any more: not for clients, but until room has been made, which is soon."""
        with self._room:
            self._room.wait_for(lambda: not self.full, ROOM_SECONDS)

    @property
    def pressed(self) -> bool:
        return self.size > PRESSURE * self.most

    @property
    def excess(self) -> int:
        """Bytes to be freed until there is room again."""
        return max(0, self.size - int(RELIEF * self.most))


def cannot_be_kept(error: OSError) -> str:
    """What to say where something cannot be written to a temporary file."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "raise the limit of open files (ulimit -n)"
    else:
        hint = f"see what fills {tempfile.gettempdir()}, or name another directory in TMPDIR"
    return f"cannot be kept: {error.strerror or error}; {hint}"
