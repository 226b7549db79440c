"""What connections and listeners need of the event loop. The loops themselves are in ``dispatch``.

The thread that runs the loop reads and closes connections, and sends what is left of their output.
A connection is *running* from the moment that it has a complete request until that is answered. One
service thread runs it, and no thread reads it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Watched(Protocol):
    """What the event loop watches: a connection, a listener, or its own trigger. For the loop's
    thread.
    """

    @property
    def descriptor(self) -> int: ...

    @property
    def accepting(self) -> bool:
        """Whether it is a listener that accepts connections."""

    def readable(self) -> bool:
        """Tell whether to watch for something to read."""

    def writable(self) -> bool:
        """Tell whether to watch for room to send."""

    def handle_read(self) -> None: ...

    def handle_write(self) -> None: ...

    def handle_error(self) -> None:
        """Handle the exception that one of the others has raised."""

    def close(self) -> None:
        """Close it: the system reports that it is of no more use."""


class EventLoop(Protocol):
    @property
    def defers_accepting(self) -> bool:
        """Whether other processes should accept the next connection. Changes with every connection.
        From the loop's thread.
        """

    def watch(self, entry: Watched, /) -> None:
        """Begin to watch *entry*. Raises OSError. From the loop's thread."""

    def update_interest(self, entry: Watched, /) -> None:
        """Watch for what *entry* waits for now. Under the connection's ``output_lock``; for a
        listener from the loop's thread.
        """

    def forget(self, entry: Watched, /) -> None:
        """Stop watching *entry*, which is about to be closed. From the loop's thread."""

    def submit(self, connection: Any, /) -> None:
        """Have the request of *connection* answered, which is complete; it is running from now on.
        From the loop's thread.
        """

    def give_way(self) -> None:
        """Let another thread run the loop if the calling thread does: what it does for its request
        takes time.
        """

    def soon(self, function: Callable[[], object], /) -> None:
        """Call *function* in the loop's thread. From any thread."""
