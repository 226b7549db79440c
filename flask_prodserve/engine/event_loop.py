"""What a connection or a listener needs of the event loop. The loop itself is in ``dispatch``.

The thread that runs the loop reads and closes connections, and sends what is left of their output. A connection is *running* from the
moment that it has a complete request until that is answered. One service thread runs it, and no thread reads it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class EventLoop(Protocol):
    """*entry* is a connection or a listener."""

    @property
    def defers_accepting(self) -> bool:
        """Whether other processes should accept the next connection. Changes with every connection. From the loop's thread."""

    def watch(self, entry: Any, /) -> None:
        """Begin to watch *entry*, which is new in the map. Raises OSError. From the loop's thread."""

    def update_interest(self, entry: Any, /) -> None:
        """Watch for what *entry* waits for now. Under the connection's ``output_lock``; for a listener from the loop's thread."""

    def forget(self, entry: Any, /) -> None:
        """Stop to watch *entry*, which is about to be closed. From the loop's thread."""

    def submit(self, channel: Any, /) -> None:
        """Have the request of *channel* answered, which is complete; *channel* is running from now on. From the loop's thread."""

    def give_way(self) -> None:
        """Let another thread run the loop if the calling thread does: what it does for its request takes time."""

    def soon(self, function: Callable[[], object], /) -> None:
        """Call *function* in the loop's thread. From any thread."""
