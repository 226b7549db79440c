"""How many requests of one endpoint run at the same time (``max_concurrency``).

Those beyond wait in a queue of their endpoint's, in the order in which they came, and not in that of the server.

A request that is given up (REQUEST_TIMEOUT) counts until its view ends: the limit protects what the view uses, and it still uses that.
If all that may run have been given up, and others waited in vain, the endpoint is *blocked*, and a new process is the only help.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from ..settings.endpoint_limits import Endpoint
    from .channel import Channel


class Share:
    """What an endpoint may have of the server, and what it has."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting: deque[Channel] = deque()
        self.stuck: set[Channel] = set()
        """Those of the running that have been given up."""
        self.blocked = False


class Admission:
    """For any thread. *endpoint_of* tells for which endpoint a request is."""

    def __init__(self, endpoint_of: Callable[[RequestHead], Endpoint]) -> None:
        self._endpoint_of = endpoint_of
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}

    def admit(self, channel: Channel) -> bool:
        """Whether the request of *channel* may run; if not, it waits until :meth:`release` returns it."""
        head = channel.requests[0].head
        if channel.share is not None or channel.requests[0].reply is not None or head is None:
            return True
        endpoint = self._endpoint_of(head)
        if endpoint.limits.max_concurrency is None:
            return True
        with self._lock:
            share = self._shares.get(endpoint.name)
            if share is None:
                share = self._shares[endpoint.name] = Share(endpoint.limits.max_concurrency)
            if share.running >= share.most:
                channel.queue()
                share.waiting.append(channel)
                return False
            share.running += 1
            channel.share = share
            return True

    def abandoned(self, channel: Channel) -> None:
        """The request of *channel* has been given up. It keeps its share until :meth:`release`."""
        with self._lock:
            if channel.share is not None:
                channel.share.stuck.add(channel)

    def release(self, channel: Channel) -> Channel | None:
        """The request of *channel* does not run any more. Returns one that may run in its place, and has its share."""
        with self._lock:
            share, channel.share = channel.share, None
            if share is None:
                return None
            if channel in share.stuck:
                share.stuck.remove(channel)
                share.blocked = False
            if share.waiting:
                following = share.waiting.popleft()
                following.share = share
                return following
            share.running -= 1
            return None

    @property
    def blocked(self) -> bool:
        """Whether requests timed out in the queue of an endpoint, while all of its running requests are past REQUEST_TIMEOUT."""
        return any(share.blocked for share in list(self._shares.values()))

    @property
    def queued(self) -> int:
        """How many requests wait for others of their endpoint."""
        return sum(len(share.waiting) for share in list(self._shares.values()))

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        """Take those that wait and of which *unwanted* says so out of their queues."""
        withdrawn = []
        with self._lock:
            for share in self._shares.values():
                taken = take_out(share.waiting, unwanted)
                if taken and len(share.stuck) >= share.most:
                    share.blocked = True
                withdrawn += taken
        return withdrawn


def take_out(queue: deque[Channel], unwanted: Callable[[Channel], bool]) -> list[Channel]:
    """Those of *queue* of which *unwanted* says so, which are no longer in it."""
    taken = [channel for channel in queue if unwanted(channel)]
    if taken:
        gone = set(taken)
        kept = [channel for channel in queue if channel not in gone]
        queue.clear()
        queue.extend(kept)
    return taken
