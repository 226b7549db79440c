from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Map, Rule
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request

from flask_prodserve.settings.groups.network import FORWARDED_FIELDS
from flask_prodserve.units import parse_trusted_peer
from flask_prodserve.wsgi.forwarded import MISLEADING_KEYS, Forwarded, PeerTrust
from profiles import sized

PROXY = "10.0.0.1"
OUTER_PROXY = "10.0.0.2"
CLIENT = "203.0.113.9"
STRANGER = "198.51.100.7"

# What a client writes to look like somebody else.
SPOOFS = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-By": "192.0.2.1",
    "X-Forwarded-Server": "evil.example",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Protocol": "ssl",
    "X-Forwarded-Scheme": "https",
    "X-Forwarded-Path": "/evil",
    "X-Forwarded-Uri": "/evil",
    "X-Forwarded-User": "admin",
    "X-Forwarded-Email": "admin@shop.example",
    "X-Forwarded-Groups": "admins",
    "X-Forwarded-Preferred-Username": "admin",
    "X-Forwarded-Access-Token": "secret",
    "X-Forwarded-Client-Cert": "Subject=admin",
    "X-Forwarded-Tls-Client-Cert": "MIIB",
    "X-Forwarded-Tls-Client-Cert-Info": "Subject=admin",
    "X-Original-Forwarded-For": "192.0.2.1",
    "X-Original-Host": "evil.example",
    "X-Client-IP": "192.0.2.1",
    "X-Cluster-Client-IP": "192.0.2.1",
    "Front-End-Https": "on",
    "X-Url-Scheme": "https",
    "X-Real-IP": "192.0.2.1",
    "X-Scheme": "https",
    "X-Script-Name": "/evil",
    "Forwarded": "for=192.0.2.1;proto=https;host=evil.example",
}


def as_variables(fields: Mapping[str, str]) -> dict[str, str]:
    """Header fields as a WSGI environment has them."""
    return {"HTTP_" + name.upper().replace("-", "_"): value for name, value in fields.items()}


class App:
    """Remembers the environment that it was called with."""

    environ: dict[str, Any] | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environ = environ
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]


@dataclass
class Answer:
    """What came back, and the environment that the app was called with, if it was."""

    status: str
    content_type: str
    body: str
    environ: dict[str, Any] | None

    @property
    def seen(self) -> dict[str, Any]:
        assert self.environ is not None, f"the app was not called: {self.body}"
        return self.environ

    @property
    def client(self) -> str:
        return str(self.seen["REMOTE_ADDR"])

    @property
    def url(self) -> str:
        return Request(self.seen).url

    @property
    def authority(self) -> tuple[str, str, str]:
        return self.seen["HTTP_HOST"], self.seen["SERVER_NAME"], self.seen["SERVER_PORT"]


def trust(*trusted: str) -> PeerTrust:
    return PeerTrust(tuple(parse_trusted_peer(peer) for peer in trusted))


def ask(
    fields: Mapping[str, str],
    *,
    peer: str = PROXY,
    trusted: Iterable[str] = ("10.0.0.0/8",),
    applied: Iterable[str] = FORWARDED_FIELDS,
    environ: Mapping[str, str | None] | None = None,
) -> Answer:
    """Send a request with header *fields* from *peer* through the middleware; *environ* changes (``None``: removes) variables."""
    app = App()
    request: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/path",
        "QUERY_STRING": "",
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "HTTP_HOST": "shop.example",
        "wsgi.url_scheme": "http",
        **as_variables(fields),
        **(environ or {}),
    }
    request = {name: value for name, value in request.items() if value is not None}
    body, status, headers = run_wsgi_app(Forwarded(app, trust(*trusted), frozenset(applied)), request, buffered=True)
    return Answer(status, headers["Content-Type"], b"".join(body).decode("ascii"), app.environ)


# Whom to trust.


