"""Which account is at the other end of a Unix socket, as the kernel says it."""

from __future__ import annotations

import socket
import struct


def peer_uid(sock: socket.socket) -> int | None:
    """The user id of the peer of *sock*: of who connected, or of who called ``listen()``. None if the system does not tell.

    Linux does (unix(7), SO_PEERCRED). The peer cannot choose it, and giving the socket's file to another account does not change it.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = struct.Struct("iII")  # process, user, group
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    uid: int = credentials.unpack(told)[1]
    return uid
