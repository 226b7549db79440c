"""Reads the header of the PROXY protocol, versions 1 and 2: what a proxy says about a connection
before the client's first byte.

Sans-I/O: the received bytes go in, from their start each time; nothing is kept. The source is
proxy-protocol.txt of HAProxy, and sections are those of that file. Deviations, all towards
strictness: a header has at most MAX_HEADER bytes, its TLVs must be well-formed, and a checksum is
verified if present (section 2.2 leaves each of these to the receiver). If the proxy made the
connection for itself (LOCAL), or does not name the client, everything but the length is ignored, as
sections 2.1 and 2.2 say.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_HEADER = 4096
"""Longest header in bytes. The largest in use have a client's certificate name, a few hundred
bytes; version 2 allows 64 KiB.
"""

MAX_LINE = 107
"""Longest version 1 header in bytes, with its CR LF (section 2.1)."""

# Section 2.1. IPv6 addresses may have any spelling; an address of the other family is refused when
# it is parsed.
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [\x20-\x7e]*)?|(?P<family>TCP[46])"
    rb" (?P<source>[0-9A-Fa-f.:]+) (?P<destination>[0-9A-Fa-f.:]+)"
    rb" (?P<source_port>0|[1-9][0-9]{0,4}) (?P<destination_port>0|[1-9][0-9]{0,4}))"
)

# Section 2.2
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = struct.Struct("!12sBBH")
_LOCAL = 0x20
_PROXY = 0x21
_UNSPECIFIED = 0x00
_UNIX_STREAM = 0x31
_INTERNET_STREAM = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}
_UNIX_ADDRESSES = 2 * 108

# Section 2.2: pp2_tlv, with the types used here, and pp2_tlv_ssl, which contains further TLVs
_TLV = struct.Struct("!BH")
_CRC32C = 0x03
_SSL = 0x20
_SSL_FIXED = struct.Struct("!BI")
_SSL_CLIENT = 0x01
_CRC_BYTES = 4
_CRC_POLYNOMIAL = 0x82F63B78  # Castagnoli's (RFC 3720, appendix B.4), with its bits reversed


class MalformedHeaderError(Exception):
    """The bytes are not a header. *reason* is for people and contains none of the bytes."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SocketAddress(NamedTuple):
    """*address* is written as by :mod:`ipaddress`; an IPv4-mapped IPv6 address becomes the IPv4
    address.
    """

    address: str
    port: int


class ProxyHeader(NamedTuple):
    """A header of *length* bytes; the client's bytes follow.

    *source* and *destination* are None if the proxy names none: the connection is its own
    (*local*), or its client has no IP address or is unknown. *over_tls*: the client uses TLS to the
    proxy.
    """

    length: int
    source: SocketAddress | None = None
    destination: SocketAddress | None = None
    local: bool = False
    over_tls: bool = False


def read_header(data: bytes) -> ProxyHeader | None:
    """Read the header at the start of *data*; None while it is incomplete.

    Raises :class:`MalformedHeaderError`, as early as the version and the length allow.
    """
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        return _read_binary(data) if len(data) >= _FIXED.size else None
    if b"PROXY ".startswith(data[:6]):
        return _read_line(data)
    raise MalformedHeaderError("it starts with something else")


def _read_line(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:MAX_LINE].partition(b"\r\n")
    if not end:
        if len(line) == MAX_LINE or b"\n" in line or b"\r" in line[:-1]:
            raise MalformedHeaderError("its line is too long, or does not end in CR LF")
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise MalformedHeaderError("its line is malformed")
    length = len(line) + len(end)
    if match["family"] is None:
        return ProxyHeader(length)
    read = ipaddress.IPv4Address if match["family"] == b"TCP4" else ipaddress.IPv6Address
    ports = int(match["source_port"]), int(match["destination_port"])
    if max(ports) > 0xFFFF:
        raise MalformedHeaderError("a port is larger than 65535")
    try:
        source, destination = (read(match[name].decode("ascii")) for name in ("source", "destination"))
    except ValueError:
        raise MalformedHeaderError("an address is not of the family in the header") from None
    return ProxyHeader(length, _socket_address(source, ports[0]), _socket_address(destination, ports[1]))


def _read_binary(data: bytes) -> ProxyHeader | None:
    _, command, family, rest = _FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise MalformedHeaderError("its version is not 2, or its command is unknown")
    length = _FIXED.size + rest
    if length > MAX_HEADER:
        raise MalformedHeaderError(f"it is longer than {MAX_HEADER} bytes")
    if command == _LOCAL or family == _UNSPECIFIED:
        return ProxyHeader(length, local=command == _LOCAL) if len(data) >= length else None
    layout = _INTERNET_STREAM.get(family)
    if layout is None and family != _UNIX_STREAM:
        raise MalformedHeaderError("it does not describe a stream over TCP or a Unix socket")
    tlvs = _FIXED.size + (layout.size if layout is not None else _UNIX_ADDRESSES)
    if length < tlvs:
        raise MalformedHeaderError("it is too short for its addresses")
    if len(data) < length:
        return None
    over_tls = _read_tlvs(data[:length], tlvs)
    if layout is None:
        return ProxyHeader(length, over_tls=over_tls)
    source, destination, source_port, destination_port = layout.unpack_from(data, _FIXED.size)
    return ProxyHeader(
        length,
        _socket_address(ipaddress.ip_address(source), source_port),
        _socket_address(ipaddress.ip_address(destination), destination_port),
        over_tls=over_tls,
    )


def _read_tlvs(header: bytes, position: int) -> bool:
    """Check the TLVs from *position* on. Return whether the client uses TLS to the proxy."""
    known: dict[int, tuple[int, int]] = {}
    for kind, start, end in _tlvs(header, position, len(header)):
        if kind in known:
            raise MalformedHeaderError("a TLV that may come once comes twice")
        if kind in (_CRC32C, _SSL):
            known[kind] = start, end
    if _CRC32C in known:
        start, end = known[_CRC32C]
        if end - start != _CRC_BYTES:
            raise MalformedHeaderError(f"its checksum does not have {_CRC_BYTES} bytes")
        zeroed = header[:start] + bytes(_CRC_BYTES) + header[end:]
        if crc32c(zeroed) != int.from_bytes(header[start:end], "big"):
            raise MalformedHeaderError("its checksum is wrong")
    if _SSL not in known:
        return False
    start, end = known[_SSL]
    if end - start < _SSL_FIXED.size:
        raise MalformedHeaderError("its TLS information is cut")
    for _ in _tlvs(header, start + _SSL_FIXED.size, end):
        pass
    return bool(header[start] & _SSL_CLIENT)


def _tlvs(header: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield type, start and end of the value of each TLV from *position* to *end*."""
    while position < end:
        start = position + _TLV.size
        if start > end:
            raise MalformedHeaderError("its last TLV is cut")
        kind, size = _TLV.unpack_from(header, position)
        position = start + size
        if position > end:
            raise MalformedHeaderError("a TLV is longer than the part that contains it")
        yield kind, start, position


def _socket_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> SocketAddress:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return SocketAddress(str(mapped or address), port)


def _crc_table() -> tuple[int, ...]:
    table = []
    for remainder in range(256):
        for _ in range(8):
            remainder = remainder >> 1 ^ (_CRC_POLYNOMIAL if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 3720, appendix B.4."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = remainder >> 8 ^ _CRC_TABLE[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF
