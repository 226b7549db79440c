"""Chunked bodies that are decoded and those that are refused, each whole, byte by byte, and with more behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_prodserve.protocol.chunked import MAX_EXTENSIONS, MAX_SIZE_LINE, MAX_TRAILERS, ChunkedDecoder
from flask_prodserve.protocol.refusal import Refusal
from profiles import sized

LIMIT = 1000
Decoded = tuple[bytes, bool, int]


def whole(data: bytes) -> Decoded:
    decoder, parts = ChunkedDecoder(LIMIT), bytearray()
    consumed = decoder.feed(data, parts.extend)
    assert decoder.received == len(parts) or not decoder.complete
    return bytes(parts), decoder.complete, consumed


def byte_by_byte(data: bytes) -> Decoded:
    decoder, parts, consumed = ChunkedDecoder(LIMIT), bytearray(), 0
    for index in range(len(data)):
        consumed += decoder.feed(data[index : index + 1], parts.extend)
    return bytes(parts), decoder.complete, consumed


def with_trailing_data(data: bytes) -> Decoded:
    return whole(data + b"GET / HTTP/1.1\r\n\r\n")


WAYS = pytest.mark.parametrize("way", [whole, byte_by_byte, with_trailing_data])


@WAYS
@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"1\r\na\r\n2\r\nbc\r\n000\r\n\r\n", b"abc"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n" * 5),
        (b'1;name;name=value;name="quoted \\" value"\r\na\r\n0;last\r\n\r\n', b"a"),
        (b"1\r\na\r\n0\r\nX-Trailer: value\r\nX-Other:\r\n\r\n", b"a"),
        (b"0000000000000001\r\na\r\n0\r\n\r\n", b"a"),
        (b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n", b"x" * 1000),
        (b"1;" + b"a" * (MAX_SIZE_LINE - 2) + b"\r\na\r\n0\r\n\r\n", b"a"),
    ],
)
def test_decoded(way: Callable[[bytes], Decoded], data: bytes, body: bytes) -> None:
    """A good body is decoded to its end and not beyond."""
    assert way(data) == (body, True, len(data))


@WAYS
@pytest.mark.parametrize(
    ("data", "status"),
    [
        *(
            (size + b"\r\na\r\n0\r\n\r\n", 400)
            for size in (b"", b"+1", b"-1", b"0x1", b"1_0", b" 1", b"1 ", b"\t1", b"1 ;a", b"g", b"\xb2")
        ),
        (b"00000000000000001\r\na\r\n0\r\n\r\n", 400),
        (b"1\na\r\n0\r\n\r\n", 400),
        (b"1\ra\r\n0\r\n\r\n", 400),
        (b"1\r\r\na\r\n0\r\n\r\n", 400),
        (b"\r\n1\r\na\r\n0\r\n\r\n", 400),
        (b"1\r\nab\r\n0\r\n\r\n", 400),
        (b"1\r\na\n0\r\n\r\n", 400),
        (b"1\r\na0\r\n\r\n", 400),
        (b"1;\r\na\r\n0\r\n\r\n", 400),
        (b"1;a=\r\na\r\n0\r\n\r\n", 400),
        (b'1;a="b\r\na\r\n0\r\n\r\n', 400),
        (b"1;a\nb\r\na\r\n0\r\n\r\n", 400),
        (b"1;" + b"a" * (MAX_SIZE_LINE - 1) + b"\r\na\r\n0\r\n\r\n", 400),
        (b"0\r\nbad trailer\r\n\r\n", 400),
        (b"0\r\n folded: x\r\n\r\n", 400),
        (b"0\r\nX-A : x\r\n\r\n", 400),
        (b"0\r\nX-A: \0\r\n\r\n", 400),
        (b"0\r\nContent-Length: 5\r\n\r\n", 400),
        (b"0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"0\r\nHost: other\r\n\r\n", 400),
        (b"0\r\nX-A: x\n\r\n", 400),
        (b"0\r\n" + b"X-A: x\r\n" * (MAX_TRAILERS // 8 + 1) + b"\r\n", 400),
        (b"3e9\r\n", 413),
        (b"1\r\na\r\n3e8\r\n", 413),
        (b"ffffffffffffffff\r\n", 413),
    ],
)
def test_refused(way: Callable[[bytes], Decoded], data: bytes, status: int) -> None:
    """What is malformed is 400, what is too large 413 as soon as it is announced."""
    with pytest.raises(Refusal) as caught:
        way(data)
    assert caught.value.status == status


@pytest.mark.parametrize(("start", "bound"), [(b"1;", MAX_SIZE_LINE), (b"0\r\nX: ", MAX_TRAILERS)])
def test_endless_lines(start: bytes, bound: int) -> None:
    """A size line or trailer that does not end is refused at its bound, so its cost is bounded, too."""
    decoder = ChunkedDecoder(LIMIT)
    decoder.feed(start, list)
    with pytest.raises(Refusal) as caught:
        [decoder.feed(b"a", list) for _ in range(bound + 1)]
    assert caught.value.status == 400


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=15), st.data())
def test_any_split(chunks: list[bytes], data: st.DataObject) -> None:
    """However the bytes are split, the same body comes out."""
    message = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX-T: y\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=10)))
    decoder, parts = ChunkedDecoder(LIMIT), bytearray()
    for start, end in zip([0, *cuts], [*cuts, len(message)], strict=True):
        decoder.feed(message[start:end], parts.extend)
    assert decoder.complete
    assert bytes(parts) == b"".join(chunks)


PIECES = [
    *(
        b"1\r\na\r\n",
        b"1\r\n1\r\n",
        b"02\r\n\r\n\r\n",
        b"A\r\n0123456789\r\n",
        b"1;a\r\nb\r\n",
        b'1;a="1\r\n',
        b"1;" + b"a" * 255,
    ),
    *(
        b"12c\r\n" + b"x" * 300 + b"\r\n",
        b"2\r\na\r\n",
        b"1\r\nab\r\n",
        b"1\na\r\n",
        b"1\r\na\n",
        b"1 \r\na\r\n",
        b"1;\r\na\r\n",
    ),
    *(b"0\r\n", b"X: y\r\n", b"\r\n", b"\r", b"\n", b"1", b"f", b"3e9\r\n"),
]


def verdict(way: Callable[[bytes], Decoded], data: bytes) -> Decoded | int:
    try:
        return way(data)
    except Refusal as refusal:
        return refusal.status


@settings(max_examples=sized(100, 500, 20_000))
@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(0, 40))
def test_whole_chunks_are_read_as_their_bytes_are(pieces: list[bytes], good: int) -> None:
    """Good or bad, what follows chunks that are there as a whole gets the verdict that it gets byte by byte."""
    data = b"1\r\na\r\n" * good + b"".join(pieces)
    assert verdict(whole, data) == verdict(byte_by_byte, data)


@pytest.mark.parametrize("chunk", [b"1;a\r\nb\r\n", b"1;" + b"a" * 63 + b"\r\nb\r\n"])
def test_extensions_of_many_chunks(chunk: bytes) -> None:
    """The bound of all extensions is the same for chunks that come together and for those that do not."""
    extension = len(chunk) - len(b"1\r\nb\r\n")
    together, apart = ChunkedDecoder(100_000), ChunkedDecoder(100_000)
    together.feed(chunk * (MAX_EXTENSIONS // extension), list)
    for _ in range(MAX_EXTENSIONS // extension):
        apart.feed(chunk, list)
    for decoder in (together, apart):
        with pytest.raises(Refusal) as caught:
            decoder.feed(chunk, list)
        assert caught.value.status == 400


def test_one_piece() -> None:
    """What comes together is handed over together, however many chunks it is, with what is there of a chunk that is not."""
    decoder, pieces = ChunkedDecoder(LIMIT), list[bytes]()
    decoder.feed(b"1\r\na\r\n2;x\r\nbc\r\n4\r\nde", pieces.append)
    decoder.feed(b"f", pieces.append)
    decoder.feed(b"g\r", pieces.append)
    decoder.feed(b"\n1\r\nh\r\n", pieces.append)
    decoder.feed(b"0\r\n\r\n", pieces.append)
    assert pieces == [b"abcde", b"f", b"g", b"h"]


def test_count_of_chunks() -> None:
    """Chunks are counted as they begin, whole or not; the last, which is empty, is one."""
    decoder = ChunkedDecoder(LIMIT)
    decoder.feed(b"1\r\na\r\n2;x\r\nbc\r\n4\r\nde", list)
    assert decoder.chunks == 3
    decoder.feed(b"fg\r\n0\r\n\r\n", list)
    assert decoder.chunks == 4
