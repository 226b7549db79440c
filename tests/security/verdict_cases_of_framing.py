"""Verdicts on lengths, codings, chunks, trailers and expectations.

Each row: message, our verdict, h11's, waitress's, and why they differ.
"""

from __future__ import annotations

from request_readers import ACCEPT, REFUSE, WAIT
from verdict_case import (
    BODY_SIZE,
    CHUNK_LINE,
    CODED_TWICE,
    CODING_FORM,
    EXPECTATION,
    EXPECTED_TWICE,
    EXTENSION_BYTES,
    EXTENSION_FORM,
    EXTENSION_SIZE,
    FOLDED,
    LENGTH_DIGITS,
    LENGTH_TWICE,
    LINE_END,
    OLD_CODING,
    SIZE_DIGITS,
    SIZE_FORM,
    TRAILER_FORM,
    TRAILER_NAMES,
    TRAILER_SIZE,
    TWO_FRAMINGS,
    Case,
    chunked,
    coded,
    head,
    post,
    sized,
    trailer,
)

_END = b"0\r\n\r\n"
_LENGTH = "Content-Length: 5"
_CHUNKED = "Transfer-Encoding: chunked"
_COW = "Transfer-Encoding: cow"


def _length(value: str) -> bytes:
    return post(f"Content-Length: {value}", body=b"hello")


def _old(*lines: str) -> bytes:
    return head(*lines, first="POST / HTTP/1.0") + _END


def _coding(value: str) -> bytes:
    return coded(f"Transfer-Encoding: {value}")


