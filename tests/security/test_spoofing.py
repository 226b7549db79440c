"""The spoofing matrix: who connects, and how, by what it says of itself; and what the app sees of that.

Each case is a connection to a real server, and two requests on it: one without the fields, and one with them.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, request

import proxy_header
from certificates import Pair
from flask_prodserve.wsgi.forwarded import MISLEADING_KEYS
from proxy_header import LOCAL, PROXY, UNIX, UNSPECIFIED, frame
from serving import Served, in_thread
from wire import Response, Wire

NEIGHBOUR, STRANGER = "127.0.0.1", "127.0.0.2"
CLIENT = "203.0.113.9"
INNER = "10.0.0.1"
"""A proxy between the load balancer and the server, or the other way round: trusted."""
NETWORK = "10.0.0.0/8"


@dataclass(frozen=True)
class Way:
    """How somebody connects: to a server that trusts *trusted*, from *source* (None: over a Unix socket), with a PROXY *header* before all
    else. *address* is who the server takes it for.
    """

    trusted: tuple[str, ...]
    source: str | None
    address: str
    header: bytes = b""
    tls: bool = False


BELIEVED: dict[str, Way] = {
    "TCP": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, NEIGHBOUR),
    "TCP, all": Way(("*", NETWORK), STRANGER, STRANGER),
    "TLS": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, NEIGHBOUR, tls=True),
    "Unix": Way(("unix", NETWORK), None, ""),
    "Unix, all": Way(("*", NETWORK), None, ""),
    "Unix, TLS": Way(("unix", NETWORK), None, "", tls=True),
    "v1, a proxy": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, INNER, proxy_header.line(INNER)),
    "v2, a proxy": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, INNER, proxy_header.binary(INNER)),
    "v1, a mapped proxy": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, INNER, proxy_header.line(f"::ffff:{INNER}")),
    "v2, a proxy, TLS": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, INNER, proxy_header.binary(INNER), tls=True),
    "v2, a proxy, Unix": Way(("unix", NETWORK), None, INNER, proxy_header.binary(INNER)),
    "v2, LOCAL": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, NEIGHBOUR, frame(LOCAL, UNSPECIFIED)),
}

NOT_BELIEVED: dict[str, Way] = {
    "TCP": Way((NEIGHBOUR, NETWORK, "unix"), STRANGER, STRANGER),
    "TCP, nobody": Way((), NEIGHBOUR, NEIGHBOUR),
    "TCP, Unix alone": Way(("unix",), NEIGHBOUR, NEIGHBOUR),
    "TLS": Way((NEIGHBOUR, NETWORK, "unix"), STRANGER, STRANGER, tls=True),
    "Unix": Way((NEIGHBOUR, NETWORK), None, ""),
    "Unix, nobody": Way((), None, ""),
    "Unix, TLS": Way((NEIGHBOUR, NETWORK), None, "", tls=True),
    "v1": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, CLIENT, proxy_header.line(CLIENT)),
    "v2": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, CLIENT, proxy_header.binary(CLIENT)),
    "v2, IPv6": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, "2001:db8::9", proxy_header.binary("2001:db8::9")),
    "v1, TLS": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, CLIENT, proxy_header.line(CLIENT), tls=True),
    "v2, TLS": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, CLIENT, proxy_header.binary(CLIENT), tls=True),
    "v1, Unix": Way(("unix", NETWORK), None, CLIENT, proxy_header.line(CLIENT)),
    "v2, Unix": Way(("unix", NETWORK), None, CLIENT, proxy_header.binary(CLIENT)),
    "v1, all": Way(("*", NETWORK), STRANGER, CLIENT, proxy_header.line(CLIENT)),
    "v2, all, Unix": Way(("*", NETWORK), None, CLIENT, proxy_header.binary(CLIENT)),
    "v1, UNKNOWN": Way((NEIGHBOUR, NETWORK), NEIGHBOUR, NEIGHBOUR, b"PROXY UNKNOWN\r\n"),
    "v1, UNKNOWN, Unix": Way(("unix", NETWORK), None, "", b"PROXY UNKNOWN 10.0.0.1 10.0.0.1 1 1\r\n"),
    "v2, no family": Way(("*", NETWORK), NEIGHBOUR, NEIGHBOUR, frame(PROXY, UNSPECIFIED)),
    "v2, a Unix client": Way(("unix", NETWORK, NEIGHBOUR), NEIGHBOUR, NEIGHBOUR, frame(PROXY, UNIX, bytes(216))),
}

Fields = tuple[str, ...]

APPLIED: list[tuple[Fields, dict[str, object]]] = [
    # X-Forwarded-For, from its right end past every trusted hop.
    (("X-Forwarded-For: 198.51.100.1",), {"address": "198.51.100.1"}),
    (("x-forwarded-FOR:198.51.100.1\t",), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 198.51.100.1:4711",), {"address": "198.51.100.1", "port": "4711"}),
    (("X-Forwarded-For: 2001:db8::1",), {"address": "2001:db8::1"}),
    (("X-Forwarded-For: [2001:DB8::0:1]:4711",), {"address": "2001:db8::1", "port": "4711"}),
    (("X-Forwarded-For: ::ffff:198.51.100.1",), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 6.6.6.6, 198.51.100.1",), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 198.51.100.1"), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 6.6.6.6, 198.51.100.1, 10.0.0.2",), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 6.6.6.6, 198.51.100.1", "X-Forwarded-For: 10.0.0.2,10.0.0.3:80"), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 10.6.6.6, 198.51.100.1, ::ffff:10.0.0.2",), {"address": "198.51.100.1"}),
    (("X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.2",), {"address": "10.0.0.2"}),
    (("X-Forwarded-For: 6.6.6.6, _hidden, 10.0.0.2",), {"address": "10.0.0.2"}),
    (('X-Forwarded-For: "6.6.6.6, 10.0.0.2",10.0.0.3',), {"address": "10.0.0.3"}),
    # Nobody can say what these name, so they name nobody.
    *(
        (((f"X-Forwarded-For: 6.6.6.6, {member}"),), {})
        for member in ("unknown", "_hidden", "", "evil", "1.2.3", "[::1")
    ),
    # What the URL was, of lists of the same length and of others.
    (("X-Forwarded-Proto: https",), {"scheme": "https"}),
    (("X-Forwarded-Proto: http",), {"scheme": "http"}),
    (("X-Forwarded-Host: shop.example",), {"host": "shop.example"}),
    (("X-Forwarded-Host: shop.example:8443",), {"host": "shop.example:8443"}),
    (("X-Forwarded-Host: [2001:db8::1]:8443",), {"host": "[2001:db8::1]:8443"}),
    (("X-Forwarded-Port: 8443",), {"host": "test:8443"}),
    (("X-Forwarded-Prefix: /shop",), {"root": "/shop"}),
    (("X-Forwarded-Proto: http, https",), {"scheme": "https"}),
    (("X-Forwarded-Proto: http", "X-Forwarded-Proto: https"), {"scheme": "https"}),
    (("X-Forwarded-Host: evil.example, shop.example",), {"host": "shop.example"}),
    (("X-Forwarded-Port: 666, 8443",), {"host": "test:8443"}),
    (("X-Forwarded-Prefix: /evil, /shop",), {"root": "/shop"}),
    (
        ("X-Forwarded-For: 6.6.6.6, 198.51.100.1, 10.0.0.2", "X-Forwarded-Host: evil.example, shop.example, inner"),
        {"address": "198.51.100.1", "host": "shop.example"},
    ),
    (
        (
            "X-Forwarded-For: 198.51.100.1, 10.0.0.2",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: a.example, b.example",
        ),
        {"address": "198.51.100.1", "scheme": "https", "host": "a.example"},
    ),
    (
        ("X-Forwarded-For: 198.51.100.1", "X-Forwarded-Host: evil.example, worse.example, shop.example"),
        {"address": "198.51.100.1", "host": "shop.example"},
    ),
    # Forwarded.
    (("Forwarded: for=198.51.100.1",), {"address": "198.51.100.1"}),
    (("Forwarded: for=6.6.6.6", "Forwarded: for=198.51.100.1"), {"address": "198.51.100.1"}),
    (('Forwarded: For="[2001:db8::1]:4711"',), {"address": "2001:db8::1", "port": "4711"}),
    (('Forwarded: for="198.51.100.1:_port"',), {"address": "198.51.100.1"}),
    (
        (
            'Forwarded: for=6.6.6.6;host=evil.example, for=198.51.100.1;proto=https;host="shop.example:8443", for=10.0.0.2',
        ),
        {"address": "198.51.100.1", "scheme": "https", "host": "shop.example:8443"},
    ),
    (('Forwarded: for=6.6.6.6;x="a, for=7.7.7.7", for=198.51.100.1',), {"address": "198.51.100.1"}),
    (('Forwarded: for=198.51.100.1;x="a, for=6.6.6.6"',), {"address": "198.51.100.1"}),
    (('Forwarded: for=6.6.6.6, for="198.51.100.1";x="\\", for=7.7.7.7"',), {"address": "198.51.100.1"}),
    (("Forwarded: for=6.6.6.6, for=_hidden", "Forwarded: for=10.0.0.2"), {"address": "10.0.0.2"}),
    (("Forwarded: for=6.6.6.6, for=unknown",), {}),
    (("Forwarded: for=6.6.6.6;proto=https, by=10.0.0.9",), {}),
    # X-Forwarded-* beside it: Forwarded is the client's.
    (("X-Forwarded-For: 198.51.100.1", "Forwarded: for=6.6.6.6;host=evil.example"), {"address": "198.51.100.1"}),
    (("X-Forwarded-Host: shop.example", "Forwarded: for=6.6.6.6, for="), {"host": "shop.example"}),
]
"""Fields, and what they change where the sender is believed: nothing else changes, and none of them reaches the app."""

MALFORMED: list[Fields] = [
    ("X-Forwarded-Proto: gopher",),
    ("X-Forwarded-Proto: https;",),
    ("X-Forwarded-Host: evil.example/",),
    ("X-Forwarded-Host: user@evil.example",),
    ("X-Forwarded-Host: evil.example:0",),
    ("X-Forwarded-Host: [::1",),
    ("X-Forwarded-Port: 65536",),
    ("X-Forwarded-Port: \xb2",),
    ("X-Forwarded-Prefix: //evil.example",),
    ("X-Forwarded-Prefix: /shop/../admin",),
    ("X-Forwarded-Prefix: shop",),
    ("Forwarded: for=",),
    ('Forwarded: for="198.51.100.1',),
    ("Forwarded: for=2001:db8::1",),
    ("Forwarded: for=198.51.100.1;for=6.6.6.6",),
    ("Forwarded: for = 198.51.100.1",),
    # The client's end of a list that a proxy has written on, which takes the proxy's words into its own.
    ('Forwarded: for=6.6.6.6;x="', 'Forwarded: for="198.51.100.1"'),
]

IGNORED: list[Fields] = [
    # In a WSGI environment they would pass for those with "-".
    ("X_Forwarded_For: 6.6.6.6",),
    ("X-Forwarded_For: 6.6.6.6",),
    ("X_Forwarded-Proto: gopher",),
    ("X_Real_IP: 6.6.6.6",),
    ("HTTP_X_FORWARDED_FOR: 6.6.6.6",),
    ("REMOTE_ADDR: 6.6.6.6",),
]
"""Nothing of this reaches anybody, whoever sends it."""

REFUSED: list[Fields] = [
    ("Connection: X-Forwarded-For", "X-Forwarded-For: 198.51.100.1"),
    ("Connection: close, forwarded",),
    ("Connection: x-real-ip",),
    ("X-Forwarded-For : 198.51.100.1",),
    ("X-Forwarded-For: 198.51.100.1\r\n , 6.6.6.6",),
    ("X-Forwarded-For: 198.51.100.1\nX-Forwarded-For: 6.6.6.6",),
    ("X-Forwarded-For: 198.51.100.1\0",),
    ("Host: evil.example",),
]
"""Two readers could read this in two ways, so nobody gets to."""

LEFT_ALONE = {"CF-Connecting-IP": "6.6.6.6", "True-Client-IP": "6.6.6.6", "Fly-Client-IP": "6.6.6.6", "Via": "1.1 evil"}
"""Nobody reads these without one vendor's network in mind."""


