"""The receiving side of a connection: bytes become requests, one at a time.

``incoming`` and ``unread`` belong to the event loop's thread while the connection is not running,
and to the running thread while it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ...protocol.request_head import RequestHead
from ...wsgi.forwarded import MISLEADING_KEYS
from ..context import EngineContext
from ..exchange.peer import Peer
from ..exchange.reply import Reply
from ..exchange.request import RECEIVE_BYTES, Request
from ..exchange.responders import Responder

_SPEAKS_HTTPS = Reply(400, "This port speaks https: write https:// in place of http://.")


class Receiver:
    """*responders* answer some requests in the event loop. *refusal* answers the first request of a
    connection that has no room.
    """

    def __init__(self, context: EngineContext, responders: Sequence[Responder], refusal: Reply | None) -> None:
        self.refusal = refusal
        self.incoming: Request | None = None
        """The request that is being received."""
        self.unread = b""
        """What arrived behind a complete request."""
        self._context = context
        self._responders = responders

    @property
    def size(self) -> int:
        """How many bytes to receive next."""
        return RECEIVE_BYTES if self.incoming is None else self.incoming.receive_size

    @property
    def pending(self) -> bool:
        """Whether a part of a request has arrived."""
        return bool(self.unread) or (self.incoming is not None and self.incoming.started)

    def take_unread(self) -> bytes:
        data, self.unread = self.unread, b""
        return data

    def feed(self, data: bytes, peer: Peer) -> Request | None:
        """Parse *data* from *peer* up to the end of one request. Return that request if it is
        complete.

        It has a reply already if the server answers it itself.
        """
        while data:
            request = self.incoming
            if request is None:
                request = self.incoming = Request(self._context)
            elif not request.started:  # only blank lines so far
                request.began = self._context.clock()
            consumed = request.received(data)
            head = request.head
            if head is not None and not request.completed and (reply := self._early_reply(head)) is not None:
                request.refuse(reply)
            if request.completed:
                self.incoming = None
                self.unread = data[consumed:]
                if head is not None:
                    if request.reply is None:
                        request.reply = self._own_reply(head)
                    if not peer.is_believed:
                        for key in head.fields.keys() & MISLEADING_KEYS:
                            del head.fields[key]
                return request
            data = data[consumed:]
        return None

    def refuse_plain_http(self) -> Request:
        """Return a refused request for a client that speaks http to an https port."""
        self._context.limit_events.count(
            "plain HTTP", "answered clients that speak http to an https port with 400", logging.INFO
        )
        request = Request(self._context)
        request.refuse(_SPEAKS_HTTPS)
        return request

    def refuse_incoming(self, reply: Reply) -> Request:
        """Answer the request that is being received with *reply*."""
        request, self.incoming = self.incoming, None
        assert request is not None
        request.refuse(reply)
        return request

    def takes_continue(self) -> bool:
        """Tell, once, whether the client waits for ``100 Continue``."""
        if self.incoming is None or not self.incoming.expect_continue:
            return False
        self.incoming.expect_continue = False
        return True

    def discard(self) -> None:
        """Discard the request that is being received: it will not be completed."""
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None

    def _early_reply(self, head: RequestHead) -> Reply | None:
        """Return the server's own answer to a request whose body has not arrived."""
        if self.refusal is not None:
            return self.refusal
        for responder in self._responders:
            if (reply := responder.early_reply(head)) is not None:
                return reply
        return None

    def _own_reply(self, head: RequestHead) -> Reply | None:
        """Return the server's own answer to a complete request."""
        refusal = self.refusal
        for responder in self._responders:
            if (refusal is None or responder.ignores_refusal) and (reply := responder.reply(head)) is not None:
                return reply if refusal is None else reply._replace(closes=True)
        return refusal
