"""What runs channels: two implementations, one interface.

:class:`~.leadership.Leadership` where there is epoll, :class:`~.portable.PortableLoop` elsewhere.

The rules for both: the thread that runs the loop reads and closes channels, and sends what is left of their output. A channel is
*running* from the moment that it has a complete request until that is answered, and so are the requests that came with it; one service
thread runs it, and nobody reads it meanwhile. After each request a channel goes to the end of the queue if another one waits, so that a
client that pipelines gets one turn at a time, as any other does. If none waits, its thread goes on with its next request at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..clock import Deadline

if TYPE_CHECKING:
    from .channel import Channel


class Loop(Protocol):
    """Made after any fork. ``run`` means: from the thread that serves until it is told to stop, the *steward*."""

    @property
    def defers_accepting(self) -> bool:
        """Whether other processes should take the next connection. Changes with every connection. From the loop's thread."""

    def start(self) -> None:
        """Begin to serve the entries of the map. Raises RuntimeError where no thread can be started."""

    def watch(self, entry: Any) -> None:
        """A channel or listener is new in the map. From the loop's thread."""

    def update_interest(self, entry: Any) -> None:
        """What *entry* waits for may have changed. For a channel under its ``output_lock``; for a listener from the loop's thread."""

    def forget(self, entry: Any) -> None:
        """*entry* is about to be closed. From the loop's thread."""

    def submit(self, channel: Channel) -> None:
        """*channel* has a request to be answered, and is running from now on. From the loop's thread."""

    def give_way(self) -> None:
        """What the calling thread does for its request takes its time: if it runs the loop as well, another one goes on with that."""

    def move_to_stream_budget(self, channel: Channel) -> None:
        """The response of *channel*, which is running, streams, and gives up its place among THREADS, as far as MAX_STREAMS allows.

        From the loop's thread.
        """

    def is_stream(self, channel: Channel) -> bool:
        """Whether *channel* counts against MAX_STREAMS."""

    def abandoned(self, channel: Channel) -> None:
        """The thread that runs the request of *channel* has been given up, and does not count against THREADS any more.

        From the loop's thread, right after :meth:`.channel.Channel.abandon`.
        """

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        """Take those channels out of the queue of which *unwanted* says so; it is asked of all, those first that have waited longest.

        From the loop's thread.
        """

    @property
    def queued(self) -> int:
        """How many requests wait for a thread."""

    @property
    def stuck(self) -> int:
        """How many threads have been given up and have not come back."""

    def soon(self, function: Callable[[], object]) -> None:
        """Have *function* called in the loop's thread. From any thread."""

    def turn(self, seconds: float) -> None:
        """Do the steward's work for *seconds*, or until :meth:`wake`."""

    def wake(self) -> None:
        """End the current turn, or the next one. From any thread, and from signal handlers."""

    def call(self, function: Callable[[], object]) -> None:
        """Have *function* called in the loop's thread, and wait for it. From the steward."""

    def check(self) -> None:
        """See what has become possible with time. Every half second, from the loop's thread."""

    def drop_queue(self) -> None:
        """Forget the requests that no thread has begun. From the loop's thread."""

    def abandon(self) -> None:
        """Close the descriptors in a child process, which runs nothing. See ``net.forked``."""

    def stop(self, deadline: Deadline) -> bool:
        """Let the threads end as soon as they are free. Returns whether all did before *deadline*."""