@pytest.mark.parametrize(
    ("trusted", "peer", "expected"),
    [
        ((), PROXY, False),
        ((), "", False),
        (("10.0.0.0/8",), PROXY, True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "", False),
        (("10.0.0.1",), PROXY, True),
        (("10.0.0.1",), "10.0.0.10", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8",), "::ffff:11.0.0.1", False),
        (("::ffff:10.0.0.0/104",), "::ffff:10.0.0.1", True),
        (("::/0",), PROXY, False),
        (("fd00::/8",), "fd00::1", True),
        (("fd00::/8",), "2001:db8::1", False),
        (("fd00::1",), "fd00:0:0:0:0:0:0:1", True),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("fe80::1",), "fe80::1%eth0", True),
        (("fe80::2",), "fe80::1%eth0", False),
        (("unix",), "", True),
        (("unix",), PROXY, False),
        (("192.0.2.0/24", "unix", "::1"), "::1", True),
        (("*",), PROXY, True),
        (("*",), "2001:db8::1", True),
        (("*",), "", True),
        (("0.0.0.0/0",), "localhost", False),
    ],
)
def test_trusted_peers(trusted: tuple[str, ...], peer: str, expected: bool) -> None:
    """A peer is trusted if a network holds it, "unix" stands for those without an address, and "*" for all of them."""
    subject = trust(*trusted)
    assert [subject.covers(peer), subject.covers(peer)] == [expected, expected]  # looked up, and remembered


def test_star_does_not_make_proxies_of_addresses_in_a_field() -> None:
    """ "*" trusts who connects, and not who is named in a field."""
    assert not trust("*").is_proxy(PROXY)
    assert trust("*", "10.0.0.0/8").is_proxy(PROXY)


# Who may not be believed.


@pytest.mark.parametrize("name", SPOOFS)
@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (STRANGER, ()),
        (STRANGER, ("10.0.0.0/8", "unix")),
        ("", ()),
        ("", ("10.0.0.0/8",)),
        ("2001:db8::7", ("10.0.0.0/8", "fd00::/8")),
        ("::ffff:198.51.100.7", ("10.0.0.0/8",)),
    ],
)
def test_untrusted_peer_is_not_believed(name: str, peer: str, trusted: tuple[str, ...]) -> None:
    """Nothing that an untrusted peer says of itself changes or reaches the environment."""
    assert ask({name: SPOOFS[name]}, peer=peer, trusted=trusted).seen == ask({}, peer=peer, trusted=trusted).seen


def test_every_misleading_field_is_spoofed_here() -> None:
    """The matrix above leaves no field out."""
    assert as_variables(SPOOFS).keys() == MISLEADING_KEYS


