"""How many requests of one endpoint run at the same time (``max_concurrency``).

Requests beyond that wait in a queue of their endpoint, in the order in which they came, and not in
the server's queue.

A request that is given up (REQUEST_TIMEOUT) counts until its view ends: the limit protects what the
view uses, and it still uses that. If all requests that may run have been given up while others
waited in vain, the endpoint is *blocked*, and only a new process helps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..connection.connection import Connection


class Share:
    """The requests of one endpoint. *most* is its ``max_concurrency``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting: deque[Connection] = deque()
        self.stuck: set[Connection] = set()
        """Those of the running that have been given up."""
        self.blocked = False


class Admission:
    """Decides which requests run now. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}
        self._counted: dict[Connection, Share] = {}
        """The connections whose request counts against a ``max_concurrency``."""

    def admit(self, connection: Connection) -> bool:
        """Decide whether the request of *connection* runs now.

        If not, it waits until :meth:`release` returns it.
        """
        request = connection.current
        if connection in self._counted or request is None or request.reply is not None or request.head is None:
            return True
        endpoint = request.route.endpoint
        if endpoint.limits.max_concurrency is None:
            return True
        with self._lock:
            share = self._shares.get(endpoint.name)
            if share is None:
                share = self._shares[endpoint.name] = Share(endpoint.limits.max_concurrency)
            if share.running >= share.most:
                connection.queue()
                share.waiting.append(connection)
                return False
            share.running += 1
            self._counted[connection] = share
            return True

    def counts(self, connection: Connection) -> bool:
        """Tell whether the request of *connection* counts against a ``max_concurrency``."""
        return connection in self._counted

    def abandoned(self, connection: Connection) -> None:
        """Note that the request of *connection* was given up. It counts until :meth:`release`."""
        with self._lock:
            share = self._counted.get(connection)
            if share is not None:
                share.stuck.add(connection)

    def release(self, connection: Connection) -> Connection | None:
        """Note that the request of *connection* has ended.

        Returns the connection whose request runs in its place and counts from now on.
        """
        with self._lock:
            share = self._counted.pop(connection, None)
            if share is None:
                return None
            if connection in share.stuck:
                share.stuck.remove(connection)
                share.blocked = False
            if share.waiting:
                following = share.waiting.popleft()
                self._counted[following] = share
                return following
            share.running -= 1
            return None

    @property
    def blocked(self) -> bool:
        """Whether requests waited in vain for an endpoint whose running requests are all stuck."""
        return any(share.blocked for share in list(self._shares.values()))

    @property
    def queued(self) -> int:
        """How many requests wait for others of their endpoint."""
        return sum(len(share.waiting) for share in list(self._shares.values()))

    def withdraw(self, unwanted: Callable[[Connection], bool]) -> list[Connection]:
        """Remove and return the waiting requests for which *unwanted* is true."""
        withdrawn = []
        with self._lock:
            for share in self._shares.values():
                taken = take_out(share.waiting, unwanted)
                if taken and len(share.stuck) >= share.most:
                    share.blocked = True
                withdrawn += taken
        return withdrawn


def take_out(queue: deque[Connection], unwanted: Callable[[Connection], bool]) -> list[Connection]:
    """Remove and return the entries of *queue* for which *unwanted* is true.

    It is called once for each, in order.
    """
    taken = [connection for connection in queue if unwanted(connection)]
    if taken:
        gone = set(taken)
        kept = [connection for connection in queue if connection not in gone]
        queue.clear()
        queue.extend(kept)
    return taken
