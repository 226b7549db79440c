"""The order of the wrappers around the app, outermost first: forwarded. Each later one has its place in this list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .forwarded import Forwarded, PeerTrust

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings.table import Proxy


def build(app: WSGIApplication, proxy: Proxy, *, keep_forwarded: bool) -> WSGIApplication:
    """Wrap *app*. *keep_forwarded*: leave the proxies' fields alone, because the app evaluates them itself."""
    if keep_forwarded:
        return app
    return Forwarded(app, PeerTrust(proxy.trusted_proxies or ()), frozenset(proxy.proxy_headers))