@pytest.mark.parametrize(
    ("peer", "named"),
    [("127.0.0.1", "127.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1%eth0"), ("", "unix")],
)
def test_who_might_be_a_proxy(peer: str, named: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody has said whom to trust, the first peer on this machine or network that speaks as a proxy does is named, once."""
    request = {**ask({}).seen, "REMOTE_ADDR": peer, **as_variables({"X-Forwarded-For": CLIENT, "X-Real-IP": CLIENT})}
    middleware = Forwarded(App(), trust(), frozenset(FORWARDED_FIELDS), undecided=True)
    for address in ("11.0.0.1", peer, peer):
        run_wsgi_app(middleware, {**request, "REMOTE_ADDR": address})
    (record,) = caplog.records
    assert record.getMessage().startswith("removed X-Forwarded-For from ")
    assert record.getMessage().endswith(f"set TRUSTED_PROXIES={named}")


def test_whoever_has_decided_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """With TRUSTED_PROXIES set, and without such fields, nothing is said."""
    ask({"X-Forwarded-For": CLIENT}, peer="127.0.0.1")
    undecided = Forwarded(App(), trust(), frozenset(FORWARDED_FIELDS), undecided=True)
    run_wsgi_app(undecided, {**ask({}).seen, "REMOTE_ADDR": "127.0.0.1"})
    assert not caplog.records


def test_untrusted_junk_is_not_looked_at() -> None:
    """A malformed field of an untrusted peer is removed without an answer of 400."""
    answer = ask({"X-Forwarded-Proto": "gopher", "Forwarded": '"'}, peer=STRANGER)
    assert answer.status == "200 OK"
    assert answer.client == STRANGER


@pytest.mark.parametrize("name", SPOOFS)
@pytest.mark.parametrize("hops", [1, 2])
def test_client_behind_proxies_that_append_cannot_lie(name: str, hops: int) -> None:
    """With one or two proxies that append to each list, what the client wrote at its left end is not used."""
    appended = {
        "X-Forwarded-For": [CLIENT, OUTER_PROXY],
        "X-Forwarded-Proto": ["https", "http"],
        "X-Forwarded-Host": ["shop.example", "inner.example"],
        "X-Forwarded-Port": ["8443", "8080"],
        "X-Forwarded-Prefix": ["/shop", "/inner"],
        "Forwarded": [
            f"for={CLIENT};proto=https;host=shop.example",
            f"for={OUTER_PROXY};proto=http;host=inner.example",
        ],
    }
    # Without X-Forwarded-For nobody can tell how many proxies there were, so all of its kind come along.
    kind = [field for field in appended if (field == "Forwarded") == (name == "Forwarded")]
    honest = {field: ", ".join(appended[field][:hops]) for field in kind}
    if name in honest:
        spoofed = honest | {name: f"{SPOOFS[name]}, {honest[name]}"}
        assert ask(spoofed).seen == ask(honest).seen
    else:
        seen = ask(honest | {name: SPOOFS[name]}).seen
        del seen["HTTP_" + name.upper().replace("-", "_")]  # the app's own business
        assert seen == ask(honest).seen
    assert ask(honest).client == CLIENT
    assert ask(honest).seen["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("name", [name for name in SPOOFS if name.lower() in FORWARDED_FIELDS])
def test_field_that_is_not_to_be_applied_is_removed(name: str) -> None:
    """A field that the proxy is not said to set is removed, also when it comes from the proxy, and others are applied."""
    applied = [field for field in FORWARDED_FIELDS if field != name.lower()]
    honest = {"Forwarded": f"for={CLIENT}"} if name != "Forwarded" else {"X-Forwarded-For": CLIENT}
    answer = ask(honest | {name: SPOOFS[name]}, applied=applied)
    assert answer.seen == ask(honest).seen
    assert answer.client == CLIENT


def test_forwarded_is_ignored_beside_x_forwarded() -> None:
    """A client's Forwarded that the proxy passed on does not count, and is not even parsed, where the proxy sets X-Forwarded-*."""
    for spoof in (SPOOFS["Forwarded"], '"'):
        answer = ask({"X-Forwarded-Proto": "http", "Forwarded": spoof})
        assert (answer.client, answer.url) == (PROXY, "http://shop.example/path")
        assert "HTTP_FORWARDED" not in answer.seen


def test_proxy_fix_around_the_app_has_nothing_to_do() -> None:
    """An app that still has its ProxyFix sees what it would see without."""
    fields = {"X-Forwarded-For": CLIENT, "X-Forwarded-Prefix": "/shop", "X-Forwarded-Proto": "https"}
    app = App()
    fixed = ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
    run_wsgi_app(Forwarded(fixed, trust(PROXY), frozenset(FORWARDED_FIELDS)), ask({}).seen | as_variables(fields))
    assert app.environ is not None
    del app.environ["werkzeug.proxy_fix.orig"]
    assert app.environ == ask(fields).seen
    assert Request(app.environ).url == "https://shop.example/shop/path"


# Who the client is.


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (CLIENT, CLIENT),
        (f"192.0.2.1, {CLIENT}", CLIENT),
        (f"{CLIENT}, {OUTER_PROXY}", CLIENT),
        (f"192.0.2.1,{CLIENT},{OUTER_PROXY},10.0.0.3", CLIENT),
        (f"192.0.2.1, {OUTER_PROXY}, {CLIENT}", CLIENT),  # an internal address that the client made up
        (f"10.9.9.9,\t{OUTER_PROXY}", "10.9.9.9"),  # all trusted: a client inside
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("::ffff:203.0.113.9", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.2", CLIENT),
        # What is no address ends the walk at the last good hop.
        ("unknown", PROXY),
        (f"unknown, {OUTER_PROXY}", OUTER_PROXY),
        (f"{CLIENT}, unknown, {OUTER_PROXY}", OUTER_PROXY),
        (f"{CLIENT}, _hidden", PROXY),
        (f"{CLIENT},", PROXY),
        (f"{CLIENT}, , {OUTER_PROXY}", OUTER_PROXY),
        (f"{CLIENT} {OUTER_PROXY}", PROXY),
        ("", PROXY),
        (",", PROXY),
        ("localhost", PROXY),
        ("203.0.113", PROXY),
        ("203.0.113.256", PROXY),
        ("203.0.113.09", PROXY),
        ("203.0.113.9:", PROXY),
        ("203.0.113.9:99999", PROXY),
        ("203.0.113.9:http", PROXY),
        ("[203.0.113.9]", PROXY),
        ("[2001:db8::1", PROXY),
        ("2001:db8::1]", PROXY),
        ("[2001:db8::1]443", PROXY),
        ("2001:db8:::1", PROXY),
        ("fe80::1%<script>", PROXY),
        (f'"{CLIENT}"', PROXY),
        ("\xb2.0.0.1", PROXY),
        ("1" * 30000, PROXY),
    ],
)
def test_client_by_x_forwarded_for(chain: str, client: str) -> None:
    """The client is the first address from the right that is no trusted proxy, or the last one that could be read."""
    assert ask({"X-Forwarded-For": chain}).client == client


@pytest.mark.parametrize(
    ("chain", "client", "port"),
    [
        ("203.0.113.9:5678", CLIENT, "5678"),
        ("[2001:db8::1]:443", "2001:db8::1", "443"),
        (f"203.0.113.9:5678, {OUTER_PROXY}:80", CLIENT, "5678"),
        (f"203.0.113.9, {OUTER_PROXY}:80", CLIENT, None),
        ("unknown", PROXY, "50000"),
    ],
)
def test_client_port(chain: str, client: str, port: str | None) -> None:
    """REMOTE_PORT belongs to REMOTE_ADDR: it is the port that the proxy gave, or there is none."""
    answer = ask({"X-Forwarded-For": chain})
    assert (answer.client, answer.seen.get("REMOTE_PORT")) == (client, port)


@pytest.mark.parametrize("peer", ["", PROXY, "2001:db8::1"])
def test_star_takes_the_word_of_any_peer_but_not_of_its_client(peer: str) -> None:
    """With "*" the client is the address that the peer saw, whatever stands left of it, since that came with the request."""
    answer = ask(
        {"X-Forwarded-For": f"192.0.2.1, {CLIENT}", "X-Forwarded-Proto": "http, https"}, peer=peer, trusted=("*",)
    )
    assert (answer.client, answer.seen["wsgi.url_scheme"]) == (CLIENT, "https")


@pytest.mark.parametrize(
    ("peer", "everyone"),
    [
        (PROXY, ("0.0.0.0/0",)),
        (PROXY, ("0.0.0.0/1", "128.0.0.0/1")),
        (f"::ffff:{PROXY}", ("::ffff:0:0/96",)),
        ("fd00::1", ("::/0",)),
        (PROXY, ("0.0.0.0/0", "::/0", "fd00::/8")),
    ],
)
def test_network_of_everyone_is_like_a_star(peer: str, everyone: tuple[str, ...]) -> None:
    """A network that holds every address lets no client choose its own, as "*" does not."""
    for field in (f"192.0.2.1, {CLIENT}", f"2001:db8::1, {CLIENT}"):
        assert ask({"X-Forwarded-For": field}, peer=peer, trusted=everyone).client == CLIENT


def test_star_with_networks_looks_past_them() -> None:
    """With "*" and networks, addresses in these are passed as proxies."""
    assert ask({"X-Forwarded-For": f"192.0.2.1, {CLIENT}, {OUTER_PROXY}"}, trusted=("*", "10.0.0.0/8")).client == CLIENT


