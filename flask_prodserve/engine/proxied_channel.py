"""A connection that a trusted proxy announces with a PROXY header, before TLS and before the first request.

Lives here: what becomes of a channel when its header has come. Reading the header is ``protocol.proxy_v1v2``'s business, whether a peer has
to send one the server's. Rules:

- Nothing behind the header is taken from the system, but left to the class that reads there next. What has come of the header is taken
  at once, though, or the loop, which is told of what can be read, would come round for the same bytes again and again.
- A header is no progress: HEADER_TIMEOUT runs from the moment in which the connection was accepted.
- The client that it names takes the proxy's place: it counts against MAX_CONNECTIONS_PER_CLIENT, and its word in X-Forwarded-* is what
  any peer's is: taken if it is one more trusted proxy by its address, and else removed. That TRUSTED_PROXIES has ``*`` or ``unix`` says
  something of who connects here, and nothing of who is named.
- Where the proxy says that the client speaks TLS with it, the scheme is https.
- A client that the proxy does not name is not trusted, whereas the proxy is where it speaks for itself (LOCAL).
"""

from __future__ import annotations

import socket

from ..protocol.proxy_v1v2 import MAX_HEADER, MalformedHeaderError, ProxyHeader, read_header
from ..wsgi.forwarded import MISLEADING_KEYS
from .channel import Channel


class ProxiedChannel(Channel):
    _held: bytes | None = b""
    """What has come of the header; None once it is whole."""
    _is_believed = True
    """Whether the sender of the requests may say in their fields who the client is."""

    def receive(self, size: int) -> bytes | None:
        if self._held is None:
            return super().receive(size)
        try:
            seen = self.socket.recv(MAX_HEADER, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        if not seen:
            return b""  # who only wants to know whether a server is there, as some health checks do
        try:
            header = read_header(self._held + seen)
        except MalformedHeaderError as error:
            self.adj.cuts.count(
                "PROXY_PROTOCOL",
                "connections from TRUSTED_PROXIES are closed that do not begin with a PROXY header: "
                f"that of {self.addr[0] or 'a Unix socket'} is refused, since {error.reason}",
            )
            return b""
        self._held += self.socket.recv(len(seen) if header is None else header.length - len(self._held))
        if header is None:
            return None
        self._held = None
        return super().receive(size) if self._announced(header) else b""

    def _announced(self, header: ProxyHeader) -> bool:
        """Make the client that *header* names this channel's. Returns whether it can be served or told why not."""
        if header.local:
            return True
        if header.over_tls:
            self.scheme = "https"
        if header.source is None or header.destination is None:
            self._is_believed = False
            return True
        self.addr = header.source
        self.server_name, self.server_port = header.destination
        announcers = self.server.announcers
        self._is_believed = announcers is not None and announcers.is_proxy(header.source.address)
        return self._is_believed or self.server.connections.identify(self)

    def received(self, data: bytes) -> bool:
        complete = super().received(data)
        if complete and not self._is_believed and (head := self.requests[0].head) is not None:
            for key in head.fields.keys() & MISLEADING_KEYS:
                del head.fields[key]
        return complete


def proxied(channel_class: type[Channel]) -> type[Channel]:
    """*channel_class* with a header before all else, and so before the handshake of one that speaks TLS."""
    return type(f"Proxied{channel_class.__name__}", (ProxiedChannel, channel_class), {})
