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
from waitress.trigger import trigger

from ..clock import Deadline

if TYPE_CHECKING:
    from .channel import Channel


class PortableLoop:
    """See the module. *threads* is the most requests inside the app at a time, *max_streams* how many streams may come on top."""

    def __init__(self, threads: int, max_streams: int, map: dict[int, Any], *, use_poll: bool) -> None:
        self._threads = threads
        self._max_streams = max_streams
        self._map = map
        self._use_poll = use_poll
        self._trigger = trigger(map)
        self._pool = _Pool()
        self._lock = threading.Lock()
        self._streams = 0
        self._trigger_lock = threading.RLock()  # a signal handler may want it while its thread has it
        self._awake = True
        self._thread: int | None = None

    def start(self) -> None:
        self._pool.set_thread_count(self._threads)

    def watch(self, entry: Any) -> None:
        """Nothing: the map is looked through in every turn."""

    forget = watch

    def attend(self, entry: Any) -> None:
        if threading.get_ident() != self._thread:
            self.wake()

    def submit(self, channel: Channel) -> None:
        self._pool.add_task(_Run(self, channel))

    def lend(self, channel: Channel) -> None:
        with self._lock:
            if channel.lent or channel.task is None or self._streams >= self._max_streams:
                return
            channel.lent = True
            self._streams += 1
            self._pool.set_thread_count(self._threads + self._streams)

    def run(self, channel: Channel) -> None:
        """Answer all requests of *channel*, in a service thread."""
        while channel.answer():
            pass
        with self._lock:
            if channel.lent:
                channel.lent = False
                self._streams -= 1
                self._pool.set_thread_count(self._threads + self._streams)
        channel.settle()

    def turn(self, seconds: float) -> None:
        self._thread = threading.get_ident()
        wasyncore.loop(timeout=seconds, use_poll=self._use_poll, map=self._map, count=1)

    def wake(self) -> None:
        with self._trigger_lock:
            if self._awake:
                self._trigger.pull_trigger()

    def call(self, function: Callable[[], object]) -> None:
        function()

    def check(self) -> None:
        """Nothing."""

    def drop_queue(self) -> None:
        self._pool.drop_queue()

    def stop(self, deadline: Deadline) -> bool:
        if not self._pool.stop(deadline):
            return False
        # Only now: a service thread that still runs may write to the pipe, whose number could be another file's by then.
        with self._trigger_lock:
            self._awake = False
            self._trigger.close()
        return True


class _Run:
    """A channel in the pool's queue."""

    def __init__(self, loop: PortableLoop, channel: Channel) -> None:
        self._loop = loop
        self._channel = channel

    def service(self) -> None:
        self._loop.run(self._channel)


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

    def drop_queue(self) -> None:
        """Forget the requests that no thread has begun."""
        with self.lock:
            self.queue.clear()

    def stop(self, deadline: Deadline) -> bool:
        """Let the threads end as soon as they are free. Returns whether all did before *deadline*."""
        self.set_thread_count(0)
        with self.lock:
            return bool(self.thread_exit_cv.wait_for(lambda: not self.threads, deadline.remaining()))
