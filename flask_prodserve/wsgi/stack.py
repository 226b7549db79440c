"""The order of the wrappers around the app, outermost first: forwarded, static files, X-Sendfile. Each later one has its place here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .forwarded import Forwarded, PeerTrust
from .x_sendfile import XSendfile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings.table import Proxy


def build(
    app: WSGIApplication,
    proxy: Proxy,
    *,
    keep_forwarded: bool,
    static: Callable[[WSGIApplication], WSGIApplication] | None = None,
    x_sendfile: Sequence[tuple[str, str]] | None = None,
) -> WSGIApplication:
    """Wrap *app*. *keep_forwarded*: leave the proxies' fields alone, because the app evaluates them itself. *static* wraps it with its
    static files; *x_sendfile*, the mapping for nginx, is None where the app lets no proxy send files.
    """
    if x_sendfile is not None:
        app = XSendfile(app, x_sendfile)
    if static is not None:
        app = static(app)
    if keep_forwarded:
        return app
    return Forwarded(app, PeerTrust(proxy.trusted_proxies or ()), frozenset(proxy.proxy_headers))
