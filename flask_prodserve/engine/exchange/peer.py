"""Where a connection comes from and where it has arrived, as the app is told."""

from __future__ import annotations

from typing import NamedTuple


class Peer(NamedTuple):
    """*address* and *port* of the client (``""`` and None on a Unix socket), and of the server as
    the client reached it.

    *is_believed*: its X-Forwarded-* fields may say who the client is.
    """

    address: str
    port: int | None
    server_name: str
    server_port: int
    scheme: str
    is_believed: bool = True
