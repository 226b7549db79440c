"""A worker as its supervisor sees it: a process, the link to it, and what it last said."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..observe.events import Drained
from . import crash_dump
from .link import Broken, Link
from .messages import Report


@dataclass(eq=False)
class Handle:
    """*slot* is its place in the memory of loads; *started_at* is on the monotonic clock."""

    number: int
    generation: int
    pid: int
    link: Link
    slot: int
    started_at: float
    report: Report | None = None
    drained: Drained | None = None
    why: str = ""
    """Why it could not serve."""
    awaited: list[Callable[[int, str], None]] = field(default_factory=list)
    """Who has asked for its stacks."""
    linked: bool = True
    dump: int | None = None
    """The descriptor of what it writes if a signal ends it; not handed over to the next supervisor."""

    def messages(self) -> list[Any]:
        """What it has said since the last time; :attr:`linked` is False once it will say no more."""
        try:
            messages = self.link.receive()
        except Broken as error:
            self.why = f"it sent {error}"
            self.send_signal(signal.SIGKILL)
            messages = None
        if messages is None:
            self.linked = False
            return []
        return messages

    def last_messages(self) -> list[Any]:
        """What has arrived of a worker that has ended. Another process may still hold its end of the link; nothing more is read."""
        self.linked = False
        try:
            return self.link.receive_rest()
        except Broken as error:
            self.why = f"it sent {error}"
            return []

    def tell_stacks(self, text: str) -> None:
        """Pass its stacks on."""
        awaited, self.awaited = self.awaited, []
        for hear in awaited:
            hear(self.number, text)

    def take_dump(self) -> str:
        """What it wrote when a signal ended it, and close that."""
        if self.dump is None:
            return ""
        text = crash_dump.read(self.dump)
        self.close_dump()
        return text

    def close_dump(self) -> None:
        if self.dump is not None:
            os.close(self.dump)
            self.dump = None

    def send_signal(self, number: signal.Signals) -> None:
        """The process is there, or has not been reaped: its id belongs to nobody else."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