def make_app() -> Flask:
    app = Flask("spoofed")

    @app.get("/")
    def seen() -> Any:
        named = {key.removeprefix("HTTP_"): value for key, value in request.environ.items() if key in MISLEADING_KEYS}
        return jsonify(
            address=request.remote_addr,
            port=request.environ.get("REMOTE_PORT"),
            scheme=request.scheme,
            host=request.host,
            root=request.root_path,
            url=request.url,
            named=named,
            others={
                name: value
                for name, value in request.headers
                if name not in ("Host", "Connection") and name.upper().replace("-", "_") not in named
            },
        )

    return app


class Servers:
    """Starts servers as they are needed, and keeps them."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, pair: Pair) -> None:
        self._stack = stack
        self._folder = folder
        self._pair = pair
        self._running: dict[tuple[object, ...], Served] = {}

    def serving(self, way: Way) -> Served:
        options: dict[str, object] = {"proxy_protocol": bool(way.header)}
        if way.trusted:
            options["trusted_proxies"] = way.trusted
        if way.tls:
            options |= self._pair.settings
        key = tuple(options.items())
        if key not in self._running:
            bind = [f"{NEIGHBOUR}:0", f"unix:{self._folder}/{len(self._running)}"]
            self._running[key] = self._stack.enter_context(in_thread(make_app(), bind=bind, **options))
        return self._running[key]


@pytest.fixture(scope="module")
def servers(localhost: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        yield Servers(stack, tmp_path_factory.mktemp("spoofing"), localhost)


@contextlib.contextmanager
def connected(servers: Servers, way: Way) -> Iterator[Wire]:
    tcp, unix = servers.serving(way).addresses
    with Wire(unix if way.source is None else tcp, way.source) as wire:
        wire.send(way.header)
        if way.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            wire.socket = context.wrap_socket(wire.socket)
        yield wire


def ask(wire: Wire, fields: Fields = ()) -> Response:
    wire.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *fields, "", ""]).encode("latin-1"))
    return wire.response()


def seen(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.body
    environment: dict[str, Any] = json.loads(response.body)
    return environment


def sender(way: Way, wire: Wire) -> dict[str, Any]:
    """What the app sees of a request without fields."""
    environment = seen(ask(wire))
    scheme = "https" if way.tls else "http"
    assert (environment["address"] or "", environment["url"]) == (way.address, f"{scheme}://test/")
    assert environment["named"] == environment["others"] == {}
    return environment


SAID: list[Fields] = [fields for fields, _ in APPLIED] + MALFORMED
OTHERS = [key.removeprefix("HTTP_").replace("_", "-").title() for key in sorted(MISLEADING_KEYS)]


@pytest.mark.parametrize("way", NOT_BELIEVED.values(), ids=NOT_BELIEVED)
def test_not_believed(servers: Servers, way: Way) -> None:
    """Who is not trusted can say what it likes of itself: the app sees what it would see without."""
    with connected(servers, way) as wire:
        expected = sender(way, wire)
        for fields in [*SAID, *((f"{name}: 6.6.6.6",) for name in OTHERS)]:
            assert seen(ask(wire, fields)) == expected, fields


@pytest.mark.parametrize(("fields", "changes"), APPLIED, ids=lambda value: "; ".join(value) or "nothing")
@pytest.mark.parametrize("way", BELIEVED.values(), ids=BELIEVED)
def test_believed(servers: Servers, way: Way, fields: Fields, changes: dict[str, object]) -> None:
    """What a trusted sender says is applied, each field as far as trusted proxies wrote it, for this request only."""
    with connected(servers, way) as wire:
        unchanged = sender(way, wire)
        expected = unchanged | ({"port": None} if "address" in changes else {}) | changes
        expected["url"] = "{scheme}://{host}{root}/".format(**expected)
        assert seen(ask(wire, fields)) == expected
        assert seen(ask(wire)) == unchanged


@pytest.mark.parametrize("fields", MALFORMED, ids="; ".join)
@pytest.mark.parametrize("way", BELIEVED.values(), ids=BELIEVED)
def test_malformed(servers: Servers, way: Way, fields: Fields) -> None:
    """What a trusted proxy says and nobody can make sense of is answered with 400, and the connection goes on."""
    with connected(servers, way) as wire:
        unchanged = sender(way, wire)
        assert ask(wire, fields).status == 400
        assert seen(ask(wire)) == unchanged


@pytest.mark.parametrize("way", [*BELIEVED.values(), *NOT_BELIEVED.values()])
def test_whoever_says_it(servers: Servers, way: Way) -> None:
    """Names with underscores reach nobody, fields of a vendor's network reach the app as they are, and what is ambiguous is refused."""
    with connected(servers, way) as wire:
        unchanged = sender(way, wire)
        for fields in IGNORED:
            assert seen(ask(wire, fields)) == unchanged
        lines = tuple(f"{name}: {value}" for name, value in LEFT_ALONE.items())
        others = {name.title(): value for name, value in LEFT_ALONE.items()}
        assert seen(ask(wire, lines)) == unchanged | {"others": others}
    for fields in REFUSED:
        with connected(servers, way) as wire:
            assert ask(wire, fields).status == 400


