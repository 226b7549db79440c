"""Somebody wants to know where the threads of all workers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..clock import Deadline
from . import messages
from .handle import Handle

SECONDS = 3.0
"""How long workers may take to say it."""


class Inquiry:
    """Asks workers for their stacks, and passes them on to *respond* once all have answered; or when :attr:`deadline` has passed."""

    def __init__(self, handles: list[Handle], respond: Callable[[Mapping[str, object]], None]) -> None:
        self.deadline = Deadline(SECONDS)
        self._respond = respond
        self._pids = {handle.number: handle.pid for handle in handles}
        self._texts: dict[int, str] = {}
        for handle in handles:
            handle.awaited.append(self._hear)
            handle.link.send(messages.SendStacks())
        self._answer_if_complete()

    def _hear(self, number: int, text: str) -> None:
        self._texts[number] = text
        self._answer_if_complete()

    def _answer_if_complete(self) -> None:
        if len(self._texts) == len(self._pids):
            self.answer()

    def answer(self) -> None:
        """Answer with what has come."""
        silent = "(no answer: it may be stuck inside a call that does not return)"
        self._respond(
            {
                "workers": [
                    {"number": number, "pid": pid, "stacks": self._texts.get(number, silent)}
                    for number, pid in self._pids.items()
                ]
            }
        )
