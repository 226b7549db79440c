"""How many requests of one endpoint run at the same time (``max_concurrency``).

Requests beyond that wait in a queue of their endpoint, in the order in which they came, and not in the server's queue.

A request that is given up (REQUEST_TIMEOUT) counts until its view ends: the limit protects what the view uses, and it still uses that.
If all requests that may run have been given up while others waited in vain, the endpoint is *blocked*, and only a new process helps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..channel import Channel

if TYPE_CHECKING:
    from ...protocol.request_head import RequestHead
    from ...settings.endpoint_limits import Endpoint


class Share:
    """The requests of one endpoint. *most* is its ``max_concurrency``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting: deque[Channel] = deque()
        self.stuck: set[Channel] = set()
        """Those of the running that have been given up."""
        self.blocked = False


class Admission:
    """Decides which requests run now. For any thread. *endpoint_of* returns the endpoint of a request."""

    def __init__(self, endpoint_of: Callable[[RequestHead], Endpoint]) -> None:
        self._endpoint_of = endpoint_of
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}
        self._counted: dict[Channel, Share] = {}
        """The connections whose request counts against a ``max_concurrency``."""

    def admit(self, channel: Channel) -> bool:
        """Decide whether the request of *channel* runs now. If not, it waits until :meth:`release` returns it."""
        head = channel.requests[0].head
        if channel in self._counted or channel.requests[0].reply is not None or head is None:
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
            self._counted[channel] = share
            return True

    def counts(self, channel: Channel) -> bool:
        """Tell whether the request of *channel* counts against a ``max_concurrency``."""
        return channel in self._counted

    def abandoned(self, channel: Channel) -> None:
        """Note that the request of *channel* was given up. It counts until :meth:`release`."""
        with self._lock:
            share = self._counted.get(channel)
            if share is not None:
                share.stuck.add(channel)

    def release(self, channel: Channel) -> Channel | None:
        """Note that the request of *channel* has ended. Returns the connection whose request runs in its place and counts from now on."""
        with self._lock:
            share = self._counted.pop(channel, None)
            if share is None:
                return None
            if channel in share.stuck:
                share.stuck.remove(channel)
                share.blocked = False
            if share.waiting:
                following = share.waiting.popleft()
                self._counted[following] = share
                return following
            share.running -= 1
            return None

    @property
    def blocked(self) -> bool:
        """Whether requests timed out in the queue of an endpoint while all of its running requests are past REQUEST_TIMEOUT."""
        return any(share.blocked for share in list(self._shares.values()))

    @property
    def queued(self) -> int:
        """How many requests wait for others of their endpoint."""
        return sum(len(share.waiting) for share in list(self._shares.values()))

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        """Remove and return the waiting requests for which *unwanted* is true."""
        withdrawn = []
        with self._lock:
            for share in self._shares.values():
                taken = take_out(share.waiting, unwanted)
                if taken and len(share.stuck) >= share.most:
                    share.blocked = True
                withdrawn += taken
        return withdrawn


def take_out(queue: deque[Channel], unwanted: Callable[[Channel], bool]) -> list[Channel]:
    """Remove and return the entries of *queue* for which *unwanted* is true. It is called once for each, in order."""
    taken = [channel for channel in queue if unwanted(channel)]
    if taken:
        gone = set(taken)
        kept = [channel for channel in queue if channel not in gone]
        queue.clear()
        queue.extend(kept)
    return taken
