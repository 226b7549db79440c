"""What answers a request in the event loop, without the app. Each responder answers some requests;
the first answer counts.

In order: health checks, the refusal of a connection for which there is no room, and a redirect to
https if the listener redirects everything else. A request that none of them answers is run by a
service thread: a static file (see ``task``), then the app.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from ...protocol.request_head import RequestHead
from .reply import Reply

_ORIGIN = re.compile(r"^https?://[^/?]*", re.IGNORECASE)
"""The origin of a target in absolute form (RFC 9112, section 3.2.2)."""


class Responder(Protocol):
    ignores_refusal: bool
    """Whether it answers a complete request although there is no room for the connection."""

    def early_reply(self, head: RequestHead) -> Reply | None:
        """Answer a request whose body has not arrived. None leaves it to others."""

    def reply(self, head: RequestHead) -> Reply | None:
        """Answer a complete request. None leaves it to others."""


class HealthChecks:
    """Answers GET and HEAD for the paths in *checks*."""

    ignores_refusal = True

    def __init__(self, checks: Mapping[str, Callable[[], Reply]]) -> None:
        self._checks = checks

    def early_reply(self, head: RequestHead) -> Reply | None:
        return None

    def reply(self, head: RequestHead) -> Reply | None:
        check = self._checks.get(head.path)
        return check() if check is not None and head.method in ("GET", "HEAD") else None


class HTTPSRedirect:
    """Redirects every request to the same URL in https at *port*.

    308 keeps method and body (RFC 9110, section 15.4.9). Each reply closes the connection: the next
    request goes elsewhere.
    """

    ignores_refusal = False

    def __init__(self, port: int) -> None:
        self._port = port

    def early_reply(self, head: RequestHead) -> Reply | None:
        return self.reply(head)

    def reply(self, head: RequestHead) -> Reply:
        if not head.host or not head.path:  # HTTP/1.0, or OPTIONS *
            return Reply(400, "This port speaks http, and all there is to see is at an https:// address.")
        # Host and target come from a strict head, so they hold only characters that a URL may have.
        # The host may have a port.
        host = head.host.partition("]")[0] + "]" if head.host.startswith("[") else head.host.partition(":")[0]
        port = "" if self._port == 443 else f":{self._port}"
        rest = _ORIGIN.sub("", head.target, count=1)
        slash = "" if rest.startswith("/") else "/"
        return Reply(308, "It is at an https:// address.", location=f"https://{host}{port}{slash}{rest}")
