"""A client connection where plain HTTP is answered with the same URL in https, and nothing of the app can be reached."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .channel import Channel
from .reply import Reply

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead

_ORIGIN = re.compile(r"^https?://[^/?]*", re.IGNORECASE)
"""Of a target in absolute form (RFC 9112, section 3.2.2)."""


class RedirectChannel(Channel):
    """308 keeps method and body (RFC 9110, section 15.4.9). Each answer is the connection's last: the next request goes elsewhere."""

    asks_app = False

    def _early_reply(self, head: RequestHead) -> Reply | None:
        return super()._early_reply(head) or self._redirect(head)

    def _own_reply(self, head: RequestHead) -> Reply | None:
        return super()._own_reply(head) or self._redirect(head)

    def _redirect(self, head: RequestHead) -> Reply:
        if not head.host or not head.path:  # HTTP/1.0, or OPTIONS *
            return Reply(400, "This port speaks http, and all there is to see is at an https:// address.")
        # Both are of the head, and so of characters that a URL may have. The host is a name or address, with a port or without.
        host = head.host.partition("]")[0] + "]" if head.host.startswith("[") else head.host.partition(":")[0]
        port = "" if self.server.https_port == 443 else f":{self.server.https_port}"
        rest = _ORIGIN.sub("", head.target, count=1)
        slash = "" if rest.startswith("/") else "/"
        return Reply(308, "It is at an https:// address.", location=f"https://{host}{port}{slash}{rest}")
