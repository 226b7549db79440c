"""What a row of the tables of verdicts is made of, and every reason for which ours may differ from those of h11 and waitress.

A reason names the section that it stands on, and admits where it goes beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """*message* is a whole request. *ours* is ACCEPT or a status; *h11* and *waitress* are ACCEPT, REFUSE or WAIT.

    *reason* says why the verdicts differ, and is empty where they do not.
    """

    name: str
    message: bytes
    ours: str | int
    h11: str
    waitress: str
    reason: str = ""


def head(*lines: str, first: str = "GET / HTTP/1.1", host: str | None = "Host: test") -> bytes:
    return "\r\n".join([first, *([host] if host is not None else []), *lines, "", ""]).encode("latin-1")


def line(first: str) -> bytes:
    return head(first=first)


def post(*lines: str, body: bytes = b"") -> bytes:
    return head(*lines, first="POST / HTTP/1.1") + body


def coded(*lines: str) -> bytes:
    """A body of no chunks behind what *lines* say about it."""
    return post(*lines, body=b"0\r\n\r\n")


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


def sized(size: bytes) -> bytes:
    """*size* where the size of a chunk of five bytes belongs."""
    return chunked(size + b"\r\nhello\r\n0\r\n\r\n")


def trailer(*lines: str) -> bytes:
    return chunked("\r\n".join(["0", *lines, "", ""]).encode("latin-1"))


LINE_END = (
    "RFC 9112, section 2.2: a recipient may take a bare LF for CR LF; who does and who does not see different lines"
)
BARE_CR = "RFC 9112, section 2.2: a bare CR makes a message invalid, or is to be replaced; nothing is repaired here"
EMPTY_LINES = "RFC 9112, section 2.2: at least one empty line before a request is to be ignored; four are"
TOO_MANY_EMPTY_LINES = (
    "RFC 9112, section 2.2: one empty line before a request is to be ignored; more than four are no accident"
)
CONTROL = (
    "RFC 9110, section 5.5: a value with controls may be kept or refused; what logs and apps do with them is unknown"
)
TARGET_CONTROL = "RFC 9112, section 3.2: no form of a target has controls; the request line is not repaired"
WHITE_SPACE = (
    "RFC 9112, section 3: request-line = method SP request-target SP HTTP-version; the lenient parsing is not done"
)
NO_VERSION = "RFC 9112, section 3: a request line has three parts; HTTP/0.9, which has two, is not spoken"
VERSION = (
    "RFC 9110, section 15.6.6: a version may be refused. Section 2.5 would have 1.2 read as 1.1; there is no 1.2, "
    "and behind 2.0 comes another protocol"
)
METHOD_CASE = (
    "RFC 9110, section 9.1: a method is case-sensitive, and get is not GET: which it does not know, the app says"
)
METHOD_LENGTH = "RFC 9112, section 3: a method longer than any that is known should be refused (501 there; 400 here)"
TARGET_LENGTH = "RFC 9112, section 3: 414 for what is longer than the server wants to parse"
FRAGMENT = "RFC 9112, section 3.2: no form of a target has a fragment (RFC 9110, section 7.1)"
TARGET_FORM = (
    "RFC 9112, section 3.2: a path, an absolute URL of http or https; authority form is CONNECT's, * is OPTIONS'"
)
NO_TUNNEL = "RFC 9110, section 15.6.2: 501 for what is not done: CONNECT (section 9.3.6) and TRACE (section 9.3.8)"
HOST_COUNT = "RFC 9112, section 3.2: 400 for a 1.1 request without Host and for any with several"
HOST_FORM = "RFC 9112, section 3.2: 400 for a Host that is no host and port (RFC 9110, section 7.2)"
HOST_STRICT = (
    "RFC 3986, section 3.2.2: the grammar of URIs has room for it, DNS and ports have not; apps build links from it"
)
AUTHORITY = "RFC 9112, section 3.2.2: an absolute target overrides Host; who reads which is unknown, so they must agree"
USER = "RFC 9110, section 4.2.4: a target with a user in it comes from an untrusted source or is an error"
FOLDED = "RFC 9112, section 5.2: 400 for a folded line, or unfold it; other readers see another field in it"
TOO_LARGE = "RFC 6585, section 5: 431 for fields that are too many or too large"
DOUBLED = (
    "RFC 9110, section 5.3: a field that is no list may come once; of two, one reader takes the first, one the last"
)
CONNECTION = "RFC 9110, section 7.6.1: an option must not name a field that is for the end; a proxy would take it away"
LENGTH_TWICE = (
    "RFC 9110, section 8.6: equal lengths are to be refused or read as one; two mean that two have framed the message"
)
LENGTH_DIGITS = "RFC 9110, section 8.6: large lengths must not overflow; more than 18 digits are refused unread"
BODY_SIZE = "RFC 9110, section 15.5.14: 413 as soon as the size is announced, before any of it is read"
TWO_FRAMINGS = (
    "RFC 9112, section 6.1: Content-Length with Transfer-Encoding may be refused, and ought to be taken for smuggling"
)
OLD_CODING = "RFC 9112, section 6.1: a coding in a 1.0 message must be taken for faulty framing"
CODING_FORM = (
    "RFC 9112, section 6.1: Transfer-Encoding is a list of codings, and an empty member says that two lists were joined"
)
CODED_TWICE = "RFC 9112, section 6.1: chunked must not be applied more than once"
SIZE_FORM = "RFC 9112, section 7.1: chunk-size = 1*HEXDIG, with nothing around it"
SIZE_DIGITS = "RFC 9112, section 7.1: large sizes must not overflow; more than 16 digits are refused unread"
CHUNK_LINE = "RFC 9112, section 7.1: CR LF, and nothing else, ends the lines of a chunked body"
EXTENSION_FORM = (
    "RFC 9112, section 7.1.1: extensions are tokens with values, or quoted texts; the white space around is not taken"
)
EXTENSION_BYTES = "RFC 9110, section 5.6.4: a quoted text may have 8-bit bytes; nobody sends any in an extension"
EXTENSION_SIZE = (
    "RFC 9112, section 7.1.1: the length of extensions, each and all, ought to be limited; nobody uses them"
)
TRAILER_FORM = "RFC 9112, section 7.1.2: trailers are field lines, and are held to the rules of those in a head"
TRAILER_NAMES = "RFC 9110, section 6.5.1: what frames, routes or authenticates a message must not come in its trailer"
TRAILER_SIZE = "RFC 6585, section 5: fields have a limit, in a trailer, too; they are checked and dropped (400 here)"
EXPECTATION = "RFC 9110, section 10.1.1: 417 for an expectation that is not understood"
EXPECTED_TWICE = "RFC 9110, section 10.1.1: Expect is a list, but its one member says nothing more when it comes twice"
