"""Counts the bytes sent on a connection that its client has not acknowledged yet."""

from __future__ import annotations

import socket
import struct
import sys

if sys.platform == "linux":
    import fcntl
    import termios

    def unacknowledged(sock: socket.socket) -> int:
        """Return the bytes in the send queue of this system: SIOCOUTQ (tcp(7), unix(7))."""
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])

else:

    def unacknowledged(sock: socket.socket) -> int:
        """Return 0: here the client counts as having taken what the system accepted."""
        return 0
