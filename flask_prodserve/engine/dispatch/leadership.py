"""The event loop for epoll: service threads take turns at leading it (leader/followers).

One service thread, the *leader*, waits for events, reads, parses and runs requests itself, without
a hand-over or a wake-up. The thread that calls :meth:`Leadership.turn` runs the
:class:`~.steward.Steward`. If the leader stays in one request, the steward takes the lead away and
gives it to a follower, and the old leader finishes its request as a follower does. If requests of a
kind are known to keep a thread waiting, the leader passes the lead on before it runs one.

Invariants. None of them depends on the GIL:

1. One thread leads. The lead changes under ``_lock``: by the leader, outside of a request, or by
   the steward, while the leader is inside one (``_take_over``). If no thread can be started to
   lead, ``_leaderless`` is set until a thread has nothing else to do.
2. One atomic ``pop`` of the claim that the leader made for a request decides whether it still leads
   after that request: either it pops the claim, or the steward did. So no thread waits for events
   with a lead that has ended.
3. At THREADS busy threads the leader runs nothing and puts requests into the queue. See
   ``dispatcher``.
4. While the requests of a connection run, no thread reads from it, and only the leader closes or
   pauses it. See ``connection``.
5. A connection stays registered while its requests run; only an event that comes meanwhile pauses
   it. See ``poller``.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable

from ...clock import Deadline, monotonic
from ..connection.connection import Connection, TurnEnd
from ..connection.event_loop import Watched
from .admission import Admission, take_out
from .balancing import Balancer
from .dispatcher import Dispatcher, ServiceThread
from .poller import GONE, Poller
from .slow_kinds import SlowKinds
from .steward import PATIENCE, Claim, Steward

HANDSHAKE_TURN_SECONDS = 0.002
"""How long the leader goes on with TLS handshakes before others get their turn: each computes for
as long as some views run.
"""

CALL_SECONDS = 0.1
"""How long the steward watches the leader at a time while it waits for a call to end."""


class Leadership(Dispatcher):
    """The dispatcher for epoll.

    Kinds of requests that keep a thread waiting are remembered. *balancer*: other processes accept
    from the same listeners.
    """

    _leaders = 1

    def __init__(
        self,
        threads: int,
        max_streams: int,
        admission: Admission | None,
        balancer: Balancer | None,
    ) -> None:
        super().__init__(threads, max_streams, admission)
        self._balancer = balancer
        if balancer is not None:
            self._full_changed = self.update_accepting
        self._slow_kinds = SlowKinds()
        poller = self._poller = Poller(balancer)
        # Bound, and not wrapped in methods: the end of each request calls one of them.
        self.watch, self.update_interest, self.forget = poller.watch, poller.update_interest, poller.forget
        self._events: deque[tuple[int, int]] = deque()
        self._handshakes: dict[int, int] = {}
        self._arrived: deque[Connection] = deque()
        """Connections with a complete request that the leader has not begun."""
        self._leader: ServiceThread | None = None
        self._steward = Steward(self._take_over)

    # For the engine and the connections: see ``loop``.

    @property
    def defers_accepting(self) -> bool:
        return self._poller.defers_accepting

    def start(self) -> None:
        self.update_accepting()
        self.watch(self._trigger)
        with self._lock:
            self._start_thread(None)

    def update_accepting(self) -> None:
        """Decide again whether to accept connections. From the loop's thread."""
        if self._balancer is not None:
            self._balancer.check(busy=self._budget.full)
        self._poller.update_listeners()

    def submit(self, connection: Connection) -> None:
        self._arrived.append(connection)

    def give_way(self) -> None:
        # In this order: a thread makes its claims after it has become the leader.
        claim, leader = self._steward.claim, self._leader
        if leader is not None and leader.ident == threading.get_ident():
            self._take_over(claim, True)

    def _withdraw_arrived(self, unwanted: Callable[[Connection], bool]) -> list[Connection]:
        return take_out(self._arrived, unwanted)

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._arrived)

    def check(self) -> None:
        super().check()
        self.update_accepting()
        self._poller.rearm_listeners()

    def turn(self, seconds: float) -> None:
        self._steward.turn(seconds)

    def wake(self) -> None:
        self._steward.wake()

    def call(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def called() -> None:
            try:
                function()
            finally:
                done.set()
                self.wake()

        self._trigger.pull_trigger(called)
        while not done.is_set():
            self.turn(CALL_SECONDS)

    def stop(self, deadline: Deadline) -> bool:
        ended = super().stop(deadline)
        if ended:
            self._poller.close()
            self._steward.close()
        return ended

    def abandon(self) -> None:
        super().abandon()
        self._poller.close()
        self._steward.close()

    # The leader.

    def _lead(self, thread: ServiceThread) -> None:
        """Run the event loop until another thread has the lead."""
        if thread.clock is None:
            thread.clock = time.pthread_getcpuclockid(thread.ident)
        self._leader = thread
        self._steward.clock = thread.clock
        events, handshakes, arrived, entries = self._events, self._handshakes, self._arrived, self._poller.entries
        budget = 0
        while not self._stopping:
            if events:
                descriptor, flags = events.popleft()
                entry = entries.get(descriptor)
                if entry is None:
                    continue  # closed since
                if not isinstance(entry, Connection):
                    self._handle_other(entry)
                elif entry.transport.handshaking:
                    handshakes[descriptor] = flags  # once, though each poll sees it again
                elif self._handle(entry, flags):
                    arrived.append(entry)
            elif arrived and budget:
                budget -= 1
                if not self._begin(arrived.popleft()):
                    return
            else:
                if handshakes:
                    self._go_on_with_handshakes()
                events.extend(self._poller.poll(0 if arrived or handshakes else self._seconds_to_wait()))
                budget = len(events) + len(arrived)

    def _go_on_with_handshakes(self) -> None:
        enough = Deadline(HANDSHAKE_TURN_SECONDS)
        while self._handshakes and not enough.passed():
            descriptor = next(iter(self._handshakes))
            flags = self._handshakes.pop(descriptor)
            connection = self._poller.entries.get(descriptor)
            if isinstance(connection, Connection) and self._handle(connection, flags):
                self._arrived.append(connection)

    def _seconds_to_wait(self) -> float | None:
        """Decide whether to accept, if it is time to.

        Returns for how many seconds to wait for events, None for no limit.
        """
        if self._balancer is None:
            return None
        if self._balancer.remaining() == 0:
            self.update_accepting()
        return self._balancer.remaining()

    def _handle(self, connection: Connection, flags: int) -> bool:
        """Read, send or close. Returns whether a request is complete."""
        try:
            if connection.running:
                if flags & GONE:
                    connection.close()
                elif flags & select.EPOLLOUT:
                    connection.handle_write()
                else:
                    connection.pause()
            elif connection.writable():
                connection.handle_write()
            elif connection.read():
                return True
            else:
                with connection.output_lock:
                    if connection.connected:
                        self.update_interest(connection)
        except Exception:
            connection.handle_error()
        return False

    def _handle_other(self, entry: Watched) -> None:
        """Accept connections, or call the functions that other threads have left."""
        try:
            entry.handle_read()
        except Exception:
            entry.handle_error()

    def _begin(self, connection: Connection) -> bool:
        """Answer the request of *connection*, or put it into a queue.

        Returns whether this thread still leads.
        """
        request = connection.current
        assert request is not None
        if request.reply is not None:
            connection.answer_here()
            return True
        if self._admission is not None and not self._admission.admit(connection):
            return True
        kind = request.route.kind if self._slow_kinds else None
        if kind is not None and kind in self._slow_kinds:
            with self._lock:
                if self._queue.slow_must_wait():
                    self._queue.add(connection, slow=True)
                    return True
                handed_over = not self._slow_kinds.is_due(kind)
                if handed_over:
                    self._take_slot()
                    self._assign(None)
            if handed_over:
                self._run_queued(self._run(connection))
                return False
        if self._budget.full:
            with self._lock:
                if self._budget.full:
                    self._queue.add(connection)
                    return True
        claim: Claim = [request]
        began = self._steward.watch(claim)
        end = connection.answer()
        leads = True
        try:
            claim.pop()
        except IndexError:
            # Nothing runs in here: exceptions of the app would seem to be caused by this one.
            leads = False
        if not leads:
            self._run_queued(self._go_on(connection, end))
            return False
        ended = monotonic()
        if ended - began > PATIENCE:
            self._steward.suspect(ended)
        if kind is not None:
            self._slow_kinds.forget(kind)
        if self._admission is not None and (following := self._admission.release(connection)) is not None:
            self._arrived.append(following)
        if end is TurnEnd.MORE:
            self._arrived.append(connection)
        else:
            if not connection.close_when_flushed:
                self._queue.fast_at = ended
            connection.finish_turn(in_loop=True)
        return True

    def _take_over(self, claim: Claim, waits: bool) -> None:
        """Give the lead to another thread, unless the request of *claim* has ended.

        *waits*: the leader waits, and does not compute.
        """
        with self._lock:
            try:
                request = claim.pop()
            except IndexError:
                return
            self._take_slot()
            self._assign(None)
        if waits:
            self._slow_kinds.add(request.route.kind)