def test_unix_socket_peer_names_the_client() -> None:
    """A proxy on a Unix socket, which has no address itself, names the client."""
    peer: dict[str, str | None] = {"REMOTE_PORT": None}
    answer = ask({"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}, peer="", trusted=("unix",), environ=peer)
    assert (answer.client, answer.url) == (CLIENT, "https://shop.example/path")
    assert ask({}, peer="", trusted=("unix",), environ=peer).client == ""


# Which URL it asked for.


@pytest.mark.parametrize(
    ("fields", "host", "url", "authority"),
    [
        # Nothing said of the URL: nothing is changed.
        ({"X-Forwarded-For": CLIENT}, "shop.example:8000", "http://shop.example:8000", ("127.0.0.1", "8000")),
        # The proxy keeps Host.
        ({"X-Forwarded-Proto": "https"}, "shop.example", "https://shop.example", ("shop.example", "443")),
        ({"X-Forwarded-Proto": "https"}, "shop.example:8443", "https://shop.example:8443", ("shop.example", "8443")),
        ({"X-Forwarded-Proto": "https"}, "[::1]:8443", "https://[::1]:8443", ("[::1]", "8443")),
        ({"X-Forwarded-Proto": "https"}, "[::1]", "https://[::1]", ("[::1]", "443")),
        ({"X-Forwarded-Proto": "HTTPS"}, "shop.example", "https://shop.example", ("shop.example", "443")),
        ({"X-Forwarded-Proto": "wss"}, "shop.example", "https://shop.example", ("shop.example", "443")),
        ({"X-Forwarded-Proto": "ws"}, "shop.example", "http://shop.example", ("shop.example", "80")),
        ({"X-Forwarded-Proto": "http"}, "shop.example", "http://shop.example", ("shop.example", "80")),
        # The port beside it, which the scheme may imply.
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"},
            "shop.example",
            "https://shop.example",
            ("shop.example", "443"),
        ),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"},
            "shop.example:8000",
            "https://shop.example",
            ("shop.example", "443"),
        ),
        ({"X-Forwarded-Port": "8443"}, "shop.example", "http://shop.example:8443", ("shop.example", "8443")),
        ({"X-Forwarded-Port": "0080"}, "shop.example:8000", "http://shop.example", ("shop.example", "80")),
        ({"X-Forwarded-Port": "443"}, "shop.example", "http://shop.example:443", ("shop.example", "443")),
        ({"X-Forwarded-Port": "81"}, "[::1]:80", "http://[::1]:81", ("[::1]", "81")),
        # The proxy replaces Host.
        ({"X-Forwarded-Host": "shop.example"}, "app:8000", "http://shop.example", ("shop.example", "80")),
        ({"X-Forwarded-Host": "shop.example:81"}, "app:8000", "http://shop.example:81", ("shop.example", "81")),
        ({"X-Forwarded-Host": "[2001:db8::1]:81"}, "app", "http://[2001:db8::1]:81", ("[2001:db8::1]", "81")),
        (
            {"X-Forwarded-Host": "shop.example:81", "X-Forwarded-Port": "82"},
            "app",
            "http://shop.example:82",
            ("shop.example", "82"),
        ),
        (
            {"X-Forwarded-Host": "shop.example:443", "X-Forwarded-Proto": "https"},
            "app",
            "https://shop.example",
            ("shop.example", "443"),
        ),
        (
            {"X-Forwarded-Host": "shop.example", "X-Forwarded-Port": "8443", "X-Forwarded-Proto": "https"},
            "app",
            "https://shop.example:8443",
            ("shop.example", "8443"),
        ),
        # Empty values say nothing.
        (
            {"X-Forwarded-Host": "", "X-Forwarded-Port": "", "X-Forwarded-Proto": "", "X-Forwarded-Prefix": ""},
            "shop.example:81",
            "http://shop.example:81",
            ("127.0.0.1", "8000"),
        ),
    ],
)
def test_url(fields: dict[str, str], host: str, url: str, authority: tuple[str, str]) -> None:
    """Scheme, host and port are what the client used, in the URL that Werkzeug builds and in the server's name and port."""
    answer = ask(fields, environ={"HTTP_HOST": host})
    request = Request(answer.seen)
    assert request.url == f"{url}/path"
    adapter = Map([Rule("/other", endpoint="other")]).bind_to_environ(answer.seen)
    assert adapter.build("other", force_external=True) == f"{url}/other"
    assert answer.authority == (url.partition("//")[2], *authority)


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example:8443"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "8443"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "[::1]", "X-Forwarded-Port": "8443"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example:1", "X-Forwarded-Port": "443"},
        {"X-Forwarded-Host": "shop.example", "X-Forwarded-Prefix": "/shop"},
        {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"},
    ],
)
def test_same_url_and_client_as_proxy_fix(fields: dict[str, str]) -> None:
    """One proxy's fields give the URL, root and client that Werkzeug's ProxyFix gives."""
    app = App()
    fixed = ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
    run_wsgi_app(fixed, ask({}).seen | as_variables(fields))
    assert app.environ is not None
    ours, theirs = Request(ask(fields).seen), Request(app.environ)
    assert (ours.url, ours.url_root, ours.remote_addr) == (theirs.url, theirs.url_root, theirs.remote_addr)


def test_no_host_at_all() -> None:
    """Without Host and without a forwarded one only the port is known, and the server's name stays."""
    answer = ask({"X-Forwarded-Port": "8443", "X-Forwarded-Proto": "https"}, environ={"HTTP_HOST": None})
    assert "HTTP_HOST" not in answer.seen
    assert (answer.seen["SERVER_NAME"], answer.seen["SERVER_PORT"]) == ("127.0.0.1", "8443")
    answer = ask({"X-Forwarded-Proto": "https"}, environ={"HTTP_HOST": None})
    assert (answer.seen["SERVER_NAME"], answer.seen["SERVER_PORT"]) == ("127.0.0.1", "8000")


