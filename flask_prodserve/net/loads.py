"""The number of connections of each process, in memory shared by all, so that new connections go to
a process with few.

Rules: each process writes only to its own slot, one aligned 64-bit number at a time. There is no
lock: a reader may see any mix of old and new values, and at worst makes one bad decision. A slot
that was not refreshed for STALE_SECONDS belongs to a process that is dead or hangs, and does not
count.

A slot is a cache line with two numbers: the time of the last refresh (0: it accepts no
connections), and the strain and the connections. The line before the first slot has the number of
slots in use, so that a reader does not search all of them.
"""

from __future__ import annotations

import mmap
import os
import tempfile

from ..clock import Clock, monotonic

STALE_SECONDS = 2.0
"""How long a slot counts without a refresh. Processes refresh theirs every half second."""

_LINE = 8
_REFRESHED, _LOAD = range(2)
_STRAIN_BITS = 32
_NANOSECONDS = 10**9


class Loads:
    """Maps the memory behind *descriptor*, which may be closed afterwards, for the process with
    this *slot*.

    *clock* must be the same in all processes, as a system's monotonic clock is. Use it from one
    thread at a time.
    """

    def __init__(self, descriptor: int, slot: int, clock: Clock = monotonic) -> None:
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        with memoryview(self._memory) as view:
            self._numbers = view.cast("q")
        self._clock = clock
        self._slot = slot
        self._at = _at(slot)
        self._withdrawn = False

    @staticmethod
    def create(slots: int) -> int:
        """Create memory for *slots* processes. Returns a descriptor that other programs do not
        inherit. Raises OSError.
        """
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("prodserve-loads")
        else:
            descriptor, path = tempfile.mkstemp()
            os.unlink(path)
        os.ftruncate(descriptor, 8 * _at(slots))
        return descriptor

    @staticmethod
    def clear(descriptor: int, slot: int) -> None:
        """Clear the slot of a process that has ended."""
        os.pwrite(descriptor, bytes(8 * _LINE), 8 * _at(slot))

    def publish(self, connections: int, strain: int = 0) -> None:
        """Publish that this process accepts connections, and how many it has. *strain* is higher
        the less it can do; 0 is normal.
        """
        if self._withdrawn:
            return
        numbers = self._numbers
        numbers[self._at + _LOAD] = strain << _STRAIN_BITS | connections
        numbers[self._at + _REFRESHED] = int(self._clock() * _NANOSECONDS)
        if numbers[0] <= self._slot:
            numbers[0] = self._slot + 1  # of two at once one is overwritten, and does it again next time

    def withdraw(self) -> None:
        """Publish that this process accepts no more connections, for good."""
        self._withdrawn = True
        self._numbers[self._at + _REFRESHED] = 0

    def close(self) -> None:
        """Release the memory, and the descriptor that Python keeps for it. Call nothing else
        afterwards.
        """
        self._numbers.release()
        self._memory.close()

    @property
    def others(self) -> bool:
        """Whether other processes accept connections."""
        return bool(self._of_others())

    def crowded(self, connections: int, strain: int = 0) -> bool:
        """Return whether another process should take a new connection instead of this one.

        It should if it has less strain, or clearly fewer connections: more than an eighth and one
        fewer.
        """
        for load in self._of_others():
            strain_there, connections_there = divmod(load, 1 << _STRAIN_BITS)
            if strain_there < strain:
                return True
            if strain_there == strain and connections > connections_there + connections_there // 8 + 1:
                return True
        return False

    def _of_others(self) -> list[int]:
        numbers = self._numbers
        used = min(_at(numbers[0]), len(numbers))
        freshest = int(self._clock() * _NANOSECONDS)
        stalest = freshest - int(STALE_SECONDS * _NANOSECONDS)
        return [
            numbers[at + _LOAD]
            for at in range(_LINE, used, _LINE)
            if numbers[at + _REFRESHED] > stalest and at != self._at
        ]


def _at(slot: int) -> int:
    return (slot + 1) * _LINE
