"""Who the client is and which URL it asked for, as the app sees it behind each proxy."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from edges import CLIENT, Edge, ask, head
from real_proxies import HOST

from flask_prodserve.wsgi.forwarded import MISLEADING_KEYS
from wire import Response, Wire

SPOOFED = [
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: ftp",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 666",
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded-Server: evil.example",
    "Forwarded: for=6.6.6.6;host=evil.example;proto=ftp",
]


def _who(prefix: str, scheme: str = "http") -> dict[str, Any]:
    return {
        "client": CLIENT,
        "url": f"{scheme}://{HOST}{prefix}/who?x=1",
        "link": f"{scheme}://{HOST}{prefix}/who",
        "forwarded": [],
    }


@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_client_scheme_host_and_prefix(edge: Edge, prefix: str) -> None:
    """The app sees the client, the scheme, the host and the prefix that the proxy saw, and none of its fields."""
    assert json.loads(ask(edge, f"{prefix}/who?x=1").body) == _who(prefix)


@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_redirect(edge: Edge, prefix: str) -> None:
    """A redirect to another view leads there, also below a prefix."""
    assert ask(edge, f"{prefix}/elsewhere").get("Location") == f"{prefix}/who"


def test_prefix_without_a_slash(edge: Edge) -> None:
    """Who asks for the prefix itself is sent to the app below it."""
    response = ask(edge, "/shop")
    assert response.status == 301
    assert urlsplit(response.get("Location")).path == "/shop/"


def test_spoofing_client(edge: Edge) -> None:
    """A client that sends the fields itself gets nowhere: the proxy's own words count."""
    assert json.loads(ask(edge, "/who?x=1", *SPOOFED).body) == _who("")


@pytest.mark.parametrize("spelled", [str.lower, str.title, str.upper])
@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_fields_that_no_proxy_sets(edge: Edge, prefix: str, spelled: Callable[[str], str]) -> None:
    """Of all fields that apps take for a proxy's word, none reaches the app as the client has written it."""
    names = [spelled(key.removeprefix("HTTP_").replace("_", "-")) for key in sorted(MISLEADING_KEYS)]
    fields = json.loads(ask(edge, f"{prefix}/fields", "X-Other: 6.6.6.6", *(f"{name}: 6.6.6.6" for name in names)).body)
    assert [name for name, value in fields.items() if "6.6.6.6" in value] == ["X-Other"]


def _ask_over_tls(edge: Edge, *fields: str) -> Response:
    context = ssl.create_default_context(cafile=edge.proxy.pem)
    with Wire(edge.proxy.tls_address, CLIENT) as wire:
        wire.socket = context.wrap_socket(wire.socket, server_hostname=HOST)
        wire.send(head("/shop/who?x=1", *fields))
        return wire.response()


def test_scheme_of_a_client_with_tls(edge: Edge) -> None:
    """Whoever came to the proxy over TLS came over https, also as the app sees it."""
    assert json.loads(_ask_over_tls(edge, *SPOOFED).body) == _who("/shop", "https")


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host", "X-Forwarded-Prefix"])
def test_client_that_names_fields_of_the_proxy_as_the_connections(edge: Edge, name: str) -> None:
    """A client that would have the proxy drop a field (RFC 9110, section 7.6.1) is seen as it is, or refused."""
    response = _ask_over_tls(edge, f"Connection: close, {name}", f"{name}: 6.6.6.6")
    assert response.status == 400 or json.loads(response.body) == _who("/shop", "https")
