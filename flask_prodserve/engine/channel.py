"""One client connection.

Two threads know a channel: the loop's, and while it is *running* the one that runs it. Invariants:

- ``request``, ``requests`` and ``_unread`` belong to the loop's thread while the channel is not running, and to the running thread while
  it is. The loop's thread makes it running; the running thread ends that, as the last thing it does.
- ``output`` and the life of the socket are changed under ``output_lock``. The socket is closed by the loop's thread only,
  and under that lock, so that a number which is another connection's by then is never written to or watched for.
- A request that is given up is taken from its thread under ``output_lock``: ``task`` is not that thread's any more, which it sees when the
  app returns, and then touches nothing but the request itself.
- One request is parsed at a time. What came behind it waits in ``_unread`` until it is answered and the system has taken all of the
  answer; nothing is read meanwhile. So nothing but the rest of one response is ever kept for a client, however many requests it sends
  without reading, and what the loop's thread answers by itself goes out without waiting.

A connection that is closed after a response is shut down for writing first and read until the client has closed (RFC 9112, section
9.6), or else unread bytes make the kernel reset the connection, and the client may lose the response.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..clock import Deadline
from ..net.unsent import unacknowledged
from ..protocol.deadlines import Phase, Waiting
from .adjustments import RECEIVE_BYTES, EngineAdjustments
from .outgoing import Outgoing
from .parser import RequestParser
from .progress import ClientProgress, Snapshot
from .reply import Reply, ReplyTask
from .response import report
from .task import Task

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from .server import Server

logger = logging.getLogger("flask_prodserve.engine")

LINGER_SECONDS = 5.0
"""How long a closed connection may go on sending what nobody will read (nginx: lingering_timeout)."""

LINGER_BYTES = 1 << 21
"""How much of that is read and thrown away after a head that was refused: what is under way until the client sees the response, on
100 Mbit/s and 150 ms (Tomcat: maxSwallowSize, 2 MB; Go: 256 KB). The rest stays with the client's system, which is not reset before
LINGER_SECONDS have passed. A body that follows a good head is read for all of that time: Apache's proxy passes a 413 on only after it
has sent the whole upload.
"""

DRAIN_IDLE_SECONDS = 1.0
"""While draining: how long a connection that has just been used may send its next request, to be told ``Connection: close``."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TurnEnd(Enum):
    """What :meth:`Channel.answer` leaves to its caller."""

    MORE = "more"
    """The next request is complete: answer it, now or in a later turn."""
    DONE = "done"
    """No further request is complete: call :meth:`Channel.finish_turn`."""
    GIVEN_UP = "given up"
    """The request was given up: the calling thread must not touch the connection again."""


