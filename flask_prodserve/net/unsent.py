"""How much of what was sent on a connection its client has not acknowledged yet."""

from __future__ import annotations

import socket
import struct
import sys

if sys.platform == "linux":
    import fcntl
    import termios

    def unacknowledged(sock: socket.socket) -> int:
        """Bytes that are still with this system: SIOCOUTQ (tcp(7), unix(7))."""
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])

else:

    def unacknowledged(sock: socket.socket) -> int:
        """0: here what the system has taken counts as taken by the client."""
        return 0
