"""Decodes a chunked body (RFC 9112, section 7.1).

Sans-I/O, and linear in the received bytes: lines are bounded, and only the new part of a line is
searched for its end. Everything that two readers could understand differently is refused.

Complete chunks are taken together, in few steps each: a client may send every byte in its own
chunk. All other input, even a chunk cut in two, goes to the reader of lines, so that each refusal
is decided in one place.

    chunked-body = *chunk last-chunk trailer-section CRLF
    chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
    chunk-size   = 1*HEXDIG
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto

from .refusal import Refusal

MAX_SIZE_LINE = 256
"""Longest line of a chunk's size and extensions, in bytes. Extensions are not used in practice;
some senders pad sizes with zeros.
"""

MAX_EXTENSIONS = 16 * 1024
"""Most bytes of extensions in a body (section 7.1.1 asks for a limit of the total): *max_body* does
not count them.
"""

MAX_TRAILERS = 8192
"""Most bytes of trailer fields. They are checked and dropped, because WSGI cannot pass them on."""

# At most 16 digits, more than any real size. Extensions (section 7.1.1) are checked and ignored.
# White space before the size, or between it and the extension, is refused, although section 7.1.1
# lets a recipient accept "bad white space" there.
_SIZE = rb"""([0-9A-Fa-f]{1,16})
    (?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*"))?)*"""
_SIZE_LINE = re.compile(_SIZE, re.VERBOSE)
_START = re.compile(_SIZE + rb"\r\n", re.VERBOSE)
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t \x21-\x7e\x80-\xff]*")
# RFC 9110, section 6.5.1: fields that frame, route or authenticate a message must not be in a
# trailer.
_NOT_IN_TRAILER = frozenset(
    {
        b"transfer-encoding",
        b"content-length",
        b"host",
        b"connection",
        b"trailer",
        b"te",
        b"upgrade",
        b"expect",
        b"content-type",
    }
    | {b"content-encoding", b"content-range", b"authorization", b"cookie", b"cache-control", b"range"}
)


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()


class ChunkedDecoder:
    """Decodes one body. *max_body* limits the decoded bytes."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._state = _State.SIZE
        self._line = bytearray()
        self.missing = 0
        """Bytes of the current chunk that have not arrived."""
        self.chunks = 0
        """Chunks that have started."""
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self.complete = False
        self.received = 0

    def feed(self, data: bytes, sink: Callable[[bytes], object]) -> int:
        """Take *data*, pass decoded bytes to *sink*, and return how many bytes belong to this body.

        Raises Refusal: 400 if the body is malformed, 413 as soon as an announced chunk exceeds the
        limit.
        """
        parts: list[bytes] = []
        position = 0
        while position < len(data) and not self.complete:
            if self._state is _State.DATA:
                part = data[position : position + self.missing]
                parts.append(part)
                position += len(part)
                self.missing -= len(part)
                if not self.missing:
                    self._state = _State.DATA_END
            else:
                if self._state is _State.SIZE and not self._line:
                    position = self._take_whole_chunks(data, position, parts)
                position = self._feed_line(data, position)
        if parts:
            sink(b"".join(parts))
        return position

    def _take_whole_chunks(self, data: bytes, position: int, parts: list[bytes]) -> int:
        """Take chunks from *position* on, up to the first that is incomplete, malformed or the
        last. Return its position.
        """
        start_at = _START.match
        before = len(parts)
        left = self._max_body - self.received
        while match := start_at(data, position, position + MAX_SIZE_LINE + 2):
            digits = match[1]
            size = int(digits, 16)
            start = match.end()
            end = start + size
            extension_bytes = self._extension_bytes + start - position - len(digits) - 2
            if not size or size > left or extension_bytes > MAX_EXTENSIONS or data[end : end + 2] != b"\r\n":
                break
            self._extension_bytes = extension_bytes
            left -= size
            parts.append(data[start:end])
            position = end + 2
        self.received = self._max_body - left
        self.chunks += len(parts) - before
        return position

    def _feed_line(self, data: bytes, position: int) -> int:
        """Collect the current line, and act on it when it is complete. Return the position after
        the bytes taken.
        """
        bound = 0 if self._state is _State.DATA_END else MAX_SIZE_LINE if self._state is _State.SIZE else MAX_TRAILERS
        newline = data.find(b"\n", position, position + bound + 2 - len(self._line))
        end = newline + 1 if newline >= 0 else min(len(data), position + bound + 2 - len(self._line))
        self._line += data[position:end]
        if newline < 0:
            if len(self._line) >= bound + 2:
                raise Refusal(400, "A line of the chunked body is too long or does not end.")
            return end
        if not self._line.endswith(b"\r\n"):
            raise Refusal(400, "A line of the chunked body does not end in CR LF.")
        line = bytes(self._line[:-2])
        self._line.clear()
        if self._state is _State.SIZE:
            self._start_chunk(line)
        elif self._state is _State.DATA_END:
            self._state = _State.SIZE  # bound 0: the line is empty
        elif line:
            self._check_trailer(line)
        else:
            self.complete = True
        return end

    def _start_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise Refusal(400, "The size of a chunk is malformed.")
        self._extension_bytes += len(line) - len(match[1])
        if self._extension_bytes > MAX_EXTENSIONS:
            raise Refusal(400, "The chunked body has more extensions than this server accepts.")
        size = int(match[1], 16)
        if self.received + size > self._max_body:
            raise Refusal(413, "The request body is larger than this server accepts.", "MAX_BODY_SIZE")
        self.received += size
        self.chunks += 1
        self.missing = size
        self._state = _State.DATA if size else _State.TRAILERS

    def _check_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        match = _TRAILER.fullmatch(line)
        if match is None or self._trailer_bytes > MAX_TRAILERS:
            raise Refusal(400, "The trailer of the chunked body is malformed or too long.")
        if match[1].lower() in _NOT_IN_TRAILER:
            raise Refusal(400, "The trailer of the chunked body has a field that is not allowed there.")
