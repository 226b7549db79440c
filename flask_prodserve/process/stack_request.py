"""A request for the stacks of all workers, such as ``flask serve stacks`` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..clock import Deadline
from .handle import Handle
from .messages import SendStacks

ANSWER_SECONDS = 3.0
"""How long workers may take to answer."""


class StackRequest:
    """Asks workers for their stacks, and calls *respond* once all have answered or :attr:`deadline`
    has passed.
    """

    def __init__(self, handles: list[Handle], respond: Callable[[Mapping[str, object]], None]) -> None:
        self.deadline = Deadline(ANSWER_SECONDS)
        self._respond = respond
        self._pids = {handle.number: handle.pid for handle in handles}
        self._texts: dict[int, str] = {}
        for handle in handles:
            handle.stack_receivers.append(self._receive)
            handle.link.send(SendStacks())
        self._answer_if_complete()

    def _receive(self, number: int, text: str) -> None:
        self._texts[number] = text
        self._answer_if_complete()

    def _answer_if_complete(self) -> None:
        if len(self._texts) == len(self._pids):
            self.answer()

    def answer(self) -> None:
        """Respond with the stacks that have arrived."""
        missing = "(no answer; the worker may be stuck in a call that does not return)"
        self._respond(
            {
                "workers": [
                    {"number": number, "pid": pid, "stacks": self._texts.get(number, missing)}
                    for number, pid in self._pids.items()
                ]
            }
        )
