"""The PROXY header with which a trusted proxy begins a connection, before TLS and before the first
request.

Reading the header is ``protocol.proxy_v1v2``'s business, whether a peer has to send one the
acceptor's. Rules:

- Nothing behind the header is taken from the system: the transport reads there next. The header
  itself is taken as it arrives, or the event loop would be woken for the same bytes again and
  again.
- A header is no progress: HEADER_TIMEOUT runs from accept.
- The client that it names replaces the proxy: it counts against MAX_CONNECTIONS_PER_CLIENT, and its
  X-Forwarded-* fields are believed only if its address is one more trusted proxy's. ``*`` and
  ``unix`` in TRUSTED_PROXIES say who may connect here, not who may be named.
- If the proxy says that the client speaks TLS with it, the scheme is https.
- A client that the proxy does not name is not believed. The proxy is, if it speaks for itself
  (LOCAL).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from ...protocol.proxy_v1v2 import MAX_HEADER, ProxyHeader, read_header
from ..exchange.peer import Peer


class ProxyHeaderReader:
    """Reads the header from *sock*. *is_proxy* tells whether an address is a trusted proxy's."""

    def __init__(self, sock: socket.socket, is_proxy: Callable[[str], bool]) -> None:
        self._socket = sock
        self._is_proxy = is_proxy
        self._held = b""

    def read(self) -> ProxyHeader | None:
        """Return the header if it is complete, None if more has to arrive.

        Raises EOFError if the peer closes (some health checks do), MalformedHeaderError, and
        OSError.
        """
        try:
            seen = self._socket.recv(MAX_HEADER, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        if not seen:
            raise EOFError
        header = read_header(self._held + seen)
        self._held += self._socket.recv(len(seen) if header is None else header.length - len(self._held))
        return header

    def peer(self, header: ProxyHeader, proxy: Peer) -> Peer:
        """Return the client that *header* names, which reached the server through *proxy*."""
        if header.local:
            return proxy
        peer = proxy._replace(scheme="https") if header.over_tls else proxy
        if header.source is None or header.destination is None:
            return peer._replace(is_believed=False)
        return peer._replace(
            address=header.source.address,
            port=header.source.port,
            server_name=header.destination.address,
            server_port=header.destination.port,
            is_believed=self._is_proxy(header.source.address),
        )
