"""The threads that run requests, and what both event loops do with them.

Rules:

- At most THREADS threads are busy (:class:`~.thread_budget.ThreadBudget`). If there is no slot,
  requests wait in the :class:`~.request_queue.RequestQueue`. Both change under ``_lock``, and a
  thread that finishes a request looks into the queue as it gives up its slot. So a request that
  waits gets each slot that it may have, and none is forgotten.
- After each request a connection goes to the end of the queue if another one waits, so a client
  that pipelines gets one turn at a time, as any other does. If none waits, the thread goes on with
  the next request of the connection at once.
- Threads are started when they are needed. The thread that rested last goes first: its caches are
  warm.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from ...clock import Deadline
from ..connection.connection import Connection, TurnEnd
from ..connection.event_loop import Watched
from .admission import Admission
from .request_queue import RequestQueue
from .thread_budget import ThreadBudget
from .trigger import Trigger

logger = logging.getLogger("flask_prodserve.engine")


class ServiceThread:
    """A thread's own record.

    While it rests, it waits for *wake*; then *connection* is what to run, or None to lead.
    """

    __slots__ = ("clock", "connection", "ident", "wake")

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self.wake = threading.Lock()
        self.wake.acquire()
        self.connection: Connection | None = None
        self.clock: int | None = None
        """Its CPU clock, after it has led for the first time."""


class Dispatcher(ABC):
    """The base of both event loops. Made after any fork.

    *threads* is THREADS, *max_streams* is MAX_STREAMS. *map* has what the event loop watches. The
    *steward* is the thread that calls :meth:`turn`.
    """

    _leaders = 0
    """How many of the threads run the event loop instead of a request."""

    def __init__(self, threads: int, max_streams: int, admission: Admission | None) -> None:
        self._admission = admission
        self._budget = ThreadBudget(threads, max_streams)
        self._queue = RequestQueue(self._budget)
        self._trigger = Trigger()
        self._lock = threading.Lock()
        self._resting: list[ServiceThread] = []
        self._thread_count = 0
        self._ended = threading.Condition(self._lock)
        self._leaderless = False
        """Whether no thread could be started to lead: the next thread that is free does."""
        self._full = False
        """Whether the event loop knows that all slots are taken."""
        self._full_changed: Callable[[], object] | None = None
        """Called in the loop's thread when the last slot was taken, and when one is free again."""
        self._stopping = False

    # For connections and listeners: see ``event_loop``.

    watch: Callable[[Watched], None]
    update_interest: Callable[[Watched], None]
    forget: Callable[[Watched], None]

    @property
    @abstractmethod
    def defers_accepting(self) -> bool: ...

    @abstractmethod
    def submit(self, connection: Connection, /) -> None: ...

    @abstractmethod
    def give_way(self) -> None: ...

    def soon(self, function: Callable[[], object], /) -> None:
        self._trigger.pull_trigger(function)

    # For the engine, from the steward's thread.

    @abstractmethod
    def start(self) -> None:
        """Begin to serve the entries of the map.

        Raises RuntimeError if no thread can be started.
        """

    @abstractmethod
    def turn(self, seconds: float) -> None:
        """Do the steward's work for *seconds*, or until :meth:`wake`."""

    @abstractmethod
    def wake(self) -> None:
        """End the current turn, or the next one. From any thread, and from signal handlers."""

    @abstractmethod
    def call(self, function: Callable[[], object]) -> None:
        """Call *function* in the loop's thread, and wait for its end."""

    def stop(self, deadline: Deadline) -> bool:
        """Let the threads end as soon as they are free.

        Returns whether all did before *deadline*.
        """
        with self._lock:
            self._stopping = True
            while self._resting:
                self._resting.pop().wake.release()
        self._trigger.pull_trigger()
        with self._lock:
            ended = self._ended.wait_for(lambda: self._thread_count == 0, deadline.remaining())
        self._trigger.close()
        return ended

    def abandon(self) -> None:
        """Close the descriptors in a child process, which runs nothing. See ``net.forked``."""
        self._trigger.abandon()

    # For the engine and the guard, from the loop's thread.

    def check(self) -> None:
        """Do what has become possible with time. Every half second."""
        with self._lock:
            self._assign_next()  # the last slot may not be kept for fast requests any more

    def move_to_stream_budget(self, connection: Connection) -> None:
        """Count the stream of *connection* against MAX_STREAMS, not THREADS, if there is room."""
        with self._lock:
            # Another thread runs the request, and may just have finished it.
            if connection.task is not None and self._budget.move_to_streams(connection):
                self._use_free_slot()

    def is_stream(self, connection: Connection) -> bool:
        """Tell whether *connection* counts against MAX_STREAMS."""
        return self._budget.is_stream(connection)

    def abandoned(self, connection: Connection) -> None:
        """Count the thread of *connection* against THREADS no more.

        Right after :meth:`.Connection.abandon`.
        """
        if self._admission is not None:
            self._admission.abandoned(connection)
        with self._lock:
            self._budget.give_up(connection)
            self._use_free_slot()

    def withdraw(self, unwanted: Callable[[Connection], bool]) -> list[Connection]:
        """Remove and return the queued requests for which *unwanted* is true.

        It sees each, those first that have waited longest.
        """
        with self._lock:
            withdrawn = self._queue.withdraw(unwanted) + self._withdraw_arrived(unwanted)
            if self._admission is not None:
                for connection in withdrawn:
                    if (following := self._admission.release(connection)) is not None:
                        self._queue.add(following)
        return withdrawn

    def _withdraw_arrived(self, unwanted: Callable[[Connection], bool]) -> list[Connection]:
        """Remove and return unwanted requests that are not in the queue yet."""
        return []

    def drop_queue(self) -> None:
        """Forget the requests that no thread has begun."""
        if self._admission is not None:
            self._admission.withdraw(lambda connection: True)
        self.withdraw(lambda connection: True)

    @property
    def queued(self) -> int:
        """How many requests wait for a thread."""
        return len(self._queue)

    @property
    def stuck(self) -> int:
        """How many threads have been given up and have not come back."""
        return self._budget.stuck

    # Slots.

    def _take_slot(self) -> None:
        """Count one more busy thread. Under ``_lock``."""
        self._budget.busy += 1
        self._note_full()

    def _use_free_slot(self) -> None:
        """Run what waits, after a slot was given back. Under ``_lock``, from the loop's thread."""
        self._assign_next()
        self._note_full()

    def _note_full(self) -> None:
        """Let the event loop know if the last slot was taken or given back. Under ``_lock``."""
        if self._full_changed is not None and self._full is not self._budget.full:
            self._full = not self._full
            self._trigger.pull_trigger(self._full_changed)

    def _assign_next(self) -> None:
        """Have another thread run the next request, if there is a slot for it. Under ``_lock``.

        From the loop's thread only: a leader inside a request counts on the slot that it takes if
        it loses the lead.
        """
        connection = self._queue.next()
        if connection is not None:
            self._take_slot()
            self._assign(connection)

    def _assign(self, connection: Connection | None) -> None:
        """Have another thread run *connection*, or lead if that is None. Under ``_lock``."""
        if self._resting:
            thread = self._resting.pop()
            thread.connection = connection
            thread.wake.release()
            return
        try:
            self._start_thread(connection)
        except RuntimeError as error:
            logger.warning("cannot start another thread (%s); lower THREADS, or raise the limit (ulimit -u)", error)
            if connection is None:
                self._leaderless = True
            else:
                self._budget.busy -= 1
                self._queue.put_first(connection)

    # The threads.

    def _run(self, connection: Connection) -> bool:
        """Run requests of *connection* until another connection waits.

        Returns whether the calling thread still holds its slot.
        """
        return self._go_on(connection, connection.answer())

    def _go_on(self, connection: Connection, end: TurnEnd) -> bool:
        """Run further requests of *connection* after :meth:`.Connection.answer` has returned *end*.

        Returns as :meth:`_run`.
        """
        budget = self._budget
        while end is TurnEnd.MORE and not (self._queue or self._admission is not None or budget.is_stream(connection)):
            end = connection.answer()
        with self._lock:
            holds_slot = budget.end(connection, given_up=end is TurnEnd.GIVEN_UP)
            if self._admission is not None and (following := self._admission.release(connection)) is not None:
                self._queue.put_first(following)
        if end is TurnEnd.MORE:
            # Behind those that wait for a slot or for their endpoint.
            self.soon(lambda: self.submit(connection))
        elif end is TurnEnd.DONE:
            connection.finish_turn(in_loop=False)
        return holds_slot

    def _run_queued(self, holds_slot: bool) -> None:
        """Run queued requests, then give up the slot, if the calling thread *holds_slot*."""
        while True:
            with self._lock:
                # The slot passes to the next request: the leader, which looks without the lock,
                # must never see it free in between.
                connection = None if self._stopping else self._queue.next(held=holds_slot)
                if connection is None:
                    self._budget.busy -= holds_slot
                    self._note_full()
                    return
                if not holds_slot:
                    self._take_slot()
            holds_slot = self._run(connection)

    @abstractmethod
    def _lead(self, thread: ServiceThread) -> None:
        """Run the event loop until another thread has the lead, if service threads run it."""

    def _serve(self, connection: Connection | None) -> None:
        """Run requests until there are more threads than needed."""
        thread = ServiceThread()
        while True:
            if connection is None:
                self._lead(thread)
            else:
                holds_slot = self._run(connection)
                connection = None  # a thread refers to no connection that it is done with
                self._run_queued(holds_slot)
            with self._lock:
                if self._leaderless:
                    self._leaderless = False
                    continue
                # Streams that have ended, and stuck requests that have come back, leave more
                # threads than can be busy.
                if self._stopping or self._thread_count > self._budget.most_threads + self._leaders:
                    break
                self._resting.append(thread)
            thread.wake.acquire()
            if self._stopping:
                break
            connection, thread.connection = thread.connection, None
        with self._lock:
            self._thread_count -= 1
            self._ended.notify_all()

    def _start_thread(self, connection: Connection | None) -> None:
        """Start a thread that runs *connection*, or leads if that is None.

        Raises RuntimeError if it cannot be started. Under ``_lock``.
        """
        threading.Thread(
            # In an empty context: free-threaded Python lets threads inherit their starter's, and
            # an app context that was pushed there would be reused for every request.
            target=contextvars.Context().run,
            args=(self._serve, connection),
            name=f"prodserve-{self._thread_count}",
            daemon=True,  # a request that never ends must not keep the process alive
        ).start()
        self._thread_count += 1
