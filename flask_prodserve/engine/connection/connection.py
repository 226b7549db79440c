"""One client connection, as a state machine.

Two threads use a connection: the event loop's, and while it is *running* the one that runs it.
Invariants:

- ``receiver`` and ``current`` belong to the event loop's thread while the connection is not
  running, and to the running thread while it is. The event loop's thread makes it running. The
  running thread ends that, as the last thing it does.
- ``output``, the loop's interest and the life of the transport change under ``output_lock``. Only
  the event loop's thread closes, and under that lock, so a descriptor that belongs to another
  connection by then is never written to or watched for.
- A request that is given up is taken from its thread under ``output_lock``: ``task`` is no longer
  that thread's. The thread sees this when the app returns, and then touches nothing but the request
  itself.
- One request is parsed at a time. What arrived behind it waits in ``receiver.unread`` until it is
  answered and the system has taken the whole answer; nothing is read meanwhile. So only the rest of
  one response is ever kept for a client, however many requests it sends without reading, and what
  the event loop's thread answers by itself goes out without waiting.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from ...protocol.proxy_v1v2 import MalformedHeaderError
from ..context import EngineContext
from ..exchange.peer import Peer
from ..exchange.reply import Reply
from ..exchange.reply_task import ReplyTask
from ..exchange.request import RECEIVE_BYTES, Request
from ..exchange.responders import Responder
from ..exchange.response import report
from ..exchange.task import Task
from .event_loop import EventLoop
from .lingering import Lingering
from .progress import ClientProgress
from .proxy_header import ProxyHeaderReader
from .receiver import Receiver
from .sender import Sender
from .transport import Transport

logger = logging.getLogger("flask_prodserve.engine")

DRAIN_IDLE_SECONDS = 1.0
"""While draining: how long a connection that has just been used may send its next request, to be
told ``Connection: close``.
"""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TurnEnd(Enum):
    """What :meth:`Connection.answer` leaves to its caller."""

    MORE = "more"
    """The next request is complete: answer it, now or in a later turn."""
    DONE = "done"
    """No further request is complete: call :meth:`Connection.finish_turn`."""
    GIVEN_UP = "given up"
    """The request was given up: the calling thread must not touch the connection again."""


class Table(Protocol):
    """What a connection needs of the table that it is in."""

    @property
    def orphaned(self) -> set[Connection]:
        """Closed connections whose request still runs."""

    def remove(self, connection: Connection) -> None:
        """*connection* is about to be closed."""

    def identify(self, connection: Connection) -> bool:
        """Count *connection* as its client's, who is known only now. Return whether it may stay."""


