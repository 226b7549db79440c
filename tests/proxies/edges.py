"""A proxy with the server behind it, and requests to it from an address that it does not have."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from app_behind import Behind
from real_proxies import HOST, PROXIES, Running

from serving import Served
from wire import Response, Wire

CLIENT = "127.0.0.2"
"""Where the requests come from: the proxies are 127.0.0.1, and trusted."""

TRUST = {
    "trusted_proxies": ["127.0.0.1", "unix"],
    "proxy_headers": ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"],
}
"""The fields are those that all four proxies set."""


EDGES = [
    pytest.param((proxy, transport), id=f"{proxy.name}-{transport}")
    for proxy in PROXIES
    for transport in ("tcp", "unix")
]
"""Every proxy over every transport."""


@dataclass(frozen=True)
class Edge:
    """A proxy, and the server behind it."""

    name: str
    proxy: Running
    served: Served
    behind: Behind


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can reach, and whose name is short enough for a Unix socket: workers of proxies are not root."""
    with tempfile.TemporaryDirectory(prefix="proxy") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def connection(edge: Edge) -> Wire:
    return Wire(edge.proxy.address, CLIENT)


def head(target: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {HOST}", *fields, "", ""]).encode("latin-1")


def ask(edge: Edge, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Response:
    """One request on a connection of its own."""
    if body:
        fields = (*fields, f"Content-Length: {len(body)}")
    with connection(edge) as wire:
        wire.send(head(target, *fields, method=method) + body)
        return wire.response(method)
