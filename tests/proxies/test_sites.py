"""What the documented sites say of time and size fits the server's own settings."""

from __future__ import annotations

import re

import pytest
from real_proxies import PROXIES, SITES, Proxy

from flask_prodserve.settings import Settings

WAITING = {
    "nginx": r"proxy_read_timeout (\d+)s;",
    "apache": r"timeout=(\d+)",
    "haproxy": r"timeout server (\d+)s",
    "caddy": r"response_header_timeout (\d+)s",
}
IDLE = {"apache": r"ttl=(\d+)", "caddy": r"keepalive (\d+)s"}
"""nginx (60 s) and HAProxy (5 s) give connections up by themselves."""


def _number(name: str, pattern: str) -> int:
    [proxy] = [proxy for proxy in PROXIES if proxy.name == name]
    [number] = re.findall(pattern, (SITES / proxy.site).read_text())
    return int(number)


@pytest.mark.parametrize("name", WAITING)
def test_proxies_wait_longer(name: str) -> None:
    """A proxy waits longer for a response than a request may wait for a thread and then run."""
    timeouts = Settings.of({}).timeouts
    assert _number(name, WAITING[name]) > timeouts.queue_timeout + timeouts.request_timeout


@pytest.mark.parametrize("name", IDLE)
def test_proxies_give_up_idle_connections_first(name: str) -> None:
    """A proxy gives an idle connection up before the server does."""
    assert _number(name, IDLE[name]) < Settings.of({}).timeouts.keepalive_timeout


def test_size_of_uploads() -> None:
    """nginx takes uploads of the size that the server takes."""
    assert _number("nginx", r"client_max_body_size (\d+)m;") * 2**20 == Settings.of({}).limits.max_body_size


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_unix_socket_is_shown(proxy: Proxy) -> None:
    """The way to write a Unix socket that is tested is the one that stands beside the address."""
    written = proxy.unix.format("/run/hello/app.sock").split()[-1].rstrip(";")
    assert f" {written}\n" in (SITES / proxy.site).read_text()