@pytest.mark.parametrize(
    ("prefix", "script_name"),
    [
        ("/shop", "/shop"),
        ("/shop/", "/shop"),
        ("/shop/v1.2/~me/a@b", "/shop/v1.2/~me/a@b"),
        ("/...", "/..."),
        ("/.well-known", "/.well-known"),
        ("/", ""),
        ("", ""),
    ],
)
def test_prefix(prefix: str, script_name: str) -> None:
    """The prefix goes before SCRIPT_NAME and leaves PATH_INFO alone."""
    for mounted in ("", "/app"):
        answer = ask({"X-Forwarded-Prefix": prefix}, environ={"SCRIPT_NAME": mounted})
        assert answer.seen["SCRIPT_NAME"] == script_name + mounted
        assert answer.seen["PATH_INFO"] == "/path"


@pytest.mark.parametrize(
    ("chain", "protos", "scheme"),
    [
        (None, "https", "https"),
        (None, "https, http", "http"),
        (CLIENT, "https, http", "http"),
        (f"{CLIENT}, {OUTER_PROXY}", "https, http", "https"),
        (f"{CLIENT}, {OUTER_PROXY}", "https", "https"),
        (f"{CLIENT}, {OUTER_PROXY}", "http,https , http", "https"),
        (f"{CLIENT}, {OUTER_PROXY}", "https,", "https"),
        (CLIENT, "https,", "http"),  # the peer said nothing, and what is left of it is the client's
        (f"unknown, {OUTER_PROXY}", "https, http", "https"),
        (f"{OUTER_PROXY}", "https, http", "http"),
    ],
)
def test_which_value_of_a_list_counts(chain: str | None, protos: str, scheme: str) -> None:
    """Of a list the value counts that the outermost of the trusted proxies wrote."""
    fields = {"X-Forwarded-Proto": protos} | ({} if chain is None else {"X-Forwarded-For": chain})
    assert ask(fields).seen["wsgi.url_scheme"] == scheme


def test_hops_are_not_counted_by_a_field_that_is_not_applied() -> None:
    """Where X-Forwarded-For is not to be applied, its length says nothing about other lists."""
    fields = {"X-Forwarded-For": f"{CLIENT}, {OUTER_PROXY}", "X-Forwarded-Proto": "https, http"}
    answer = ask(fields, applied=("x-forwarded-proto",))
    assert (answer.client, answer.seen["wsgi.url_scheme"]) == (PROXY, "http")


# Forwarded (RFC 7239).


@pytest.mark.parametrize(
    ("value", "client", "port", "url"),
    [
        ("for=203.0.113.9", CLIENT, None, "http://shop.example/path"),
        ("FOR=203.0.113.9;Proto=HTTPS", CLIENT, None, "https://shop.example/path"),
        ('for="203.0.113.9"', CLIENT, None, "http://shop.example/path"),
        ('for="203.0.113.9:5678"', CLIENT, "5678", "http://shop.example/path"),
        ('for="203.0.113.9:_port"', CLIENT, None, "http://shop.example/path"),
        ('for="[2001:DB8::1]"', "2001:db8::1", None, "http://shop.example/path"),
        ('for="[2001:db8::1]:443"', "2001:db8::1", "443", "http://shop.example/path"),
        ('for="\\2\\03.0.113.9"', CLIENT, None, "http://shop.example/path"),
        ("for=unknown;proto=https", PROXY, "50000", "https://shop.example/path"),
        ("for=_hidden;proto=https", PROXY, "50000", "https://shop.example/path"),
        ('for="_hidden:_port"', PROXY, "50000", "http://shop.example/path"),
        ("proto=https", PROXY, "50000", "https://shop.example/path"),
        ('host="[::1]:81"', PROXY, "50000", "http://[::1]:81/path"),
        ('proto=https;host="other.example:8443"', PROXY, "50000", "https://other.example:8443/path"),
        ("by=10.0.0.1;for=203.0.113.9;secret=_x;host=other.example", CLIENT, None, "http://other.example/path"),
        (";for=203.0.113.9;;proto=https;", CLIENT, None, "https://shop.example/path"),
        # Several elements.
        (f"for=192.0.2.1;proto=http, for={CLIENT};proto=https", CLIENT, None, "https://shop.example/path"),
        (f"for={CLIENT};proto=https,for={OUTER_PROXY};proto=http", CLIENT, None, "https://shop.example/path"),
        (f"for={CLIENT};proto=https , \t for={OUTER_PROXY}", CLIENT, None, "https://shop.example/path"),
        (f"for={CLIENT}, for={OUTER_PROXY};proto=https", CLIENT, None, "https://shop.example/path"),
        (f"for=192.0.2.1;host=evil.example, for={CLIENT}, for={OUTER_PROXY}", CLIENT, None, "http://shop.example/path"),
        (f"for={CLIENT}, for=unknown, for={OUTER_PROXY}", OUTER_PROXY, None, "http://shop.example/path"),
        (f"for={CLIENT};proto=https,", PROXY, "50000", "http://shop.example/path"),
        ("for=junk, for=203.0.113.9", CLIENT, None, "http://shop.example/path"),  # of the client, and never reached
        ('for="a,b;c", for=203.0.113.9', CLIENT, None, "http://shop.example/path"),
        ("", PROXY, "50000", "http://shop.example/path"),
        (",", PROXY, "50000", "http://shop.example/path"),
    ],
)
def test_forwarded(value: str, client: str, port: str | None, url: str) -> None:
    """Forwarded is read by element from the right, as X-Forwarded-* is, and its parameters mean the same."""
    answer = ask({"Forwarded": value})
    assert (answer.client, answer.seen.get("REMOTE_PORT"), answer.url) == (client, port, url)
    assert "HTTP_FORWARDED" not in answer.seen


