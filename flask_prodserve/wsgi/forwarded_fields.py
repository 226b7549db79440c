"""Reads and checks X-Forwarded-* and Forwarded, the fields in which proxies describe a request.
Pure: text in, an :class:`Origin` out.

Rules:

- A list is read from its right end, which the peer wrote, and only as far as trusted proxies wrote
  it. Everything left of that came from the client. An empty member keeps its place: some hop said
  nothing.
- If n trusted proxies were passed (the peer is one, so n >= 1), the n-th value from the right
  counts, or the leftmost if there are fewer: proxies append or replace.
- An unreadable value from a trusted proxy raises :class:`MalformedFieldError`; a guess would give a
  wrong URL. The one exception is X-Forwarded-For, in which free text is common: an entry that is
  not an address ends the walk at the last good hop.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

IsProxy = Callable[[str], bool]
"""Tells whether the address that a trusted proxy named is another trusted proxy."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

_CACHED_ADDRESSES = 1024

_IPV6 = r"[0-9a-f.]*:[0-9a-f:.]*"

# RFC 7239, section 6:  node = nodename [ ":" node-port ]
#   nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
#   node-port = 1*5DIGIT / obfport;  obfnode, obfport = "_" 1*( ALPHA / DIGIT / "." / "_" / "-" )
# A zone in the brackets, which proxies write for link-local clients, means nothing on another
# machine and is dropped.
_NODE = re.compile(
    rf"(?:(?P<ipv4>[0-9.]+)|\[(?P<ipv6>{_IPV6})(?:%[0-9a-z._~-]+)?\]|unknown|_[0-9a-z._-]+)"
    r"(?::(?:(?P<port>[0-9]{1,5})|_[0-9a-z._-]+))?",
    re.IGNORECASE | re.ASCII,
)

# RFC 9110, section 7.2:  Host = uri-host [ ":" port ]
# Names are those that DNS can hold, and "_", as in Docker's service names.
_HOST = re.compile(
    rf"(?P<name>[0-9a-z_][0-9a-z_.-]*|\[(?P<ipv6>{_IPV6})\])(?::(?P<port>[0-9]{{1,5}}))?", re.IGNORECASE | re.ASCII
)

_PORT = re.compile(r"[0-9]{1,5}")

# Segments other than "." and "..", and never "//", which a browser reads as the start of another
# host. Nothing percent-encoded: SCRIPT_NAME is a decoded path (PEP 3333), and a prefix does not
# need encoding.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[0-9A-Za-z._~@:+-]+)*/?")

# RFC 7239, section 4:  Forwarded = 1#forwarded-element;  forwarded-element = [ forwarded-pair ] *(
# ";" [ forwarded-pair ] ) forwarded-pair = token "=" ( token / quoted-string )
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(
    rf"(?P<name>{_NAME})=(?:(?P<token>{_NAME})"
    r'|"(?P<quoted>(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)")'
)
_DELIMITER = re.compile(r"(?P<next_pair>;)|[ \t]*,[ \t]*")


