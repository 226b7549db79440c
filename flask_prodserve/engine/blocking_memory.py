"""What is known of requests that keep a thread waiting, so that the lead is passed on before the next of their kind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

QUICK_SECONDS = 0.0005
"""What does not take longer has not waited for anything."""

TRUSTED_AFTER = 16
"""Quick requests in a row until a kind is trusted again."""

MOST_KINDS = 512
"""Kinds that are kept; the one that was added first goes first."""


class BlockingMemory:
    """A bounded set of kinds of request, each with the quick requests that it takes until it is forgotten.

    Threads may use it at the same time: every step is one operation on a dictionary, and what two of them get wrong is a guess.
    """

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, int] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def __contains__(self, kind: Hashable) -> bool:
        return kind in self._kinds

    def add(self, kind: Hashable) -> None:
        """A request of *kind* has kept the leader waiting."""
        self._kinds[kind] = TRUSTED_AFTER
        if len(self._kinds) > MOST_KINDS:
            self._forget(next(iter(self._kinds), kind))

    def note(self, kind: Hashable, seconds: float) -> None:
        """A request of *kind*, which is in here, took *seconds*."""
        if seconds > QUICK_SECONDS:
            self._kinds[kind] = TRUSTED_AFTER
            return
        left = self._kinds.get(kind, 0) - 1
        if left > 0:
            self._kinds[kind] = left
        else:
            self._forget(kind)

    def _forget(self, kind: Hashable) -> None:
        self._kinds.pop(kind, None)
