"""How many threads may run requests, and which of them count.

A thread that runs requests without the lead is *busy* and takes one of THREADS slots. Two
kinds give their slot back before they are done: *streams*, up to MAX_STREAMS, and *stuck* requests,
which were given up.

Not locked: :class:`~.dispatcher.Dispatcher` changes it under its lock.
"""

from __future__ import annotations

from ..connection.connection import Connection


class ThreadBudget:
    """Counts threads against THREADS (*threads*) and MAX_STREAMS (*max_streams*)."""

    __slots__ = ("_max_streams", "_streams", "busy", "stuck", "threads")

    def __init__(self, threads: int, max_streams: int) -> None:
        self.threads = threads
        self.busy = 0
        self.stuck = 0
        self._max_streams = max_streams
        self._streams: set[Connection] = set()
        """The connections whose thread counts against MAX_STREAMS."""

    @property
    def full(self) -> bool:
        """Whether all slots are taken."""
        return self.busy >= self.threads

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def most_threads(self) -> int:
        """How many threads can run requests now, the leader not counted."""
        return self.threads + len(self._streams) + self.stuck

    def is_stream(self, connection: Connection) -> bool:
        """Tell whether *connection* counts against MAX_STREAMS."""
        return connection in self._streams

    def move_to_streams(self, connection: Connection) -> bool:
        """Count the busy thread of *connection* against MAX_STREAMS instead of THREADS.

        Returns False if that is not possible.
        """
        if connection in self._streams or len(self._streams) >= self._max_streams:
            return False
        self._streams.add(connection)
        self.busy -= 1
        return True

    def give_up(self, connection: Connection) -> None:
        """Count the thread of *connection* as stuck."""
        self.stuck += 1
        self.busy -= not self._end_stream(connection)

    def end(self, connection: Connection, *, given_up: bool) -> bool:
        """Count the end of the turn of *connection*.

        Returns whether its thread is still busy and holds a slot.
        """
        if given_up:
            self.stuck -= 1
            return False
        return not self._end_stream(connection)

    def _end_stream(self, connection: Connection) -> bool:
        """Count *connection* as a stream no more. Returns whether it was one."""
        if connection not in self._streams:
            return False
        self._streams.remove(connection)
        return True
