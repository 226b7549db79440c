"""Room in the spool: near MAX_SPOOL, clients are cut that would hold their bytes longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from ...clock import Clock
from ...observe.cuts import Cuts
from ..channel import Channel
from ..reply import SPOOL_FULL
from ..spool import Spool

SUPPOSED_SPEED = 1 << 16
"""Bytes a second that a client is supposed to take or send while its speed is unknown."""


class Holder(NamedTuple):
    """A connection with bytes in the spool, of a response or of a request body."""

    channel: Channel
    kept: int
    speed: float | None
    """Bytes a second at which the client moves them, if known."""


def to_cut(holders: Iterable[Holder], excess: int, *, full: bool) -> list[Channel]:
    """Choose the connections to cut, until *excess* bytes are free.

    The first is the one that would hold its bytes longest at its speed, in either direction.
    Clients of unknown speed are cut only if the spool is *full*.
    """
    chosen = []
    candidates = [holder for holder in holders if full or holder.speed is not None]
    for holder in sorted(candidates, key=_seconds_kept, reverse=True):
        if excess <= 0:
            break
        excess -= holder.kept
        chosen.append(holder.channel)
    return chosen


def _seconds_kept(holder: Holder) -> float:
    return holder.kept / max(SUPPOSED_SPEED if holder.speed is None else holder.speed, 1.0)


class MemoryPressure:
    """Frees room in *spool*. *channels* returns the open connections.

    Calls *later* with the work of cutting a client.
    """

    def __init__(
        self,
        spool: Spool,
        channels: Callable[[], Iterable[Channel]],
        cuts: Cuts,
        clock: Clock,
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self._spool = spool
        self._channels = channels
        self._cuts = cuts
        self._clock = clock
        self._later = later

    def check(self) -> None:
        """Relieve the spool if it is under pressure."""
        if self._spool.pressed:
            self.relieve()

    def relieve(self) -> None:
        """Choose clients, and have them cut later."""
        now = self._clock()
        holders = [Holder(channel, kept, channel.speed(now)) for channel in self._channels() if (kept := channel.kept)]
        for channel in to_cut(holders, self._spool.excess, full=self._spool.full):
            self._later(partial(self._cut, channel))

    def _cut(self, channel: Channel) -> None:
        """Cut the client, unless room was made meanwhile."""
        if not (channel.connected and channel.kept and self._spool.excess):
            return
        self._cuts.count(
            "MAX_SPOOL",
            "cut the slowest clients with the most buffered bytes: reset their responses, rejected their uploads "
            "with 503. Raise MAX_SPOOL if memory and disk allow it",
        )
        if channel.output.kept:
            channel.reset()
        else:
            channel.refuse(SPOOL_FULL)