# What nobody can make sense of.

MALFORMED = [
    *[
        ("X-Forwarded-Proto", value)
        for value in ("gopher", "https:", "ht tp", "javascript", "on", '"https"', "http\xa0", "https;http")
    ],
    *[
        ("X-Forwarded-Host", value)
        for value in (
            "shop.example/path",
            "user@shop.example",
            "shop example",
            "shop.example:",
            "shop.example:0",
            "shop.example:65536",
            "shop.example:http",
            "shop.example:80:80",
            "http://shop.example",
            "[::1",
            "[::1]x",
            "[1.2.3.4]",
            "[2001:db8:::1]",
            "::1",
            ".shop.example",
            "sh\xf6p.example",
            "shop.example\r\nX: y",
            "<script>",
            "%73hop.example",
        )
    ],
    *[
        ("X-Forwarded-Port", value)
        for value in ("0", "65536", "-1", "+80", "8 0", "http", "\xb2", "123456", "0x50", "80;81")
    ],
    *[
        ("X-Forwarded-Prefix", value)
        for value in (
            "shop",
            "//evil.example",
            "/shop//",
            "/shop//evil",
            "/..",
            "/../shop",
            "/shop/..",
            "/./shop",
            "/shop/.",
            "/shop/../",
            "/\\evil.example",
            "/shop?x",
            "/shop#x",
            "/shop%2f..",
            "/sh op",
            "/sh\xf6p",
            "/shop\r\nX: y",
            "/shop\n",
            "https://evil.example",
            "/<script>",
        )
    ],
    *[
        ("Forwarded", value)
        for value in (
            "for",
            "for=",
            "=203.0.113.9",
            "for =203.0.113.9",
            "for= 203.0.113.9",
            "for=203.0.113.9; proto=https",
            "for=203.0.113.9 ;proto=https",
            "for=203.0.113.9 proto=https",
            "for=203.0.113.9;for=192.0.2.1",
            "for=203.0.113.9;FOR=192.0.2.1",
            "for=203.0.113.9:80",
            "for=2001:db8::1",
            "for=[2001:db8::1]",
            'for="2001:db8::1"',
            'for="[203.0.113.9]"',
            'for="[2001:db8:::1]"',
            'for="203.0.113.256"',
            'for="203.0.113.9:99999"',
            'for="203.0.113.9:"',
            'for=""',
            "for=localhost",
            'for="unknown',
            'for="unknown" x',
            'for="x\\"',
            "proto=gopher",
            'host="shop example"',
            'host="shop.example:0"',
            'for="\x00"',
            '"',
            "junk, for=203.0.113.9",
            'x=", for="203.0.113.9"',
        )
    ],
]


