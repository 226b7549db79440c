"""The loop where there is epoll: service threads take turns at leading it (leader/followers).

One service thread, the *leader*, waits for events, reads, parses, and runs requests itself: no hand-over, no wake-up. The *steward* (see
there), which is the thread that calls :meth:`Leadership.turn`, takes the lead away from a leader that stays in one request, and gives it to
a follower; the old leader finishes its request as a follower does. Requests that are known to keep a thread waiting are run by a leader
that has passed the lead on before.

Invariants, none of which leans on the GIL:

1. One thread leads. The lead changes under ``_lock``: by the leader, outside of a request, or by the steward, while the
   leader is inside one (``_take_over``). A lead that nobody could be found for is ``_vacant`` until a thread has nothing else to do.
2. Whether the leader still leads after a request is decided by one atomic ``pop`` of the claim that it made for it: it gets that back, or
   the steward has it. So nobody waits for events with a lead that has ended.
3. ``_places`` counts the threads that run requests without the lead, never more than THREADS. At THREADS the leader runs nothing, but has
   requests wait there. Both change under ``_lock``, and a thread that finishes looks for what waits as it is counted off. So as long as
   anything waits that has a place, that place is taken, and nothing is forgotten.
4. A channel that is running is read by nobody, and closed or paused by the leader only (see ``channel``).
5. Channels stay registered while they run; only an event that comes meanwhile pauses one. So a common request needs no epoll_ctl().
"""

from __future__ import annotations

import contextvars
import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore

from ..clock import Deadline, monotonic
from .admission import take_out
from .blocking_memory import BlockingMemory
from .channel import Channel, TurnEnd
from .places import Places
from .steward import PATIENCE, Claim, Steward
from .trigger import Trigger

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from .admission import Admission
    from .sharing import Sharing

logger = logging.getLogger("flask_prodserve.engine")

HANDSHAKE_SECONDS = 0.002
"""How long the leader goes on with TLS handshakes before others get their turn: each computes for as long as some views run."""

CALL_SECONDS = 0.1

_GONE = select.EPOLLHUP | select.EPOLLERR


class _Member:
    """A service thread. While it rests, it waits for *wake*, and finds in *channel* what it is woken for: None means to lead."""

    __slots__ = ("channel", "clock", "thread", "wake")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.wake = threading.Lock()
        self.wake.acquire()
        self.channel: Channel | None = None
        self.clock = time.pthread_getcpuclockid(self.thread)