class MalformedFieldError(Exception):
    """A trusted proxy sent a *value* in *field* (a lower-case name) that cannot be used."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(field, value)
        self.field = field
        self.value = value


class Node(NamedTuple):
    """A client or proxy as its neighbour saw it: an address as :mod:`ipaddress` writes it, and
    ``""`` for an unknown port.
    """

    address: str
    port: str


class Origin(NamedTuple):
    """The request as the client sent it to the first proxy. ``None`` and ``""`` stand for unknown;
    *port* may be without *host*.
    """

    client: Node | None = None
    scheme: str = ""
    host: str = ""
    port: str = ""
    prefix: str = ""


def read_x_forwarded(given: Mapping[str, str], is_proxy: IsProxy) -> Origin:
    """Read the X-Forwarded-* fields in *given*, by lower-case name."""
    client, hops = None, 1
    if chain := given.get("x-forwarded-for"):
        client, hops = _walk(map(_list_node, reversed(_members(chain))), is_proxy)

    def outermost(field: str) -> tuple[str, str]:
        text = given.get(field, "")
        if "," not in text:
            return field, text
        values = _members(text)
        return field, values[-min(hops, len(values))]

    host, port_of_host = _host(*outermost("x-forwarded-host"))
    return Origin(
        client,
        _scheme(*outermost("x-forwarded-proto")),
        host,
        _port(*outermost("x-forwarded-port")) or port_of_host,
        _prefix(*outermost("x-forwarded-prefix")),
    )


def read_forwarded(text: str, is_proxy: IsProxy) -> Origin:
    """Read *for*, *proto* and *host* of the Forwarded field (RFC 7239)."""
    elements = _elements(text)
    client, hops = _walk((_element_node(element) for element in reversed(elements)), is_proxy)

    def outermost(name: str) -> tuple[str, str]:
        return "forwarded", next((element[name] for element in elements[-hops:] if name in element), "")

    host, port = _host(*outermost("host"))
    return Origin(client, _scheme(*outermost("proto")), host, port)


def split_host(text: str) -> tuple[str, str] | None:
    """Split a Host value into name (IPv6 in brackets) and port (``""`` for none). Return ``None``
    if it is not valid.
    """
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    try:
        if match["ipv6"]:
            _address(match["ipv6"])
        return match["name"], _valid_port(match["port"]) if match["port"] else ""
    except ValueError:
        return None


def _walk(nodes: Iterable[Node | None], is_proxy: IsProxy) -> tuple[Node | None, int]:
    """Walk from the peer towards the client. *nodes* has what each hop says about the one before
    it, or ``None``.

    Returns the last known node, and the number of trusted proxies passed.
    """
    client = None
    hops = 0
    for node in nodes:
        hops += 1  # the hop that wrote this is trusted, else the walk has ended
        if node is None:
            break
        client = node
        if not is_proxy(node.address):
            break
    return client, hops


def _members(text: str) -> list[str]:
    return [member.strip(" \t") for member in text.split(",")]


def _list_node(text: str) -> Node | None:
    """Read an entry of X-Forwarded-For: as in Forwarded, but IPv6 may come without brackets, then
    without a port.
    """
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    try:
        return _node(text)
    except ValueError:
        return None


def _element_node(element: Mapping[str, str]) -> Node | None:
    if "for" not in element:
        return None
    try:
        return _node(element["for"])
    except ValueError:
        raise MalformedFieldError("forwarded", element["for"]) from None


def _node(text: str) -> Node | None:
    """Read a node; ``None`` if it is hidden. Raises ValueError if it is malformed."""
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError("no node")
    address = match["ipv4"] or match["ipv6"]
    if address is None:
        return None
    return Node(_address(address), _valid_port(match["port"]) if match["port"] else "")


@lru_cache(maxsize=_CACHED_ADDRESSES)
def _address(text: str) -> str:
    """Normalize an address; an IPv4-mapped IPv6 address becomes the IPv4 address. Raises ValueError
    if it is malformed.
    """
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _valid_port(digits: str) -> str:
    """Normalize a port. Raises ValueError if it is not 1 to 65535."""
    port = int(digits)
    if not 1 <= port <= 65535:
        raise ValueError("no port")
    return str(port)


def _scheme(field: str, value: str) -> str:
    if not value:
        return ""
    try:
        return _SCHEMES[value.lower()]
    except KeyError:
        raise MalformedFieldError(field, value) from None


def _host(field: str, value: str) -> tuple[str, str]:
    if not value:
        return "", ""
    host = split_host(value)
    if host is None:
        raise MalformedFieldError(field, value)
    return host


def _port(field: str, value: str) -> str:
    if not value:
        return ""
    try:
        if _PORT.fullmatch(value):
            return _valid_port(value)
    except ValueError:
        pass
    raise MalformedFieldError(field, value)


def _prefix(field: str, value: str) -> str:
    if not value:
        return ""
    if not _PREFIX.fullmatch(value):
        raise MalformedFieldError(field, value)
    return value.rstrip("/")


def _elements(text: str) -> list[dict[str, str]]:
    """Read the elements of Forwarded as parameters by lower-case name, each at most once in an
    element.
    """
    elements: list[dict[str, str]] = [{}]
    position = 0
    while True:
        if pair := _PAIR.match(text, position):
            name = pair["name"].lower()
            if name in elements[-1]:
                raise MalformedFieldError("forwarded", text)
            elements[-1][name] = pair["token"] or re.sub(r"\\(.)", r"\1", pair["quoted"])
            position = pair.end()
        if position == len(text):
            return elements
        delimiter = _DELIMITER.match(text, position)
        if delimiter is None:
            raise MalformedFieldError("forwarded", text)
        if not delimiter["next_pair"]:
            elements.append({})
        position = delimiter.end()
