"""The account at the other end of a Unix socket, as the kernel reports it."""

from __future__ import annotations

import socket
import struct


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user id of the process that connected, or called ``listen()``, at the other end;
    None if the system does not tell.

    Linux tells (unix(7), SO_PEERCRED). The peer cannot choose the answer, and changing the owner of
    the socket's file does not change it.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = struct.Struct("iII")  # process, user, group
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    uid: int = credentials.unpack(told)[1]
    return uid
