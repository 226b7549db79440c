"""The loop where there is no epoll: waitress's own, and its pool of service threads.

The thread that serves until it is told to stop runs the loop itself. Its cost grows with the connections; its behaviour is that of
:class:`~.leadership.Leadership`.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.task import ThreadedTaskDispatcher

from ..clock import Deadline
from .channel import TurnEnd
from .trigger import Trigger

if TYPE_CHECKING:
    from .admission import Admission
    from .channel import Channel


class PortableLoop:
    """See the module. *threads* is the most requests inside the app at a time, *max_streams* how many streams may come on top.

    *shared*: other processes accept from the same listeners. The system wakes all of them, so that those that are idle are quicker; each
    takes one connection in a turn.
    """

    def __init__(
        self,
        threads: int,
        max_streams: int,
        map: dict[int, Any],
        admission: Admission | None,
        *,
        shared: bool,
        use_poll: bool,
    ) -> None:
        self._shared = shared
        self._threads = threads
        self._max_streams = max_streams
        self._map = map
        self._use_poll = use_poll
        self._trigger = Trigger(map)
        self._pool = _Pool()
        self._lock = threading.Lock()
        self._admission = admission
        self._streams = 0
        self._stuck = 0
        self._stopping = False
        self._thread: int | None = None

    @property
    def leaves(self) -> bool:
        return self._shared

    def start(self) -> None:
        self._pool.set_thread_count(self._threads)

    def watch(self, entry: Any) -> None:
        """Nothing: the map is looked through in every turn."""

    forget = watch

    def attend(self, entry: Any) -> None:
        if threading.get_ident() != self._thread:
            self.wake()

    def submit(self, channel: Channel) -> None:
        if channel.requests[0].reply is not None:
            self.soon(
                channel.answer_here
            )  # not from here: it submits what follows, and that may be any number of such requests
        elif self._admission is None or self._admission.admit(channel):
            self._pool.add_task(_Run(self, channel))

    def give_way(self) -> None:
        """Nothing: the loop has a thread of its own."""

    def lend(self, channel: Channel) -> None:
        with self._lock:
            if channel.lent or channel.task is None or self._streams >= self._max_streams:
                return
            channel.lent = True
            self._streams += 1
            self._set_thread_count()

    def abandoned(self, channel: Channel) -> None:
        with self._lock:
            self._stuck += 1
            self._take_back(channel)
            self._set_thread_count()
        if self._admission is not None:
            self._admission.abandoned(channel)

    def run(self, channel: Channel) -> None:
        """Answer requests of *channel*, in a service thread, until another channel waits for a thread."""
        end = channel.answer()
        while end is TurnEnd.MORE and not (self._pool.queue or self._admission is not None or channel.lent):
            end = channel.answer()
        with self._lock:
            if end is TurnEnd.GIVEN_UP:
                self._stuck -= 1
                self._set_thread_count()
            elif self._take_back(channel):
                self._set_thread_count()
        self._release(channel)
        if end is TurnEnd.MORE:
            self.soon(lambda: self.submit(channel))  # behind those that wait, for a thread or for their endpoint
        elif end is TurnEnd.DONE:
            channel.finish_turn(in_loop=False)

    def _take_back(self, channel: Channel) -> bool:
        """The stream of *channel* is over, if it was lent a thread. Returns whether it was. Under ``_lock``."""
        lent = channel.lent
        channel.lent = False
        self._streams -= lent
        return lent

    def _release(self, channel: Channel) -> None:
        following = self._admission.release(channel) if self._admission is not None else None
        if following is not None:
            self._pool.add_task(_Run(self, following))

    def _set_thread_count(self) -> None:
        """Under ``_lock``."""
        if not self._stopping:
            self._pool.set_thread_count(self._threads + self._streams + self._stuck)

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        withdrawn = self._pool.withdraw(unwanted)
        for channel in withdrawn:
            self._release(channel)
        return withdrawn

    @property
    def queued(self) -> int:
        return len(self._pool.queue)

    @property
    def stuck(self) -> int:
        return self._stuck

    def soon(self, function: Callable[[], object]) -> None:
        self._trigger.pull_trigger(function)

    def turn(self, seconds: float) -> None:
        self._thread = threading.get_ident()
        wasyncore.loop(timeout=seconds, use_poll=self._use_poll, map=self._map, count=1)

    def wake(self) -> None:
        self._trigger.pull_trigger()

    def call(self, function: Callable[[], object]) -> None:
        function()

    def check(self) -> None:
        """Nothing."""

    def drop_queue(self) -> None:
        if self._admission is not None:
            self._admission.withdraw(lambda channel: True)
        self.withdraw(lambda channel: True)

    def stop(self, deadline: Deadline) -> bool:
        with self._lock:
            self._stopping = True
        ended = self._pool.stop(deadline)
        self._trigger.close()
        return ended

    def abandon(self) -> None:
        self._trigger.abandon()


class _Run:
    """A channel in the pool's queue."""

    def __init__(self, loop: PortableLoop, channel: Channel) -> None:
        self._loop = loop
        self.channel = channel
        channel.queue()

    def service(self) -> None:
        self._loop.run(self.channel)


class _Pool(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress is not annotated
    """waitress's pool of service threads."""

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        threading.Thread(
            # In an empty context: see Leadership.
            target=contextvars.Context().run,
            args=(target, thread_no),
            name=f"prodserve-{thread_no}",
            daemon=True,
        ).start()

    def add_task(self, task: _Run) -> None:
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        """Take those of which *unwanted* says so out of the queue."""
        with self.lock:
            unwanted_tasks = [task for task in self.queue if unwanted(task.channel)]
            for task in unwanted_tasks:
                self.queue.remove(task)
        return [task.channel for task in unwanted_tasks]

    def stop(self, deadline: Deadline) -> bool:
        """Let the threads end as soon as they are free. Returns whether all did before *deadline*."""
        self.set_thread_count(0)
        with self.lock:
            return bool(self.thread_exit_cv.wait_for(lambda: not self.threads, deadline.remaining()))