@pytest.mark.parametrize(("field", "value"), MALFORMED)
def test_malformed_field_is_refused(field: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """A malformed field of a trusted peer is answered with 400 and one sentence without the value; the log has it, escaped."""
    with caplog.at_level(logging.WARNING, "flask_prodserve.proxy"):
        answer = ask({field: value})
    assert answer.environ is None
    assert (answer.status, answer.content_type) == ("400 Bad Request", "text/plain; charset=utf-8")
    assert answer.body == f"The {field} header field of this request is malformed.\n"
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("flask_prodserve.proxy", "WARNING")
    message = record.getMessage()
    assert message.startswith(f"rejected a request with 400: {field} from {PROXY} is malformed: ")
    assert message.isascii()
    assert message.isprintable()


def test_log_of_a_refusal_is_short_and_names_unix_peers(caplog: pytest.LogCaptureFixture) -> None:
    """The log shows no more than 200 characters of a value, and a peer without address as a Unix socket."""
    with caplog.at_level(logging.WARNING, "flask_prodserve.proxy"):
        ask({"X-Forwarded-Proto": "x" * 30000}, peer="", trusted=("unix",))
    assert caplog.messages == [
        f"rejected a request with 400: X-Forwarded-Proto from a Unix socket is malformed: {'x' * 200!r}"
    ]


def test_malformed_fields_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever clients send, each malformed field costs one log line a minute, with the number of those that were not logged."""
    now = 1000.0
    trust = PeerTrust((parse_trusted_peer(PROXY),))
    app = Forwarded(App(), trust, frozenset(FORWARDED_FIELDS), clock=lambda: now)

    def send(field: str) -> None:
        environ = {"REMOTE_ADDR": PROXY, **as_variables({field: "<"})}
        assert b"malformed" in b"".join(app(environ, lambda *response: lambda data: None))

    for _ in range(3):
        send("X-Forwarded-Proto")
        send("X-Forwarded-Host")
    now += 61
    send("X-Forwarded-Proto")
    assert caplog.messages == [
        f"rejected a request with 400: X-Forwarded-Proto from {PROXY} is malformed: '<'",
        f"rejected a request with 400: X-Forwarded-Host from {PROXY} is malformed: '<'",
        f"rejected a request with 400: X-Forwarded-Proto from {PROXY} is malformed: '<' (2 more since the last such line)",
    ]


@pytest.mark.parametrize(("field", "value"), [case for case in MALFORMED if case[0] != "Forwarded"])
def test_malformed_value_of_the_client_is_not_reached(field: str, value: str) -> None:
    """Junk that a client put at the left end of a list, which is not read, does not keep its request from being answered."""
    good = {
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "a.example",
        "X-Forwarded-Port": "81",
        "X-Forwarded-Prefix": "/a",
    }
    assert ask({field: f"{value}, {good[field]}"}).seen == ask({field: good[field]}).seen


WORDS = (
    *FORWARDED_FIELDS,
    "for=",
    "proto=",
    "host=",
    "by=",
    CLIENT,
    OUTER_PROXY,
    "[2001:db8::1]",
    "unknown",
    "_x",
    "https",
)
PIECES = st.sampled_from((*WORDS, *' \t,;:="\\[]%.-_/@?#0123456789af\xe4\x00'))


@settings(max_examples=sized(50, 300, 20_000), database=None)
@given(st.sampled_from([name for name in SPOOFS if name.lower() in FORWARDED_FIELDS]), st.lists(PIECES).map("".join))
def test_any_value_gets_an_answer(field: str, value: str) -> None:
    """Whatever a field holds, the request is refused or reaches the app with an address, a scheme, a host and a root that are valid."""
    answer = ask({field: value}, environ={"SERVER_NAME": "shop.example"})
    if answer.environ is None:
        assert answer.status == "400 Bad Request"
        return
    assert str(ipaddress.ip_address(answer.client)) == answer.client
    assert answer.seen["wsgi.url_scheme"] in ("http", "https")
    assert re.fullmatch(r"[\w.-]+|\[[0-9a-f:.]+\]", answer.seen["SERVER_NAME"], re.ASCII)
    assert answer.seen["HTTP_HOST"] in (
        answer.seen["SERVER_NAME"],
        f"{answer.seen['SERVER_NAME']}:{answer.seen['SERVER_PORT']}",
    )
    assert not answer.seen["SCRIPT_NAME"].endswith("/")
    assert not answer.seen["SCRIPT_NAME"].startswith("//")
    assert as_variables(SPOOFS).keys().isdisjoint(answer.seen)
