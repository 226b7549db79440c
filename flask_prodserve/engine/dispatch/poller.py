"""What epoll watches: the interest of each connection and listener, kept by descriptor.

A connection stays registered while its requests run, so a common request needs no epoll_ctl().
"""

from __future__ import annotations

import select

from ..connection.event_loop import Watched
from .balancing import Balancer

GONE = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
"""The flags of a connection whose client has closed it or reset it."""


class Poller:
    """For the loop's thread, except :meth:`update_interest`.

    *balancer*: other processes accept from the same listeners.
    """

    def __init__(self, balancer: Balancer | None) -> None:
        self._balancer = balancer
        self._epoll = select.epoll()
        self._interests: dict[int, int] = {}
        self._listeners: list[Watched] = []
        self.entries: dict[int, Watched] = {}
        """What is watched, by descriptor."""
        self.poll = self._epoll.poll
        self.close = self._epoll.close

    @property
    def defers_accepting(self) -> bool:
        return self._balancer is not None and self._balancer.defers_accepting

    def watch(self, entry: Watched) -> None:
        interest = self._interest(entry)
        self._epoll.register(entry.descriptor, interest)
        self._interests[entry.descriptor] = interest
        self.entries[entry.descriptor] = entry
        if entry.accepting:
            self._listeners.append(entry)

    def update_interest(self, entry: Watched) -> None:
        interest = self._interest(entry)
        descriptor = entry.descriptor
        if interest == self._interests[descriptor]:
            return
        self._interests[descriptor] = interest
        if self._balancer is not None and entry.accepting:
            # What is registered as exclusive cannot be modified (epoll_ctl(2)).
            self._epoll.unregister(descriptor)
            self._epoll.register(descriptor, interest)
        else:
            self._epoll.modify(descriptor, interest)

    def update_listeners(self) -> None:
        """Update the interest of the listeners, also of one that pauses."""
        for listener in self._listeners:
            if listener.accepting:
                self.update_interest(listener)

    def rearm_listeners(self) -> None:
        """Look for connections that wait although another process was woken for them.

        That process may have died or been stopped before it accepted, and no other is told.
        """
        if self._balancer is None:
            return
        for listener in self._listeners:
            if interest := self._interests.get(listener.descriptor):
                self._epoll.unregister(listener.descriptor)
                self._epoll.register(listener.descriptor, interest)

    def forget(self, entry: Watched) -> None:
        # Closing would not unregister a descriptor that a child process has inherited.
        self._epoll.unregister(entry.descriptor)
        del self._interests[entry.descriptor], self.entries[entry.descriptor]

    def _interest(self, entry: Watched) -> int:
        interest = 0
        if entry.readable() and not (entry.accepting and self.defers_accepting):
            interest = select.EPOLLIN
            if self._balancer is not None and entry.accepting:
                interest |= select.EPOLLEXCLUSIVE  # a connection wakes one process, not all
        if entry.writable():
            interest |= select.EPOLLOUT
        return interest