class Connection:
    """*responders* answer some requests in the event loop. *proxy_header* reads a PROXY header
    first. *refusal* answers the first request of a connection for which there is no room.
    """

    accepting = False

    def __init__(
        self,
        transport: Transport,
        peer: Peer,
        context: EngineContext,
        loop: EventLoop,
        table: Table,
        responders: Sequence[Responder] = (),
        proxy_header: ProxyHeaderReader | None = None,
        refusal: Reply | None = None,
    ) -> None:
        self.transport = transport
        self.descriptor = transport.descriptor
        self.peer = peer
        self.context = context
        self.current: Request | None = None
        """The request that waits for a thread, or is being answered."""
        self.task: Task | ReplyTask | None = None
        """What answers it. Set to None under ``output_lock`` when the request is given up."""
        self.running = False
        self.answered = 0
        """Requests whose answer has begun."""
        self.queued_at: float | None = None
        """Since when the request has been waiting for a thread or for others of its endpoint, by
        the engine's clock.
        """
        self.close_when_flushed = False
        """Whether the connection ends when its output is sent."""
        self.progress = ClientProgress(context.clock(), context.timeouts.min_send_rate)
        self.receiver = Receiver(context, responders, refusal)
        self.sender = Sender(transport, context, loop, self)
        self.output, self.output_lock = self.sender.output, self.sender.lock
        # Bound, and not wrapped in methods: each response calls one of them.
        self.write, self.write_file = self.sender.write, self.sender.write_file
        self._loop = loop
        self._table = table
        self._proxy_header = proxy_header
        self._client_closes = False
        self._head_was_read = False
        self.lingering: Lingering | None = None
        """Set after the last response is sent and sending is shut down."""

    # What a task needs; see ``exchange.response.Client``.

    @property
    def environ(self) -> Mapping[str, str]:
        return self.transport.environ

    @property
    def has_left(self) -> bool:
        return self.sender.is_broken or not self.sender.connected

    def closes_after_response(self) -> bool:
        return (
            self.context.drain.active and not self.receiver.unread
        ) or self.answered >= self.context.max_keepalive_requests

    def check_client_disconnected(self) -> bool:
        return self.sender.client_has_hung_up()

    # The event loop's thread: reading and sending.

    @property
    def connected(self) -> bool:
        return self.sender.connected

    def readable(self) -> bool:
        if self.lingering is not None:
            return self.lingering.reads
        return not (
            self.running
            or self.output.size
            or self.receiver.unread
            or self.close_when_flushed
            or self.sender.is_broken
            or self.transport.waits
        )

    def writable(self) -> bool:
        return bool(
            self.output.size
            or (self.close_when_flushed and not self.running)
            or self.sender.is_broken
            or self.transport.waits
        )

    def handle_read(self) -> None:
        """Read, and submit a request that is complete."""
        if self.read():
            self._loop.submit(self)

    def read(self) -> bool:
        """Take what the client has sent. Return whether a request is complete; then the connection
        is running.
        """
        complete = self._read()
        if not complete:
            self._close_if_client_ended()
        return complete

    def _read(self) -> bool:
        if not self.readable():
            # The event may be older than the turn that has begun since. Bytes that are read now
            # would be taken for the beginning of a request, and the true beginning is in
            # ``receiver.unread``.
            if self.lingering is not None:  # not watched for reading: the client has gone
                self.close()
            return False
        try:
            size = self.receiver.size
            data = self.transport.receive(size) if self._proxy_header is None else self._receive_header(size)
        except OSError:  # reset by the client, or bytes that are not TLS
            data = b""
        if data is None:
            return False
        if not data:
            self.close()
            return False
        if self.lingering is not None:
            self.lingering.discarded += len(data)
            return False
        self.progress.last_activity = self.context.clock()
        return self.received(data)

    def _receive_header(self, size: int) -> bytes | None:
        """Read the PROXY header, then receive what is behind it. Return what the transport does."""
        assert self._proxy_header is not None
        try:
            header = self._proxy_header.read()
        except EOFError:
            return b""
        except MalformedHeaderError as error:
            self.context.limit_events.count(
                "PROXY_PROTOCOL",
                "closed connections from TRUSTED_PROXIES that did not begin with a valid PROXY header; "
                f"the one from {self.peer.address or 'a Unix socket'}: {error.reason}",
            )
            return b""
        if header is None:
            return None
        self.peer = self._proxy_header.peer(header, self.peer)
        self._proxy_header = None
        if header.source is not None and not self.peer.is_believed and not self._table.identify(self):
            return b""
        return self.transport.receive(size)

    def _close_if_client_ended(self) -> None:
        if self.transport.client_ended and self.sender.connected and self.readable():
            self.close()

    def handle_write(self) -> None:
        """Send what is left of the output, and close if it was the last."""
        with self.output_lock:
            if not self.sender.connected:
                return
            try:
                if self.transport.waits:
                    self.transport.flush()
                if self.output.size and not self.sender.is_broken:
                    self.output.send(self.transport)
                    self.progress.last_activity = self.progress.idle_from = self.context.clock()
                    self.sender.make_room()
            except OSError:
                self.close()
                return
            if self.sender.is_broken:
                self.close()
                return
            if self.close_when_flushed and not self.running and not self.output.size:
                self._end()
            if self.sender.connected:
                self._loop.update_interest(self)
        self._take_unread()

    def _take_unread(self) -> None:
        """Begin with what arrived behind a request, if the whole answer to that is sent."""
        if not self.receiver.unread:
            return
        if self.sender.connected and not (self.running or self.output.size):
            if self.received(self.receiver.take_unread()):
                self.queue()
                self._loop.submit(self)
            else:
                with self.output_lock:
                    if self.sender.connected:
                        self._loop.update_interest(self)
        self._close_if_client_ended()

    def _end(self) -> None:
        """Shut down sending: all responses are sent, and the last one was the connection's last."""
        try:
            if not self.transport.shut_down_sending():
                return
            self.close_when_flushed = False
            if not self._client_closes or self.transport.receive(RECEIVE_BYTES) is not None:
                self.lingering = Lingering(self.context.clock, is_bounded=not self._head_was_read)
                self.receiver.discard()
                return
        except OSError:
            pass
        # Nothing is unread, and the client has said that it sends nothing more. There is no need to
        # wait for its end.
        self.close()

    def close(self) -> None:
        with self.output_lock:
            if not self.sender.connected:
                return
            self._loop.forget(self)
            self._table.remove(self)
            if isinstance(self.task, Task):
                self._table.orphaned.add(self)
            self.sender.close()
            if not self.running:
                self.receiver.discard()

    def end(self) -> None:
        """Close with an end of file first: a client that sends something at this moment sees no
        reset.
        """
        with self.output_lock, contextlib.suppress(OSError, ValueError):  # the client has gone, or is in a handshake
            self.transport.shut_down_sending()
        self.close()

    def reset(self) -> None:
        """Close at once, and have the system discard what the client has not taken."""
        with self.output_lock:
            if self.sender.connected:
                self.transport.reset_at_close()
                self.close()

    def pause(self) -> None:
        """Stop watching a connection that is running. The client has sent something or has shut
        down sending, which has to wait.
        """
        with self.output_lock:
            if self.sender.connected and self.running:
                self._loop.update_interest(self)

    def handle_error(self) -> None:
        """Log the exception that is being handled, and close."""
        logger.exception("closed a connection because of an error of the server")
        self.close()

    # The event loop's thread: requests.

    def queue(self) -> None:
        """Note that the request has to wait."""
        if self.queued_at is None:
            self.queued_at = self.context.clock()

    def stop_lingering(self) -> None:
        """Close a connection that was shut down LINGER_SECONDS ago, if its client has all of its
        response.
        """
        if self.lingering is not None and self.lingering.is_over and self.progress.acknowledged:
            self.close()

    def refuse(self, reply: Reply) -> None:
        """Answer, without the app, the request that is being received, or that waited for a thread
        and has left that queue.
        """
        if self.running:
            assert self.current is not None
            self.current.reply = reply
        else:
            self.current = self.receiver.refuse_incoming(reply)
            self.running = True
        self.answer_here()

    def answer_here(self) -> None:
        """Answer a request that has a ``reply``."""
        if self.answer() is TurnEnd.MORE:
            self._loop.submit(self)
        else:
            self.finish_turn(in_loop=True)

    def forget_request(self) -> None:
        """Discard the request: the client has gone, and no thread will run it."""
        if self.current is not None:
            self.current.close()
            self.current = None
        self.running = False

    def abandon(self, task: Task, reply: Reply) -> bool:
        """Take the request from the thread that runs *task*, since the app does not return, and
        send *reply*.

        Return False, and do nothing, if the response has begun.
        """
        with self.output_lock:
            if self.task is not task or task.response.begun:
                return False
            task.response.abandoned = True
            self.task = None
            self.current = None
            self.receiver.unread = b""
        seconds = self.context.clock() - task.began
        if self.sender.connected:
            task.request.reply = reply
            ReplyTask(self, task.request, task.environ, seconds).service()
            self.close_when_flushed = True
            self.finish_turn(in_loop=True)
        else:
            report(self, task.request, task.response, task.environ, seconds)
        return True

    # The event loop's thread: making room, and draining.

    def turn_away(self, refusal: Reply) -> None:
        """Answer the first request with *refusal*: there is no room for this connection."""
        self.receiver.refusal = refusal

    @property
    def is_turned_away(self) -> bool:
        return self.receiver.refusal is not None

    def idle_since(self) -> float | None:
        """Return since when a connection that has been used is idle, None while it is in use. The
        lower, the less it is missed.
        """
        if not self.sender.connected or self.is_turned_away or self.silent:
            return None
        return self.progress.idle_since(
            self.context.clock(),
            answered=self.answered,
            lingering=self.lingering is not None,
            pending=self.pending(),
        )

    @property
    def silent(self) -> bool:
        """Whether the client has sent nothing yet. A PROXY header comes from its proxy."""
        return (
            self.receiver.incoming is None
            and not self.answered
            and not self.running
            and not self.transport.has_received
        )

    def drain(self, now: float) -> None:
        """Close if nothing happens on this connection, or only a stream for a client that has gone.
        *now* is monotonic.
        """
        task = self.task
        if isinstance(task, Task) and task.response.begun:
            self.sender.probe(task.response)
        elif self.pending() == 0 and now - self.progress.last_activity > DRAIN_IDLE_SECONDS:
            self.close_idle()

    def close_idle(self) -> bool:
        """Close, unless a request, or anything on a silent connection, arrives at this moment.
        Return whether it is closed.
        """
        silent = self.silent
        if self.read():
            self._loop.submit(self)
        elif self.sender.connected and not self.pending() and self.silent == silent:
            self.close()
        with self.output_lock:
            if self.sender.connected:
                self._loop.update_interest(self)
        return not self.sender.connected

    def pending(self) -> int:
        """Count the requests that are received, queued, or running, or whose response the client
        has not taken: 0 or 1.
        """
        if self.running or self.close_when_flushed:
            return 1
        return int(self.receiver.pending or self.output.size > 0)

    # The thread that owns the requests.

    def received(self, data: bytes) -> bool:
        """Parse *data* up to the end of one request. Return whether that is complete; then the
        connection is running.
        """
        receiver = self.receiver
        if self.transport.is_plain_http:
            request: Request | None = receiver.refuse_plain_http()
        else:
            request = receiver.feed(data, self.peer)
        if request is not None:
            self.current = request
            self.running = True
            return True
        if receiver.takes_continue():
            with self.output_lock:
                if self.sender.connected:
                    try:
                        self.sender.send_or_keep(_CONTINUE)
                    except OSError:
                        self.sender.break_off()
                    else:
                        self._loop.update_interest(self)
        return False

    # The running thread.

    def answer(self) -> TurnEnd:
        """Answer one request."""
        request = self.current
        assert request is not None
        self.answered += 1
        self.queued_at = None
        self.progress.acknowledged = False
        task = self.task = Task(self, request) if request.reply is None else ReplyTask(self, request)
        if self.sender.connected:
            try:
                task.service()
            except Exception:
                logger.exception("cannot answer a request")
                task.close_on_finish = True
        request.close()
        with self.output_lock:
            if not self.sender.connected:
                self._table.orphaned.discard(self)
            if self.task is not task:
                return TurnEnd.GIVEN_UP
            self.task = None
        self.current = None
        if task.close_on_finish or not self.sender.connected:
            self._head_was_read = request.head is not None
            self._client_closes = request.head is not None and not request.head.keep_alive
            self.close_when_flushed = True
            self.receiver.unread = b""
            return TurnEnd.DONE
        if not self.receiver.unread or self.output.size:
            return TurnEnd.DONE
        if not self.received(self.receiver.take_unread()):
            return TurnEnd.DONE
        self.queue()  # the wait begins now, and not when it arrived with the others
        return TurnEnd.MORE

    def finish_turn(self, *, in_loop: bool) -> None:
        """Hand the connection back to the event loop. *in_loop*: the loop's thread calls this.

        If the last response was the connection's last, that thread closes at once; another one
        leaves that to it.
        """
        if self.transport.client_ended and not self.receiver.unread:
            self.close_when_flushed = True
        if in_loop and self.close_when_flushed:
            self.running = False
            self.handle_write()
            return
        with self.output_lock:
            self.progress.last_activity = self.progress.idle_from = self.context.clock()
            self.running = False
            if not self.sender.connected:
                self.receiver.discard()  # closed since ``answer``, when it was this thread's
            elif self.receiver.unread and not self.output.size:  # taken since ``answer``
                self._loop.soon(self._take_unread)
            else:
                self._loop.update_interest(self)
