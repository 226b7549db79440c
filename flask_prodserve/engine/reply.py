"""What the server answers by itself, in place of the app: refusals, and what load balancers ask."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from waitress.channel import ClientDisconnected

from .response import Response, report

if TYPE_CHECKING:
    from .channel import Channel
    from .parser import RequestParser


RETRY_AFTER_SECONDS = 5
"""What a client is told that comes at a bad time."""


class Reply(NamedTuple):
    """*text* is for people, and has nothing in it that a client has sent. *closes*: the connection ends with it."""

    status: int
    text: str
    closes: bool = True
    retry_after: int | None = None
    """Seconds after which it is worth to try again."""
    location: str | None = None
    """The URL at which to try again."""


SPOOL_FULL = Reply(503, "The server keeps too much for other clients.", retry_after=RETRY_AFTER_SECONDS)


class ReplyTask:
    """Sends the ``reply`` of *request*. Quick, so that the loop's thread may do it."""

    def __init__(
        self,
        channel: Channel,
        request: RequestParser,
        environ: Mapping[str, Any] = MappingProxyType({}),
        app_seconds: float = 0.0,
    ) -> None:
        """*environ* and *app_seconds* are what is known of a request that the app has seen."""
        assert request.reply is not None
        self._channel = channel
        self._request = request
        self._reply = request.reply
        self._environ = environ or {"REMOTE_ADDR": channel.addr[0]}
        self._app_seconds = app_seconds
        self.close_on_finish = True

    def service(self) -> None:
        head = self._request.head
        response = Response(
            self._channel,
            head.method if head else "GET",
            head.version if head else "1.1",
            keep_alive=not self._reply.closes and head is not None and head.keep_alive,
        )
        response.waits = False  # it is the loop's thread that makes room
        try:
            send_reply(response, self._reply)
            self.close_on_finish = not response.keeps_alive
        except ClientDisconnected:
            pass
        finally:
            report(self._channel, self._request, response, self._environ, self._app_seconds)


def send_reply(response: Response, reply: Reply) -> None:
    """Raises ClientDisconnected."""
    phrase = HTTPStatus(reply.status).phrase
    body = f"{phrase}\n\n{reply.text}\n".encode("latin-1")
    fields = [("Content-Type", "text/plain; charset=utf-8")]
    if reply.retry_after is not None:
        fields.append(("Retry-After", str(reply.retry_after)))
    if reply.location is not None:
        fields.append(("Location", reply.location))
    response.start(f"{reply.status} {phrase}", fields, len(body))
    response.send(body)