class Channel(Outgoing):
    scheme = "http"
    handshakes = False
    """Whether the next bytes belong to a handshake. The loop's."""
    handshake_waits = False
    """Whether something of one, or of what TLS has to say later, waits until the client takes it. Nothing is read meanwhile. The loop's."""
    asks_app = True
    """Whether the app answers what comes here."""

    environ: Mapping[str, str] = MappingProxyType({})
    """What the app is told of the connection, besides its addresses."""
    request: RequestParser | None = None
    """What is being received."""
    task: Task | ReplyTask | None = None
    """What is being answered. Taken away from the running thread, under ``output_lock``, when the request is given up."""
    running = False
    turned_away: Reply | None = None
    """What is said to the first request of a connection for which there is no room."""
    counted_as: str | None = None
    """The client that it counts against, where MAX_CONNECTIONS_PER_CLIENT holds of it. The connections'."""
    queued_at: float | None = None
    """Since when the request has been waiting for a thread, or for others of its endpoint, if it is. By the server's clock."""
    close_when_flushed = False

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        addr: tuple[str, int | None],
        adj: EngineAdjustments,
        map: dict[int, Any],
        turned_away: Reply | None = None,
    ) -> None:
        self.requests: list[RequestParser] = []
        self._unread = b""
        self._client_closes = False
        self._head_was_read = False
        self._lingering: Deadline | None = None
        self._discarded = 0
        self._clock = server.clock
        self.progress = ClientProgress(self._clock(), adj.min_send_rate)
        self.answered = 0
        if turned_away is not None:
            self.turned_away = turned_away
        self.server_name, self.server_port = server.local_address(sock)
        super().__init__(sock, map, server, adj)
        self.addr = addr
        self.connected = True
        server.connections.add(self)
        server.loop.watch(self)

    # The loop's thread.

    def readable(self) -> bool:
        if self._lingering is not None:
            return self._discarded < LINGER_BYTES or self._head_was_read
        return not (
            self.running
            or self.output.size
            or self._unread
            or self.close_when_flushed
            or self.will_close
            or self.handshake_waits
        )

    def writable(self) -> bool:
        return bool(
            self.output.size
            or (self.close_when_flushed and not self.running)
            or self.will_close
            or self.handshake_waits
        )

    def handle_read(self) -> None:
        """For waitress's loop."""
        if self.read():
            self.server.loop.submit(self)

    def read(self) -> bool:
        """Take what the client has sent. Returns whether there is a request to be answered; then the channel is running."""
        if not self.readable():
            # Whoever calls this may have been told before the channel became running. Bytes that are read now would be taken for the
            # beginning of a request, with the true one in ``_unread``.
            if self._lingering is not None:  # not watched for reading: the client has gone
                self.handle_close()
            return False
        try:
            data = self.receive(RECEIVE_BYTES if self.request is None else self.request.receive_size)
        except OSError:  # reset by the client, or bytes that are no TLS
            data = b""
        if data is None:
            return False
        if not data:
            self.handle_close()
            return False
        if self._lingering is not None:
            self._discarded += len(data)
            return False
        self.progress.last_activity = self._clock()
        return self.received(data)

    def receive(self, size: int) -> bytes | None:
        """Bytes from the client, ``b""`` when it has closed, ``None`` when there is nothing now."""
        try:
            data: bytes = self.socket.recv(size)
        except BlockingIOError:
            return None
        return data

    def handle_write(self) -> None:
        """Send what is left of the output, and close if it was the last."""
        with self.output_lock:
            if not self.connected:
                return
            if self.output.size and not self.will_close:
                try:
                    self.output.send(self)
                except OSError:
                    self.handle_close()
                    return
                self.progress.last_activity = self.progress.idle_from = self._clock()
                self.make_room()
            if self.will_close:
                self.handle_close()
                return
            if self.close_when_flushed and not self.running and not self.output.size:
                self._end()
            if self.connected:
                self.server.loop.update_interest(self)
        self._take_unread()

    def _take_unread(self) -> None:
        """Begin with what came behind a request, if all of that one's answer is sent."""
        if self._unread and self.connected and not (self.running or self.output.size):
            data, self._unread = self._unread, b""
            if self.received(data):
                self.queue()
                self.server.loop.submit(self)
                return
            with self.output_lock:
                if self.connected:
                    self.server.loop.update_interest(self)

    def _end(self) -> None:
        """All responses are sent, and the last was the last."""
        try:
            if not self.shut_down_sending():
                return
            self.close_when_flushed = False
            if not self._client_closes or self.receive(RECEIVE_BYTES) is not None:
                self._lingering = Deadline(LINGER_SECONDS, self._clock)
                if self.request is not None:  # whose end nobody will read
                    self.request.close()
                    self.request = None
                return
        except OSError:
            pass
        # Nothing is unread, and the client has said that nothing more comes: there is no need to wait for it.
        self.handle_close()

    def shut_down_sending(self) -> bool:
        """Tell the client that nothing more comes. Returns False where that has to wait until the client takes something."""
        self.socket.shutdown(socket.SHUT_WR)
        return True

    def handle_close(self) -> None:
        with self.output_lock:
            if self.socket is None:
                return
            self.server.loop.forget(self)
            self.server.connections.remove(self)
            if isinstance(self.task, Task):
                self.server.connections.left.add(self)
            self.output.close()
            self.close()
            self.make_room()
            if self.request is not None and not self.running:
                self.request.close()

    def pause(self) -> None:
        """The client has sent something, or has shut down its sending side, which must wait until the channel is not running any more."""
        with self.output_lock:
            if self.connected and self.running:
                self.server.loop.update_interest(self)

    def waiting(self, now: float) -> Waiting | None:
        """Return what the client has to do, if it is its turn.

        Progress is measured from call to call, so call it about every half second.
        """
        running, unsent = self.running, self.output.size
        request = None if running else self.request
        snapshot = Snapshot(
            running,
            self._lingering is not None,
            self.answered,
            unsent,
            request.began if request is not None and request.started else None,
            None if request is None else request.body_progress,
            0 if request is None else request.body_received,
        )
        if not self.progress.must_take(snapshot):
            return self.progress.waiting(snapshot, now)
        try:
            left = unacknowledged(self.socket)
        except (OSError, ValueError):  # closed
            return None
        return self.progress.waiting(snapshot, now, taken=self.taken_by_system - left, left=left)

    @property
    def taken_by_system(self) -> int:
        """How many bytes of the output have been sent so far, or a little less: it is not locked."""
        return self.output.sent

    @property
    def kept(self) -> int:
        """Bytes that are kept until the client does its part: of a response, or of a body that is not complete."""
        request = self.request
        return self.output.kept + (0 if request is None or self.running else request.body_received)

    def speed(self, now: float) -> float | None:
        """Return the bytes a second at which the client lately took what is kept for it, or sent it.

        None if too little is known.
        """
        request = None if self.running else self.request
        return self.progress.speed(now, None if request is None else request.body_progress)

    def catch_up(self) -> None:
        """Do what there is to do with the socket: it may be the loop that is late, and not the client."""
        if self.progress.takes or self.handshake_waits:
            self.handle_write()
        elif self.read():
            self.server.loop.submit(self)

    def queue(self) -> None:
        """The request has to wait, for whatever."""
        if self.queued_at is None:
            self.queued_at = self._clock()

    def queued_for(self, now: float) -> float:
        """Seconds that the request has been waiting: for a thread or others of its endpoint, or since it came."""
        return now - (self.progress.last_activity if self.queued_at is None else self.queued_at)

    def give_up_waiting(self, phase: Phase, reply: Reply) -> None:
        """The client has not done its part of *phase* in time: close, or *reply* where it has begun a request."""
        if phase in (Phase.HEAD, Phase.BODY):
            self.refuse(reply)
        elif phase in (Phase.SENDING, Phase.FLUSHING):
            self.reset()
        else:
            with self.output_lock, contextlib.suppress(OSError, ValueError):  # gone, or in a handshake
                self.shut_down_sending()  # so that who sends something in this very moment sees an end, and no reset
            self.handle_close()

    def stop_lingering(self) -> None:
        """Close a connection that has been shut down for as long as its client may take to see that, if it has all of its response."""
        if self._lingering is not None and self._lingering.passed() and self.progress.acknowledged:
            self.handle_close()

    def refuse(self, reply: Reply) -> None:
        """Answer the request that is being received, or is in the queue and has been taken out of it, without the app."""
        if self.running:
            self.requests[0].reply = reply
        else:
            request, self.request = self.request, None
            assert request is not None
            request.refuse(reply)
            self.requests.append(request)
            self.running = True
        self.answer_here()

    def answer_here(self) -> None:
        """Answer a request that has a ``reply``, in the loop's thread."""
        if self.answer() is TurnEnd.MORE:
            self.server.loop.submit(self)
        else:
            self.finish_turn(in_loop=True)

    def forget_request(self) -> None:
        """The client has gone, and nobody will run the request."""
        for request in self.requests:
            request.close()
        self.requests.clear()
        self.running = False

    def abandon(self, task: Task, reply: Reply) -> bool:
        """Give up *task*, whose app does not come back: its thread has this channel no longer, and the client gets *reply*.

        Returns False, and does nothing, if the response has begun.
        """
        with self.output_lock:
            if self.task is not task or task.response.begun:
                return False
            task.response.abandoned = True
            self.task = None
            self.requests = []
            self._unread = b""
        seconds = self._clock() - task.began
        if self.connected:
            task.request.reply = reply
            ReplyTask(self, task.request, task.environ, seconds).service()
            self.close_when_flushed = True
            self.finish_turn(in_loop=True)
        else:
            report(self, task.request, task.response, task.environ, seconds)
        return True

    def idle_since(self) -> float | None:
        """Since when a connection that has been used is used for nothing; None while it is. The lower, the less will it be missed."""
        if not self.connected or self.turned_away is not None or self.silent:
            return None
        return self.progress.idle_since(
            self._clock(), answered=self.answered, lingering=self._lingering is not None, pending=self.pending()
        )

    @property
    def silent(self) -> bool:
        """Whether nothing has come from the client yet. A PROXY header comes from its proxy."""
        return self.request is None and not self.answered and not self.running

    def drain(self, now: float) -> None:
        """Close this connection if nothing is going on in it, or only a stream for a client that has gone. *now* is monotonic."""
        task = self.task
        if isinstance(task, Task) and task.response.begun:
            self.check_stream(task.response)
        elif self.pending() == 0 and now - self.progress.last_activity > DRAIN_IDLE_SECONDS:
            self.close_idle()

    def close_idle(self) -> bool:
        """Close, unless a request, or anything on a silent connection, has come in this very moment. Returns whether it is closed."""
        silent = self.silent
        if self.read():
            self.server.loop.submit(self)
        elif self.connected and not self.pending() and self.silent == silent:
            self.handle_close()
        with self.output_lock:
            if self.connected:
                self.server.loop.update_interest(self)
        return not self.connected

    def pending(self) -> int:
        """Requests that are being received, queued, running, or whose response the client has not taken yet."""
        if self.running or self.close_when_flushed:
            return 1
        request = self.request
        return int((request is not None and request.started) or self.output.size > 0 or bool(self._unread))

    # The thread that owns the requests.

    def received(self, data: bytes) -> bool:
        """Parse *data*, up to the end of one request. Returns whether it is complete, and the channel running therefore."""
        while data:
            request = self.request
            if request is None:
                request = self.request = RequestParser(self.adj)
            elif not request.started:  # by the blank lines that it has had
                request.began = self._clock()
            consumed = request.received(data)
            if request.head is not None and not request.completed:
                reply = self._early_reply(request.head)
                if reply is not None:
                    request.refuse(reply)
            if request.completed:
                self.request = None
                if request.reply is None:
                    assert request.head is not None
                    if self.turned_away is not None or not self.asks_app or request.head.path in self.server.health:
                        request.reply = self._own_reply(request.head)
                self._unread = data[consumed:]
                self.requests.append(request)
                self.running = True
                return True
            data = data[consumed:]
        if self.request is not None and self.request.expect_continue:
            self.request.expect_continue = False
            with self.output_lock:
                if self.connected:
                    try:
                        self._send_or_keep(_CONTINUE)
                    except OSError:
                        self.will_close = True
                    self.server.loop.update_interest(self)
        return False

    def _early_reply(self, head: RequestHead) -> Reply | None:
        """What is answered to a good request without its body, if anything is."""
        return self.turned_away

    def _own_reply(self, head: RequestHead) -> Reply | None:
        """What is answered to a good request without the app, if anything is."""
        ask = self.server.health.get(head.path)
        reply = ask() if ask is not None and head.method in ("GET", "HEAD") else None
        if self.turned_away is not None:
            return self.turned_away if reply is None else reply._replace(closes=True)
        return reply

    # The running thread.

    def answer(self) -> TurnEnd:
        """Answer one request."""
        request = self.requests[0]
        self.answered += 1
        self.queued_at = None
        self.progress.acknowledged = False
        task = self.task = Task(self, request) if request.reply is None else ReplyTask(self, request)
        if self.connected:
            try:
                task.service()
            except Exception:
                logger.exception("cannot answer a request")
                task.close_on_finish = True
        request.close()
        with self.output_lock:
            if not self.connected:
                self.server.connections.left.discard(self)
            if self.task is not task:
                return TurnEnd.GIVEN_UP
            self.task = None
        self.requests.clear()
        if task.close_on_finish or not self.connected:
            self._head_was_read = request.head is not None
            self._client_closes = request.head is not None and not request.head.keep_alive
            self.close_when_flushed = True
            self._unread = b""
            return TurnEnd.DONE
        if not self._unread or self.output.size:
            return TurnEnd.DONE
        data, self._unread = self._unread, b""
        if not self.received(data):
            return TurnEnd.DONE
        self.queue()  # since now, and not since it came with the others
        return TurnEnd.MORE

    def finish_turn(self, *, in_loop: bool) -> None:
        """Hand the connection back to the event loop. *in_loop*: the loop's thread calls this.

        If the last response was the connection's last, that thread closes at once; another one leaves that to it.
        """
        if in_loop and self.close_when_flushed:
            self.running = False
            self.handle_write()
            return
        with self.output_lock:
            self.progress.last_activity = self.progress.idle_from = self._clock()
            self.running = False
            if not self.connected:
                if self.request is not None:
                    self.request.close()  # closed since ``answer``, when it was this thread's
            elif self._unread and not self.output.size:  # taken since ``answer``
                self.server.loop.soon(self._take_unread)
            else:
                self.server.loop.update_interest(self)

    def closes_after_response(self) -> bool:
        """Whether the response that is about to be sent must be the last one on this connection."""
        return (self.server.draining and not self._unread) or self.answered >= self.adj.max_keepalive_requests