class Leadership:
    """See the module. *threads* is the most requests inside the app at a time, *max_streams* how many streams may come on top.

    *kind* tells what kind of request a request is, for the memory of those that wait. *sharing* is there where other processes accept
    from the same listeners.
    """

    def __init__(
        self,
        threads: int,
        max_streams: int,
        map: dict[int, Any],
        kind: Callable[[RequestHead], str],
        admission: Admission | None,
        sharing: Sharing | None,
    ) -> None:
        self._places = Places(threads)
        self._admission = admission
        self._max_streams = max_streams
        self._map = map
        self._kind = kind
        self._sharing = sharing
        self._listeners: list[Any] = []
        self._full = False
        self._memory = BlockingMemory()
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._trigger = Trigger(map)
        self._events: deque[tuple[int, int]] = deque()
        self._handshakes: dict[int, int] = {}
        self._arrived: deque[Channel] = deque()
        self._resting: list[_Member] = []
        self._members = 0
        self._ended = threading.Condition(self._lock)
        self._streams = 0
        self._stuck = 0
        self._vacant = False
        self._stopping = False
        self._leader: _Member | None = None
        self._steward = Steward(self._take_over)

    # What the engine and the channels call; see ``loop``.

    @property
    def leaves(self) -> bool:
        return self._sharing is not None and self._sharing.leaves

    def start(self) -> None:
        self.look()
        for entry in self._map.values():
            self.watch(entry)
        self._listeners = [entry for entry in self._map.values() if entry.accepting]
        with self._lock:
            self._employ(None)

    def watch(self, entry: Any) -> None:
        entry.interest = self._interest(entry)
        self._epoll.register(entry._fileno, entry.interest)

    def attend(self, entry: Any) -> None:
        interest = self._interest(entry)
        if interest == entry.interest:
            return
        entry.interest = interest
        if self._sharing is not None and entry.accepting:
            # What is registered as exclusive cannot be modified (epoll_ctl(2)).
            self._epoll.unregister(entry._fileno)
            self._epoll.register(entry._fileno, interest)
        else:
            self._epoll.modify(entry._fileno, interest)

    def _interest(self, entry: Any) -> int:
        interest = 0
        if entry.readable() and not (entry.accepting and self.leaves):
            interest = select.EPOLLIN
            if self._sharing is not None and entry.accepting:
                interest |= select.EPOLLEXCLUSIVE  # a connection wakes one process, not all
        if entry.writable():
            interest |= select.EPOLLOUT
        return interest

    def look(self) -> None:
        """See whether to accept, after a change or when it is time to. From the loop's thread."""
        if self._sharing is not None:
            self._sharing.look(busy=self._places.taken)
        for entry in self._listeners:
            if entry.accepting:
                self.attend(entry)  # also where it has paused

    def forget(self, entry: Any) -> None:
        # Closing would not do it where a child process has inherited the descriptor.
        self._epoll.unregister(entry._fileno)

    def submit(self, channel: Channel) -> None:
        self._arrived.append(channel)

    def give_way(self) -> None:
        # In this order: a leader makes its claims after it has become that.
        claim, leader = self._steward.claim, self._leader
        if leader is not None and leader.thread == threading.get_ident():
            self._take_over(claim, True)

    def lend(self, channel: Channel) -> None:
        with self._lock:
            # The leader calls this, so that it is another thread that runs the channel; it may just have finished.
            if channel.lent or channel.task is None or self._streams >= self._max_streams:
                return
            channel.lent = True
            self._streams += 1
            self._places.busy -= 1
            self._fill()
            self._vacate()

    def abandoned(self, channel: Channel) -> None:
        if self._admission is not None:
            self._admission.abandoned(channel)
        with self._lock:
            # The leader calls this: it is another thread that is stuck.
            self._stuck += 1
            self._places.busy -= not self._take_back(channel)
            self._fill()
            self._vacate()

    def withdraw(self, unwanted: Callable[[Channel], bool]) -> list[Channel]:
        with self._lock:
            withdrawn = self._places.withdraw(unwanted) + take_out(self._arrived, unwanted)
            if self._admission is not None:
                for channel in withdrawn:
                    if (following := self._admission.release(channel)) is not None:
                        self._places.add(following)
        return withdrawn

    @property
    def queued(self) -> int:
        return len(self._places) + len(self._arrived)

    @property
    def stuck(self) -> int:
        return self._stuck

    def soon(self, function: Callable[[], object]) -> None:
        self._trigger.pull_trigger(function)

    def check(self) -> None:
        with self._lock:
            self._fill()  # the last place may not be kept for quick requests any more
        self.look()

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

    def drop_queue(self) -> None:
        if self._admission is not None:
            self._admission.withdraw(lambda channel: True)
        self.withdraw(lambda channel: True)

    def stop(self, deadline: Deadline) -> bool:
        with self._lock:
            self._stopping = True
            while self._resting:
                self._resting.pop().wake.release()
        self._trigger.pull_trigger()
        with self._lock:
            ended = self._ended.wait_for(lambda: self._members == 0, deadline.remaining())
        self._trigger.close()
        if ended:
            self._epoll.close()
            self._steward.close()
        return ended

    def abandon(self) -> None:
        self._trigger.abandon()
        self._epoll.close()
        self._steward.close()

    # The leader.

    def _lead(self, member: _Member) -> None:
        """Lead until the lead is lost."""
        self._leader = member
        self._steward.clock = member.clock
        events, handshakes, arrived, entries = self._events, self._handshakes, self._arrived, self._map
        budget = 0
        while not self._stopping:
            if events:
                descriptor, flags = events.popleft()
                entry = entries.get(descriptor)
                if entry is None:
                    continue  # closed since
                if not isinstance(entry, Channel):
                    wasyncore.read(entry)
                elif entry.handshakes:
                    handshakes[descriptor] = flags  # once, though each look sees it again
                elif self._handle(entry, flags):
                    arrived.append(entry)
            elif arrived and budget:
                budget -= 1
                if not self._begin(arrived.popleft()):
                    return
            else:
                if handshakes:
                    self._go_on_with_handshakes()
                events.extend(self._epoll.poll(0 if arrived or handshakes else self._seconds_to_look()))
                budget = len(events) + len(arrived)

    def _go_on_with_handshakes(self) -> None:
        enough = Deadline(HANDSHAKE_SECONDS)
        while self._handshakes and not enough.passed():
            descriptor = next(iter(self._handshakes))
            flags = self._handshakes.pop(descriptor)
            channel = self._map.get(descriptor)
            if isinstance(channel, Channel) and self._handle(channel, flags):
                self._arrived.append(channel)

    def _seconds_to_look(self) -> float | None:
        """Look whether to accept, if it is time to. Returns for how long to wait for events at most."""
        if self._sharing is None:
            return None
        if self._sharing.remaining() == 0:
            self.look()
        return self._sharing.remaining()

    def _handle(self, channel: Channel, flags: int) -> bool:
        """Read, send or close. Returns whether there is a request to be answered."""
        try:
            if channel.running:
                if flags & _GONE:
                    channel.handle_close()
                elif flags & select.EPOLLOUT:
                    channel.handle_write()
                else:
                    channel.pause()
            elif channel.writable():
                channel.handle_write()
            elif channel.read():
                return True
            else:
                with channel.output_lock:
                    if channel.connected:
                        self.attend(channel)
        except Exception:
            channel.handle_error()
        return False

    def _begin(self, channel: Channel) -> bool:
        """Answer the request of *channel*, or have it wait. Returns whether this thread still leads."""
        request = channel.requests[0]
        if request.reply is not None:
            channel.answer_here()
            return True
        if self._admission is not None and not self._admission.admit(channel):
            return True
        head = request.head
        kind = self._kind(head) if self._memory and head is not None else None
        if kind is not None and kind in self._memory:
            with self._lock:
                if self._places.taken_for_patient:
                    self._places.add(channel, patient=True)
                    return True
                handed_over = not self._memory.is_due(kind)
                if handed_over:
                    self._occupy()
                    self._appoint(None)
            if handed_over:
                self._finish(self._run(channel))
                return False
        if self._places.taken:
            with self._lock:
                if self._places.taken:
                    self._places.add(channel)
                    return True
        claim: Claim = [head]
        began = self._steward.watch(claim)
        end = channel.answer()
        leads = True
        try:
            claim.pop()
        except IndexError:
            leads = False  # and nothing is run in here: exceptions of the app would seem to come from this one
        if not leads:
            self._finish(self._go_on(channel, end))
            return False
        ended = monotonic()
        if ended - began > PATIENCE:
            self._steward.suspect(ended)
        if kind is not None:
            self._memory.forget(kind)
        if self._admission is not None and (following := self._admission.release(channel)) is not None:
            self._arrived.append(following)
        if end is TurnEnd.MORE:
            self._arrived.append(channel)
        else:
            if not channel.close_when_flushed:
                self._places.quick_at = ended
            channel.finish_turn(in_loop=True)
        return True

    # Changes of the lead.

    def _take_over(self, claim: Claim, waits: bool) -> None:
        """End the lead of the leader that has made *claim*, if it is still inside that request. *waits*: not because it computes."""
        with self._lock:
            try:
                head = claim.pop()
            except IndexError:
                return
            self._occupy()
            self._appoint(None)
        if waits and head is not None:
            self._memory.add(self._kind(head))

    def _occupy(self) -> None:
        """One more thread runs requests without the lead. Under ``_lock``."""
        self._places.busy += 1
        if self._sharing is not None and self._places.taken and not self._full:
            self._full = True
            self._trigger.pull_trigger(self.look)

    def _vacate(self) -> None:
        """A thread has become free, and stays that. Under ``_lock``."""
        if self._full and not self._places.taken:
            self._full = False
            self._trigger.pull_trigger(self.look)

    def _appoint(self, channel: Channel | None) -> None:
        """Have a follower run *channel*, or lead where that is None: the one that rested last, whose caches are warm, or a new thread.

        Under ``_lock``.
        """
        if self._resting:
            member = self._resting.pop()
            member.channel = channel
            member.wake.release()
            return
        try:
            self._employ(channel)
        except RuntimeError as error:
            logger.warning("cannot start another thread (%s); lower THREADS, or raise the limit (ulimit -u)", error)
            if channel is None:
                self._vacant = True
            else:
                self._places.busy -= 1
                self._places.put_first(channel)

    # Followers.

    def _run(self, channel: Channel) -> bool:
        """Answer the requests of *channel* without the lead, as many as :meth:`_go_on` does. Returns whether this thread still counts as
        busy.
        """
        return self._go_on(channel, channel.answer())

    def _go_on(self, channel: Channel, end: TurnEnd) -> bool:
        """Go on after a request of *channel*, of which ``answer`` returned *end*, until another channel waits for a place. Returns as
        :meth:`_run`.
        """
        while end is TurnEnd.MORE and not (self._places or self._admission is not None or channel.lent):
            end = channel.answer()
        with self._lock:
            if end is TurnEnd.GIVEN_UP:
                self._stuck -= 1
                counted = False
            else:
                counted = not self._take_back(channel)
            if self._admission is not None and (following := self._admission.release(channel)) is not None:
                self._places.put_first(following)
        if end is TurnEnd.MORE:
            # Behind those that wait for a place or for their endpoint.
            self.soon(lambda: self.submit(channel))
        elif end is TurnEnd.DONE:
            channel.finish_turn(in_loop=False)
        return counted

    def _take_back(self, channel: Channel) -> bool:
        """The stream of *channel* is over, if it was lent a place. Returns whether it was. Under ``_lock``."""
        lent = channel.lent
        channel.lent = False
        self._streams -= lent
        return lent

    def _finish(self, counted: bool) -> None:
        """Run what is ready, then be no longer busy."""
        while True:
            with self._lock:
                self._places.busy -= counted
                channel = None if self._stopping else self._places.next()
                if channel is None:
                    self._vacate()
                    return
                self._occupy()
            counted = self._run(channel)

    def _fill(self) -> None:
        """Have another thread run what is ready, if there is a place for it. Under ``_lock``, in the leader, which counts on its place."""
        channel = self._places.next()
        if channel is not None:
            self._occupy()
            self._appoint(channel)

    def _serve(self, channel: Channel | None) -> None:
        """A service thread's life."""
        member = _Member()
        while True:
            if channel is None:
                self._lead(member)
            else:
                self._finish(self._run(channel))
            channel = None
            with self._lock:
                if self._vacant:
                    self._vacant = False
                    continue
                # Streams that have ended, and requests that were given up, leave more threads than can be busy.
                if self._stopping or self._members > self._places.most + self._streams + self._stuck + 1:
                    break
                self._resting.append(member)
            member.wake.acquire()
            if self._stopping:
                break
            channel, member.channel = member.channel, None
        with self._lock:
            self._members -= 1
            self._ended.notify_all()

    def _employ(self, channel: Channel | None) -> None:
        threading.Thread(
            # In an empty context: free-threaded Python lets threads inherit their starter's, and an app context that was pushed there
            # would be reused for every request.
            target=contextvars.Context().run,
            args=(self._serve, channel),
            name=f"prodserve-{self._members}",
            daemon=True,  # a request that never ends must not keep the process alive
        ).start()
        self._members += 1