@pytest.mark.parametrize("header", [proxy_header.line, proxy_header.binary])
@pytest.mark.parametrize("way", [way for way in NOT_BELIEVED.values() if not way.tls])
def test_a_header_of_ones_own(servers: Servers, way: Way, header: Any) -> None:
    """A PROXY header of a client's own is a malformed request: behind the balancer's, before a request, and between two."""
    for before in (b"", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"):
        with connected(servers, way) as wire:
            wire.send(before + header("6.6.6.6") + b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            if before:
                seen(wire.response())
            assert wire.response().status == 400


@pytest.mark.parametrize(
    "applied",
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "forwarded"],
)
def test_fields_that_the_proxy_does_not_set(applied: str) -> None:
    """Of a trusted proxy's fields only those are applied that PROXY_HEADERS names; the others are removed."""
    said = {
        "X-Forwarded-For": "198.51.100.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-Port": "8443",
        "X-Forwarded-Prefix": "/shop",
        "Forwarded": "for=198.51.100.2",
    }
    changes: dict[str, dict[str, object]] = {
        "x-forwarded-for": {"address": "198.51.100.1", "port": None},
        "x-forwarded-proto": {"scheme": "https"},
        "x-forwarded-host": {"host": "shop.example"},
        "x-forwarded-port": {"host": "test:8443"},
        "x-forwarded-prefix": {"root": "/shop"},
        "forwarded": {"address": "198.51.100.2", "port": None},
    }
    with (
        in_thread(make_app(), trusted_proxies=NEIGHBOUR, proxy_headers=applied) as served,
        Wire(served.address) as wire,
    ):
        expected = seen(ask(wire)) | changes[applied]
        expected["url"] = "{scheme}://{host}{root}/".format(**expected)
        assert seen(ask(wire, tuple(f"{name}: {value}" for name, value in said.items()))) == expected
