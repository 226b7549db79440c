"""The error that a reader of requests raises for a message that it does not accept."""

from __future__ import annotations


class Refusal(Exception):
    """The message gets *status*, and the connection is closed.

    *reason* is a sentence for the client, without any bytes of the message. *setting* is the limit
    that the message exceeds, if that is the reason.
    """

    def __init__(self, status: int, reason: str, setting: str | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.setting = setting
