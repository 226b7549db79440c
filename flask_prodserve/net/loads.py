"""How many connections each process of a server has, in memory that all of them share, so that new ones go where there are few.

Rules: each process writes to its own slot only, aligned 64-bit numbers one at a time. Nothing is locked: who reads may find anything,
and at worst decides badly once. What has not been refreshed for STALE_SECONDS is a process that is dead or does not come round, and is
not counted on.

A slot is a cache line with two numbers in it: when it was refreshed (0: it takes no connections), and the strain and the connections.
In the line before the first slot is how many slots may be in use, so that nobody looks through all of them.
"""

from __future__ import annotations

import mmap
import os
import tempfile

from ..clock import Clock, monotonic

STALE_SECONDS = 2.0
"""How long a process is believed in that does not say anything. They do every half second."""

_LINE = 8
_REFRESHED, _LOAD = range(2)
_STRAIN_BITS = 32
_NANOSECONDS = 10**9


class Loads:
    """The memory behind *descriptor*, which may be closed afterwards, as the process with this *slot* sees it.

    *clock* must be the same for all processes, as the monotonic clock of a system is. One thread at a time.
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
        """Memory for as many processes, as a descriptor that no other program inherits. Raises OSError."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("prodserve-loads")
        else:
            descriptor, path = tempfile.mkstemp()
            os.unlink(path)
        os.ftruncate(descriptor, 8 * _at(slots))
        return descriptor

    @staticmethod
    def clear(descriptor: int, slot: int) -> None:
        """Forget a process that has ended."""
        os.pwrite(descriptor, bytes(8 * _LINE), 8 * _at(slot))

    def publish(self, connections: int, strain: int = 0) -> None:
        """This process takes new connections, and has as many. *strain* tells how little it can do with them; 0: as much as any."""
        if self._withdrawn:
            return
        numbers = self._numbers
        numbers[self._at + _LOAD] = strain << _STRAIN_BITS | connections
        numbers[self._at + _REFRESHED] = int(self._clock() * _NANOSECONDS)
        if numbers[0] <= self._slot:
            numbers[0] = self._slot + 1  # two may do this at once; the one that is overwritten does it again next time

    def withdraw(self) -> None:
        """This process takes no more connections, and never will again."""
        self._withdrawn = True
        self._numbers[self._at + _REFRESHED] = 0

    def close(self) -> None:
        """Let go of the memory, and of the descriptor that Python keeps for it. Nothing else may be called after that."""
        self._numbers.release()
        self._memory.close()

    @property
    def others(self) -> bool:
        """Whether other processes take connections."""
        return bool(self._of_others())

    def crowded(self, connections: int, strain: int = 0) -> bool:
        """Whether another process would do better with a new connection than this one.

        It would with less strain, or with fewer connections; an eighth, and one, more or less is no difference.
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
