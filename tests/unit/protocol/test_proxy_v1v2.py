"""PROXY headers that are read and those that are refused, each whole, byte by byte, and with a request behind it."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.protocol.proxy_v1v2 import (
    MAX_HEADER,
    MAX_LINE,
    MalformedHeaderError,
    ProxyHeader,
    SocketAddress,
    crc32c,
    read_header,
)
from proxy_header import SIGNATURE
from proxy_header import frame as binary

TCP4 = ipaddress.ip_address("203.0.113.9").packed + ipaddress.ip_address("192.0.2.1").packed + b"\xc8\x22\x01\xbb"
TCP6 = ipaddress.ip_address("2001:db8::9").packed + ipaddress.ip_address("2001:db8::1").packed + b"\xc8\x22\x01\xbb"
UNIX = b"/client".ljust(108, b"\0") + b"/proxy".ljust(108, b"\0")
SOURCE, DESTINATION = SocketAddress("203.0.113.9", 51234), SocketAddress("192.0.2.1", 443)
SOURCE6, DESTINATION6 = SocketAddress("2001:db8::9", 51234), SocketAddress("2001:db8::1", 443)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(before: bytes = b"", after: bytes = b"", checksum: int | None = None) -> bytes:
    """A header with a checksum, between two TLVs."""
    zeroed = binary(0x21, 0x11, TCP4 + before + tlv(3, bytes(4)) + after)
    right = crc32c(zeroed) if checksum is None else checksum
    return binary(0x21, 0x11, TCP4 + before + tlv(3, right.to_bytes(4, "big")) + after)


def whole(data: bytes) -> ProxyHeader | None:
    return read_header(data)


def byte_by_byte(data: bytes) -> ProxyHeader | None:
    for length in range(len(data)):
        assert read_header(data[:length]) is None
    return read_header(data)


def with_a_request(data: bytes) -> ProxyHeader | None:
    return read_header(data + b"GET / HTTP/1.1\r\n\r\n")


WAYS = pytest.mark.parametrize("way", [whole, byte_by_byte, with_a_request])

READ: list[tuple[bytes, ProxyHeader]] = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 51234 443\r\n", ProxyHeader(44, SOURCE, DESTINATION)),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 51234 443\r\n", ProxyHeader(46, SOURCE6, DESTINATION6)),
    (b"PROXY TCP6 2001:DB8:0:0:0:0:0:9 2001:db8::1 51234 443\r\n", ProxyHeader(55, SOURCE6, DESTINATION6)),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:c000:201 51234 443\r\n", ProxyHeader(57, SOURCE, DESTINATION)),
    (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        ProxyHeader(44, SocketAddress("0.0.0.0", 0), SocketAddress("255.255.255.255", 65535)),
    ),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(15)),
    (b"PROXY UNKNOWN \r\n", ProxyHeader(16)),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", ProxyHeader(43)),
    (b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16) + b"\r\n", ProxyHeader(MAX_LINE)),
    (binary(0x21, 0x11, TCP4), ProxyHeader(28, SOURCE, DESTINATION)),
    (binary(0x21, 0x21, TCP6), ProxyHeader(52, SOURCE6, DESTINATION6)),
    (
        binary(0x21, 0x21, bytes(10) + b"\xff\xff" + TCP4[:4] + bytes(10) + b"\xff\xff" + TCP4[4:]),
        ProxyHeader(52, SOURCE, DESTINATION),
    ),
    (binary(0x21, 0x31, UNIX), ProxyHeader(232)),
    (binary(0x21, 0x00), ProxyHeader(16)),
    (binary(0x21, 0x00, b"whatever"), ProxyHeader(24)),
    (binary(0x20, 0x00), ProxyHeader(16, local=True)),
    (binary(0x20, 0x11, TCP4), ProxyHeader(28, local=True)),
    (binary(0x20, 0x12, b"\xff"), ProxyHeader(17, local=True)),
    (binary(0x21, 0x11, TCP4 + tlv(5, b"unique") + tlv(4, b"")), ProxyHeader(40, SOURCE, DESTINATION)),
    (binary(0x21, 0x31, UNIX + tlv(0xEA, b"x")), ProxyHeader(236)),
    (binary(0x21, 0x11, TCP4 + tlv(0x20, b"\1\0\0\0\0")), ProxyHeader(36, SOURCE, DESTINATION, over_tls=True)),
    (
        binary(0x21, 0x11, TCP4 + tlv(0x20, b"\7\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"\xff"))),
        ProxyHeader(50, SOURCE, DESTINATION, over_tls=True),
    ),
    (binary(0x21, 0x11, TCP4 + tlv(0x20, b"\2\0\0\0\0")), ProxyHeader(36, SOURCE, DESTINATION)),
    (binary(0x21, 0x31, UNIX + tlv(0x20, b"\1\0\0\0\0")), ProxyHeader(240, over_tls=True)),
    (with_checksum(), ProxyHeader(35, SOURCE, DESTINATION)),
    (with_checksum(tlv(1, b"h2"), tlv(4, b"\0\0")), ProxyHeader(45, SOURCE, DESTINATION)),
    (binary(0x21, 0x11, TCP4 + tlv(4, bytes(MAX_HEADER - 31))), ProxyHeader(MAX_HEADER, SOURCE, DESTINATION)),
]


@WAYS
@pytest.mark.parametrize(("data", "header"), READ)
def test_read(way: Callable[[bytes], ProxyHeader | None], data: bytes, header: ProxyHeader) -> None:
    """A good header is read to its end and not beyond, whoever sends it and however it comes."""
    assert way(data) == header


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\r\n\r\nGET",
        b"proxy TCP4 203.0.113.9 192.0.2.1 51234 443\r\n",
        b" PROXY UNKNOWN\r\n",
        b"PROXY\tUNKNOWN\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN\n",
        b"PROXY UNKNOWN\rx\r\n",
        b"PROXY UNKNOWN a\nb\r\n",
        b"PROXY UNKNOWN \xff\r\n",
        b"PROXY UNKNOWN \0\r\n",
        b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 15) + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * MAX_LINE,
        b"PROXY UDP4 203.0.113.9 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 51234\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 51234 443 \r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 51234 443 1\r\n",
        b"PROXY TCP4  203.0.113.9 192.0.2.1 51234 443\r\n",
        b"PROXY  TCP4 203.0.113.9 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 203.0.113.9\t192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 203.0.113.09 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 203.0.113 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 203.0.113.256 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 localhost 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 2001:db8::9 2001:db8::1 51234 443\r\n",
        b"PROXY TCP4 203.0.113.9 2001:db8::1 51234 443\r\n",
        b"PROXY TCP6 203.0.113.9 192.0.2.1 51234 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 51234 443\r\n",
        b"PROXY TCP6 [2001:db8::9] 2001:db8::1 51234 443\r\n",
        b"PROXY TCP6 2001:db8:::9 2001:db8::1 51234 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 051234 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 51234 65536\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 -1 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 +1 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 00 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 \xb2 443\r\n",
        SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c" + TCP4,
        binary(0x11, 0x11, TCP4),
        binary(0x31, 0x11, TCP4),
        binary(0x22, 0x11, TCP4),
        *(binary(0x21, family, bytes(300)) for family in (0x01, 0x02, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41)),
        binary(0x21, 0x11, TCP4[:-1]),
        binary(0x21, 0x11),
        binary(0x21, 0x21, TCP6[:-1]),
        binary(0x21, 0x31, UNIX[:-1]),
        binary(0x21, 0x11, TCP4 + b"\x04"),
        binary(0x21, 0x11, TCP4 + b"\x04\x00"),
        binary(0x21, 0x11, TCP4 + b"\x04\x00\x02x"),
        binary(0x21, 0x11, TCP4 + tlv(4, b"") + b"\x04\xff\xff"),
        binary(0x21, 0x11, TCP4 + tlv(3, b"abc")),
        binary(0x21, 0x11, TCP4 + tlv(3, b"abcde")),
        binary(0x21, 0x11, TCP4 + tlv(0x20, b"")),
        binary(0x21, 0x11, TCP4 + tlv(0x20, b"\1\0\0\0")),
        binary(0x21, 0x11, TCP4 + tlv(0x20, b"\1\0\0\0\0\x21")),
        binary(0x21, 0x11, TCP4 + tlv(0x20, b"\1\0\0\0\0\x21\0\3xx") + tlv(4, b"x")),
        binary(0x21, 0x11, TCP4 + tlv(0x20, b"\1\0\0\0\0") * 2),
        with_checksum(checksum=0),
        with_checksum()[:-1] + b"\0",
        with_checksum(after=tlv(3, bytes(4))),
        binary(0x21, 0x11, TCP4, length=MAX_HEADER - 15),
        binary(0x20, 0x00, length=0xFFFF),
    ],
)
def test_refused(data: bytes) -> None:
    """What is no header is refused, at the same byte whether more comes or not, and nothing of it is shown."""
    with pytest.raises(MalformedHeaderError) as caught:
        read_header(data)
    assert str(caught.value) == caught.value.reason
    assert caught.value.reason.isprintable()
    verdicts = [is_refused(data[:length]) for length in range(len(data) + 1)]
    assert verdicts == sorted(verdicts), "what was refused is accepted once more has come"
    assert is_refused(data + b"GET / HTTP/1.1\r\n\r\n")


def is_refused(data: bytes) -> bool:
    try:
        assert read_header(data) is None
    except MalformedHeaderError:
        return True
    return False


@pytest.mark.parametrize(
    "data",
    [b"G", b"PROXX", b"\x16", b"\r\n\r\n\r", binary(0x23, 0x11)[:16], binary(0x21, 0x12)[:16], b"PROXY UNKNOWN\n"],
)
def test_refused_early(data: bytes) -> None:
    """What cannot become a header is not waited for."""
    assert not is_refused(data[:-1])
    assert is_refused(data)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_checksum(data: bytes, checksum: int) -> None:
    """The checksum is that of RFC 3720."""
    assert crc32c(data) == checksum


PORTS = st.integers(0, 65535)


@given(st.sampled_from([4, 6]), st.data(), PORTS, PORTS, st.binary(max_size=20))
def test_any_address_in_both_versions(
    version: int, data: st.DataObject, source_port: int, destination_port: int, behind: bytes
) -> None:
    """Any two endpoints are read alike from a line and from a binary header, whatever follows."""
    source, destination = (data.draw(st.ip_addresses(v=version)) for _ in range(2))
    line = f"PROXY TCP{version} {source} {destination} {source_port} {destination_port}\r\n".encode()
    packed = source.packed + destination.packed + struct.pack("!HH", source_port, destination_port)
    headers = [
        (line, read_header(line + behind)),
        (whole := binary(0x21, 0x11 if version == 4 else 0x21, packed), read_header(whole + behind)),
    ]
    for sent, header in headers:
        assert header is not None
        assert header.length == len(sent)
        assert not header.local
        assert header.source is not None
        assert header.destination is not None
        assert (header.source.port, header.destination.port) == (source_port, destination_port)
        for endpoint, address in ((header.source, source), (header.destination, destination)):
            mapped = getattr(address, "ipv4_mapped", None)
            assert endpoint.address == str(mapped or address)
