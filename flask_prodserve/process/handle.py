"""A worker as its supervisor sees it: a process, the link to it, and what it last reported."""

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
    """*slot* is the worker's entry in the load table; *started_at* is on the monotonic clock."""

    number: int
    generation: int
    pid: int
    link: Link
    slot: int
    started_at: float
    report: Report | None = None
    drained: Drained | None = None
    error: str = ""
    """Why it could not serve."""
    stack_receivers: list[Callable[[int, str], None]] = field(default_factory=list)
    """Called once with the worker's number and its stacks."""
    linked: bool = True
    dump: int | None = None
    """The descriptor to which it writes its stacks if a signal ends it; not handed over to the next
    supervisor.
    """

    def messages(self) -> list[Any]:
        """Return the messages that have arrived.

        Sets :attr:`linked` to False once no more can come.
        """
        try:
            messages = self.link.receive()
        except Broken as error:
            self.error = f"it sent {error}"
            self.send_signal(signal.SIGKILL)
            messages = None
        if messages is None:
            self.linked = False
            return []
        return messages

    def last_messages(self) -> list[Any]:
        """Return the messages that have arrived from a worker that has exited.

        Another process may hold its end; no more is read.
        """
        self.linked = False
        try:
            return self.link.receive_rest()
        except Broken as error:
            self.error = f"it sent {error}"
            return []

    def deliver_stacks(self, text: str) -> None:
        """Pass the worker's stacks to those who asked for them."""
        receivers, self.stack_receivers = self.stack_receivers, []
        for receive in receivers:
            receive(self.number, text)

    def take_dump(self) -> str:
        """Return the stacks that the worker wrote when a signal ended it, and close the dump."""
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
        """Send a signal.

        Safe: the process has not been reaped, so no other process can have its id.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
