"""Sends a reply of the server's own."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from ..waitress_parts import ClientDisconnected
from .reply import Reply
from .request import Request
from .response import Client, Response, report


class ReplyTask:
    """Sends the ``reply`` of *request*. Quick, so the event loop's thread may do it.

    *environ* and *app_seconds* are known if the app has seen the request.
    """

    close_on_finish = True

    def __init__(
        self,
        client: Client,
        request: Request,
        environ: Mapping[str, Any] = MappingProxyType({}),
        app_seconds: float = 0.0,
    ) -> None:
        assert request.reply is not None
        self._client = client
        self._request = request
        self._reply = request.reply
        self._environ = environ or {"REMOTE_ADDR": client.peer.address}
        self._app_seconds = app_seconds

    def service(self) -> None:
        head = self._request.head
        response = Response(
            self._client,
            head.method if head else "GET",
            head.version if head else "1.1",
            keep_alive=not self._reply.closes and head is not None and head.keep_alive,
        )
        response.waits = False  # this thread is the one that makes room
        try:
            send_reply(response, self._reply)
            self.close_on_finish = not response.keeps_alive
        except ClientDisconnected:
            pass
        finally:
            report(self._client, self._request, response, self._environ, self._app_seconds)


def send_reply(response: Response, reply: Reply) -> None:
    """Send *reply* as the whole *response*. Raises ClientDisconnected."""
    phrase = HTTPStatus(reply.status).phrase
    body = f"{phrase}\n\n{reply.text}\n".encode("latin-1")
    fields = [("Content-Type", "text/plain; charset=utf-8")]
    if reply.retry_after is not None:
        fields.append(("Retry-After", str(reply.retry_after)))
    if reply.location is not None:
        fields.append(("Location", reply.location))
    response.start(f"{reply.status} {phrase}", fields, len(body))
    response.send(body)
