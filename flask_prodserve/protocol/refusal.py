"""What a reader of requests says to a message that it does not accept."""

from __future__ import annotations


class Refusal(Exception):
    """A message that is answered with *status* and closed on. *reason* is a sentence for the client, with none of its bytes; *setting* is
    what it has gone beyond, if it is a matter of that.
    """

    def __init__(self, status: int, reason: str, setting: str | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.setting = setting
