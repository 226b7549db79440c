"""The only import of waitress, and what is taken from it.

Taken: the event loop for systems without epoll, the trigger that wakes an event loop up, and
``ClientDisconnected``.

Not taken: its parser, channel, task, server, thread pool and adjustments. They accept messages that
this project refuses, measure no time while a client sends or receives, and know no streams or
stuck requests.
"""

from __future__ import annotations

from waitress.channel import ClientDisconnected
from waitress.trigger import trigger
from waitress.wasyncore import loop

__all__ = ["ClientDisconnected", "loop", "trigger"]
