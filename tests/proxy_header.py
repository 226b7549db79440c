"""PROXY headers as load balancers write them (proxy-protocol.txt of HAProxy, section 2)."""

from __future__ import annotations

import ipaddress
import struct

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
UNSPECIFIED, TCP4, TCP6, UNIX = 0x00, 0x11, 0x21, 0x31


def line(source: str, source_port: int = 51234, destination: str = "", destination_port: int = 443) -> bytes:
    """Version 1. *destination* is by default some address of the same family."""
    family = ipaddress.ip_address(source).version
    destination = destination or ("192.0.2.1" if family == 4 else "2001:db8::1")
    return f"PROXY TCP{family} {source} {destination} {source_port} {destination_port}\r\n".encode()


def binary(source: str, source_port: int = 51234, destination: str = "", destination_port: int = 443) -> bytes:
    """Version 2, of the same connection."""
    family = ipaddress.ip_address(source).version
    destination = destination or ("192.0.2.1" if family == 4 else "2001:db8::1")
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return frame(PROXY, TCP4 if family == 4 else TCP6, packed + struct.pack("!HH", source_port, destination_port))


def frame(command: int, family: int, rest: bytes = b"", length: int | None = None) -> bytes:
    """Version 2 with anything in it. *command* has the version in its upper half; *length* may lie."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest
