"""Closing a TCP listener so that nobody is reset who has just connected.

When a listener is closed, the system resets the connections that nobody has accepted, and those whose handshake (RFC 9293, section 3.5)
has begun and is not complete. Linux can be told to overlook new handshakes first. Their clients try again after a second, and find the
next server, or are refused.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

HANDSHAKE_SECONDS = 0.05
"""How long handshakes that have begun may take to end: the way to the other end of a continent and back."""

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python does not name it
_FILTER = (
    # Classic BPF (linux/filter.h): code, jump if true, jump if false, operand. What it sees begins with the TCP header.
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # or take it, all of it: connections inherit the filter
)


def overlook_new(listening: socket.socket) -> bool:
    """Have no handshake begin on *listening* any more, whoever has it open. Returns whether the system can do that."""
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER))
    try:
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_FILTER), ctypes.addressof(program))
        )
    except OSError:  # not every kernel, and not everything that calls itself one
        return False
    return True