LENGTHS = [
    Case("length", _length("5"), ACCEPT, ACCEPT, ACCEPT),
    Case("length of 0", post("Content-Length: 0"), ACCEPT, ACCEPT, ACCEPT),
    Case("length with a GET", head("Content-Length: 5") + b"hello", ACCEPT, ACCEPT, ACCEPT),
    Case("length with zeros before", _length("0005"), ACCEPT, ACCEPT, ACCEPT),
    Case("length that is not octal", post("Content-Length: 010", body=b"0123456789"), ACCEPT, ACCEPT, ACCEPT),
    Case("length between blanks", _length("\t 5 \t"), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"length {value!r}", _length(value), 400, REFUSE, REFUSE)
        for value in ("", "+5", "-5", "-0", "0x5", "0o5", "a", "five", "5.0", "5e0", "5_0", "5 5", "5;a", '"5"', "5(a)")
    ),
    *(
        Case(f"length {value!r}", _length(value), 400, REFUSE, REFUSE)
        for value in ("5, 6", ",5", "5,", "\xb2", "5\xa0", "\x855", "5\0", "\v5")
    ),
    Case("length of 1000 nines", _length("9" * 1000), 400, REFUSE, REFUSE),
    Case("length of 5000 nines", _length("9" * 5000), 400, REFUSE, REFUSE),
    Case("length 5, 5", _length("5, 5"), 400, ACCEPT, REFUSE, LENGTH_TWICE),
    Case("length of 19 digits", _length("5".zfill(19)), 400, ACCEPT, ACCEPT, LENGTH_DIGITS),
    Case("length of 20 nines", _length("9" * 20), 400, WAIT, REFUSE, LENGTH_DIGITS),
    Case("length of 18 nines", _length("9" * 18), 413, WAIT, REFUSE, BODY_SIZE),
    Case("length over the limit", _length("33554433"), 413, WAIT, WAIT, BODY_SIZE),
    Case("two equal lengths", post(_LENGTH, _LENGTH, body=b"hello"), 400, ACCEPT, REFUSE, LENGTH_TWICE),
    Case("two lengths", post(_LENGTH, "Content-Length: 0", body=b"hello"), 400, REFUSE, REFUSE),
    Case("two lengths, 0 first", post("content-length: 0", _LENGTH, body=b"hello"), 400, REFUSE, REFUSE),
    Case("length, space before the colon", post("Content-Length : 5", body=b"hello"), 400, REFUSE, REFUSE),
    Case("length, NUL before the colon", post("Content-Length\0: 5", body=b"hello"), 400, REFUSE, REFUSE),
    Case("length, folded", post("Content-Length:", " 5", body=b"hello"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("length, space before the name", post(" Content-Length: 5", body=b"hello"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("length behind a LF", post("X: a\nContent-Length: 5", body=b"hello"), 400, ACCEPT, REFUSE, LINE_END),
    Case("Content_Length is another field", post("Content_Length: 5"), ACCEPT, ACCEPT, ACCEPT),
]

TWO_FRAMINGS_OF_A_BODY = [
    Case("CL.TE", post("Content-Length: 6", _CHUNKED, body=_END + b"G"), 400, ACCEPT, ACCEPT, TWO_FRAMINGS),
    Case("TE.CL", post(_CHUNKED, "Content-Length: 3", body=b"1\r\nG\r\n" + _END), 400, ACCEPT, ACCEPT, TWO_FRAMINGS),
    Case("both, and they agree", coded(_LENGTH, _CHUNKED), 400, ACCEPT, ACCEPT, TWO_FRAMINGS),
    Case("length 0 and chunked", coded("Content-Length: 0", _CHUNKED), 400, ACCEPT, ACCEPT, TWO_FRAMINGS),
    Case("empty length and chunked", coded("Content-Length:", _CHUNKED), 400, REFUSE, ACCEPT, TWO_FRAMINGS),
    Case("length and empty coding", coded(_LENGTH, "Transfer-Encoding:"), 400, REFUSE, ACCEPT, TWO_FRAMINGS),
    Case("length and xchunked", coded(_LENGTH, "Transfer-Encoding: xchunked"), 400, REFUSE, REFUSE),
    Case("length and identity", coded(_LENGTH, "Transfer-Encoding: identity"), 400, REFUSE, REFUSE),
    Case("length, chunked and cow", coded(_LENGTH, _CHUNKED, _COW), 400, REFUSE, REFUSE),
    Case("chunked in 1.0", _old(_CHUNKED), 400, ACCEPT, ACCEPT, OLD_CODING),
    Case("chunked in 1.0, kept alive", _old("Connection: keep-alive", _CHUNKED), 400, ACCEPT, ACCEPT, OLD_CODING),
    Case("identity in 1.0", _old("Transfer-Encoding: identity"), 400, REFUSE, ACCEPT, OLD_CODING),
    Case("both in 1.0", _old(_LENGTH, _CHUNKED), 400, ACCEPT, ACCEPT, OLD_CODING),
]

CODINGS = [
    Case("chunked", _coding("chunked"), ACCEPT, ACCEPT, ACCEPT),
    Case("chunked in capitals", coded("TRANSFER-ENCODING: CHUNKED"), ACCEPT, ACCEPT, ACCEPT),
    Case("chunked between blanks", _coding("\t chunked \t"), ACCEPT, ACCEPT, ACCEPT),
    Case("chunked without a blank", coded("Transfer-Encoding:chunked"), ACCEPT, ACCEPT, ACCEPT),
    Case("Transfer_Encoding is another field", post("Transfer_Encoding: chunked"), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"coding {value!r}", _coding(value), 400, REFUSE, ACCEPT, CODING_FORM)
        for value in ("", ",", ", chunked", "chunked,", "chunked,,chunked")
    ),
    Case("coding 'chunked, chunked'", _coding("chunked, chunked"), 400, REFUSE, ACCEPT, CODED_TWICE),
    Case("two codings, both chunked", coded(_CHUNKED, _CHUNKED), 400, REFUSE, ACCEPT, CODED_TWICE),
    *(
        Case(f"coding {value!r}", _coding(value), 400, REFUSE, REFUSE)
        for value in ("chunked, gzip", "chunked, identity", "CHUNKED, x", "chunked, gzip, chunked", "gzip,, chunked")
    ),
    *(
        Case(f"coding {value!r}", _coding(value), 400, REFUSE, REFUSE)
        for value in (
            '"chunked"',
            "chunked;q=1",
            "chunked; a",
            "chunk ed",
            "chunked chunked",
            ": chunked",
            "chunked=",
            "[chunked]",
        )
    ),
    *(
        Case(f"coding {value!r}", _coding(value), 400, REFUSE, REFUSE)
        for value in (
            "\vchunked",
            "chunked\v",
            "\fchunked",
            "chunked\0",
            "\0chunked",
            "chunked\x7f",
            "chunked\x1f",
            "chunked\b",
        )
    ),
    *(
        Case(f"coding {value!r}", _coding(value), 400, REFUSE, REFUSE)
        for value in (
            "chunked\xa0",
            "\x85chunked",
            "chunk\xe9d",
            "\xefchunked",
            "chunked\r",
            "\rchunked",
            "\nchunked",
            "chunked\\",
        )
    ),
    *(
        Case(f"coding {value!r}", _coding(value), 501, REFUSE, REFUSE)
        for value in ("xchunked", "chunkeds", "x-chunked", "chunke", "'chunked'", "chunked_", "gzip", "identity", "cow")
    ),
    *(
        Case(f"coding {value!r}", _coding(value), 501, REFUSE, REFUSE)
        for value in ("gzip, chunked", "identity, chunked", "gzip, deflate")
    ),
    Case("TE.TE, chunked first", coded(_CHUNKED, _COW), 400, REFUSE, REFUSE),
    Case("TE.TE, chunked last", coded(_COW, "Transfer-encoding: chunked"), 400, REFUSE, REFUSE),
    Case("TE.TE, identity", coded("Transfer-Encoding: identity", _CHUNKED), 400, REFUSE, REFUSE),
    Case("coding, space before the colon", coded("Transfer-Encoding : chunked"), 400, REFUSE, REFUSE),
    Case("coding, tab before the colon", coded("Transfer-Encoding\t: chunked"), 400, REFUSE, REFUSE),
    Case("coding, vertical tab before the colon", coded("Transfer-Encoding\v: chunked"), 400, REFUSE, REFUSE),
    Case("coding, NUL before the colon", coded("Transfer-Encoding\0: chunked"), 400, REFUSE, REFUSE),
    Case("coding, two colons", coded("Transfer-Encoding:: chunked"), 400, REFUSE, REFUSE),
    Case("coding, no colon", coded("Transfer-Encoding chunked"), 400, REFUSE, REFUSE),
    Case("coding, space for the hyphen", coded("Transfer Encoding: chunked"), 400, REFUSE, REFUSE),
    Case("coding, soft hyphen", coded("Transfer\xadEncoding: chunked"), 400, REFUSE, REFUSE),
    Case("coding, folded", coded("Transfer-Encoding:", " chunked"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("coding, space before the name", coded(" Transfer-Encoding: chunked"), 400, ACCEPT, ACCEPT, FOLDED),
    Case("coding behind a LF", coded("X: a\nTransfer-Encoding: chunked"), 400, ACCEPT, REFUSE, LINE_END),
    Case("coding behind a CR", coded("X: a\rTransfer-Encoding: chunked"), 400, REFUSE, REFUSE),
    Case("coding behind a LF of a length", coded(f"{_LENGTH}\n{_CHUNKED}"), 400, ACCEPT, REFUSE, LINE_END),
]

SIZES = [
    Case("size", sized(b"5"), ACCEPT, ACCEPT, ACCEPT),
    Case("size in lower case", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), ACCEPT, ACCEPT, ACCEPT),
    Case("size of 16 digits", sized(b"5".zfill(16)), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"size {size!r}", sized(size), 400, REFUSE, REFUSE)
        for size in (
            b"",
            b"+5",
            b"-5",
            b"0x5",
            b"0X5",
            b"5h",
            b"0_5",
            b"5_",
            b" 5",
            b"\t5",
            b"5 ;a",
            b"5.0",
            b"5,5",
            b"g",
            b'"5"',
        )
    ),
    *(
        Case(f"size {size!r}", sized(size), 400, REFUSE, REFUSE)
        for size in (b"\xb2", b"5\xa0", b"5\0", b"\v5", b";a", b"5\r", b"5\r5", b"5\r\n\n")
    ),
    Case("size with a space behind", sized(b"5 "), 400, ACCEPT, REFUSE, SIZE_FORM),
    Case("size with a tab behind", sized(b"5\t"), 400, ACCEPT, REFUSE, SIZE_FORM),
    Case("size with LF and CR LF", sized(b"5\n"), 400, REFUSE, ACCEPT, CHUNK_LINE),
    Case("size of 17 digits", sized(b"5".zfill(17)), 400, ACCEPT, ACCEPT, SIZE_DIGITS),
    Case("size of 21 digits", sized(b"5".zfill(21)), 400, REFUSE, ACCEPT, SIZE_DIGITS),
    Case("size of 300 digits", sized(b"5".zfill(300)), 400, REFUSE, ACCEPT, SIZE_DIGITS),
    Case("size that overflows 64 bits to 5", sized(b"10000000000000005"), 400, WAIT, WAIT, SIZE_DIGITS),
    Case("size that is -1 in 64 bits", sized(b"f" * 16), 413, WAIT, WAIT, BODY_SIZE),
    Case("size over the limit", sized(b"2000001"), 413, WAIT, WAIT, BODY_SIZE),
]


def _extended(count: int) -> bytes:
    return chunked((b"5;" + b"a" * 254 + b"\r\nhello\r\n") * count + _END)


EXTENSIONS = [
    Case("extensions", sized(b'5;a;b=c;d="e;\\"f"'), ACCEPT, ACCEPT, ACCEPT),
    Case("line of 256 bytes", sized(b"5;" + b"a" * 254), ACCEPT, ACCEPT, ACCEPT),
    Case("line of 257 bytes", sized(b"5;" + b"a" * 255), 400, ACCEPT, ACCEPT, EXTENSION_SIZE),
    *(
        Case(f"extension {line!r}", sized(line), 400, ACCEPT, REFUSE, EXTENSION_FORM)
        for line in (
            b"5;",
            b"5;;",
            b"5; a",
            b"5;a ",
            b"5;a=",
            b"5;=b",
            b"5;a =b",
            b'5;a="b',
            b'5;a="b"c',
            b"5;a\0",
            b"5;a\rb",
        )
    ),
    Case("16320 bytes of extensions", _extended(64), ACCEPT, ACCEPT, ACCEPT),
    Case("16575 bytes of extensions", _extended(65), 400, ACCEPT, ACCEPT, EXTENSION_SIZE),
    Case("8-bit bytes in an extension", sized(b'5;a="\xe4"'), 400, ACCEPT, ACCEPT, EXTENSION_BYTES),
    Case("LF in an extension", sized(b"5;a\nb"), 400, REFUSE, REFUSE),
    Case("LF hides a chunk", chunked(b"2;\nxx\r\n4c\r\n" + b"x" * 76 + b"\r\n0\r\n\r\n"), 400, REFUSE, REFUSE),
    Case("LF ends an extension", sized(b"5;a\n"), 400, REFUSE, ACCEPT, CHUNK_LINE),
    Case("CR LF in a quoted extension", sized(b'5;a="\r\n"'), 400, REFUSE, REFUSE),
]

CHUNKS = [
    *(
        Case(f"chunk {chunk!r}", chunked(chunk + _END), 400, REFUSE, REFUSE)
        for chunk in (
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5\r\nhello\n",
            b"5\r\nhello\r",
            b"5\r\nhello\n\r",
            b"5\r\nhello",
        )
    ),
    *(
        Case(f"chunk {chunk!r}", chunked(chunk + _END), 400, REFUSE, REFUSE)
        for chunk in (b"5\r\nhello!\r\n", b"5\r\nhell\r\n", b"5\r\nhelloXX", b"5\r\nhello\r\n \r\n")
    ),
    Case("blank line before a size", chunked(b"\r\n5\r\nhello\r\n0\r\n\r\n"), 400, REFUSE, ACCEPT, CHUNK_LINE),
    Case("blank line between chunks", chunked(b"5\r\nhello\r\n\r\n0\r\n\r\n"), 400, REFUSE, ACCEPT, CHUNK_LINE),
    Case("LF ends the last size", chunked(b"5\r\nhello\r\n0\n\r\n"), 400, REFUSE, WAIT, CHUNK_LINE),
    Case("LF ends the body", chunked(b"5\r\nhello\r\n0\r\n\n"), 400, ACCEPT, WAIT, CHUNK_LINE),
    Case("LF ends every line", chunked(b"5\nhello\n0\n\n"), 400, WAIT, WAIT, CHUNK_LINE),
    Case("CR before the end of the body", chunked(b"0\r\n\rX\r\n\r\n"), 400, REFUSE, ACCEPT, CHUNK_LINE),
]

TRAILERS = [
    Case("trailer", trailer("X-A: b", "X-B:", "X: \xe4"), ACCEPT, ACCEPT, ACCEPT),
    Case("Content_Length in a trailer", trailer("Content_Length: 5"), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"trailer {line!r}", trailer(line), 400, REFUSE, ACCEPT, TRAILER_FORM)
        for line in (
            "bad",
            ": a",
            "X A: b",
            "X : b",
            "X\xe4: b",
            " X: b",
            "X: \0",
            "X: b\rY: c",
            "X: b\r",
            "GET / HTTP/1.1",
        )
    ),
    *(
        Case(f"trailer {line!r}", trailer(line), 400, ACCEPT, ACCEPT, TRAILER_FORM)
        for line in ("X: a\r\n b", "X: a\r\n\tb", "X: \1", "X: \x7f", "X: b\nY: c", "X: b\n")
    ),
    *(
        Case(f"{name} in a trailer", trailer(f"{name}: 5"), 400, ACCEPT, ACCEPT, TRAILER_NAMES)
        for name in (
            "content-length",
            "Host",
            "Connection",
            "Trailer",
            "TE",
            "Upgrade",
            "Expect",
            "Authorization",
            "Cookie",
        )
    ),
    *(
        Case(f"{name} in a trailer", trailer(f"{name}: 5"), 400, ACCEPT, ACCEPT, TRAILER_NAMES)
        for name in ("Content-Type", "Content-Encoding", "Content-Range", "Cache-Control", "Range")
    ),
    Case("Transfer-Encoding in a trailer", trailer("Transfer-Encoding: chunked"), 400, ACCEPT, ACCEPT, TRAILER_NAMES),
    Case("request behind a trailer", trailer("X: a", "GET / HTTP/1.1", "Y: b"), 400, REFUSE, ACCEPT, TRAILER_FORM),
    Case("trailers of 8192 bytes", trailer("X: " + "a" * 8187), ACCEPT, ACCEPT, ACCEPT),
    Case("trailers of 8193 bytes", trailer("X: " + "a" * 8188), 400, ACCEPT, ACCEPT, TRAILER_SIZE),
    Case("many trailers", trailer(*["X: a"] * 1366), 400, ACCEPT, ACCEPT, TRAILER_SIZE),
]


def _expecting(value: str, first: str = "POST / HTTP/1.1") -> bytes:
    return head(f"Expect: {value}", "Content-Length: 1", first=first) + b"a"


EXPECTATIONS = [
    Case("100-continue", _expecting("100-continue"), ACCEPT, ACCEPT, ACCEPT),
    Case("100-Continue", _expecting("100-Continue"), ACCEPT, ACCEPT, ACCEPT),
    Case("100-continue without a body", head("Expect: 100-continue"), ACCEPT, ACCEPT, ACCEPT),
    *(
        Case(f"Expect: {value}", _expecting(value), 417, ACCEPT, ACCEPT, EXPECTATION)
        for value in ("tea", "", "100-continue, tea", "100-continue;a=b", "101-continue", "100-continued")
    ),
    Case("Expect: tea without a body", head("Expect: tea"), 417, ACCEPT, ACCEPT, EXPECTATION),
    Case("Expect: tea in 1.0", _expecting("tea", first="POST / HTTP/1.0"), ACCEPT, ACCEPT, ACCEPT),
    Case("two Expects", head("Expect: 100-continue", "Expect: 100-continue"), 400, ACCEPT, ACCEPT, EXPECTED_TWICE),
]

CASES = [*LENGTHS, *TWO_FRAMINGS_OF_A_BODY, *CODINGS, *SIZES, *EXTENSIONS, *CHUNKS, *TRAILERS, *EXPECTATIONS]
