"""The only import of waitress, and what is taken from it.

Taken: ``wasyncore``'s event loop for systems without epoll, the thread pool that belongs to it, the trigger that wakes either event loop
up, and ``ClientDisconnected``.

Not taken: its parser, channel, task, server and adjustments. They accept messages that this project refuses, and measure no time while a
client sends or receives.
"""

from __future__ import annotations

from waitress.channel import ClientDisconnected
from waitress.task import ThreadedTaskDispatcher
from waitress.trigger import trigger
from waitress.wasyncore import loop

__all__ = ["ClientDisconnected", "ThreadedTaskDispatcher", "loop", "trigger"]
