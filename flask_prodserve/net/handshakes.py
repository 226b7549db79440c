"""Closes a TCP listener without resetting clients that have just connected.

When a listener is closed, the system resets connections that were not accepted yet, and those whose
handshake (RFC 9293, section 3.5) has started but is not complete. Linux can be told to ignore new
handshakes first. Their clients try again after a second, and find the next server, or are refused.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

HANDSHAKE_SECONDS = 0.05
"""How long handshakes that have started may take to complete: a round trip across a continent."""

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python does not name it
_FILTER = (
    # Classic BPF (linux/filter.h): code, jump if true, jump if false, operand. Its input starts
    # with the TCP header.
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # else accept all of it: connections inherit the filter
)


def ignore_new_handshakes(listening: socket.socket) -> bool:
    """Let no new handshake start on *listening*, in any process. Returns whether the system can do
    that.
    """
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER))
    try:
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_FILTER), ctypes.addressof(program))
        )
    except OSError:  # not supported by every kernel or sandbox
        return False
    return True
