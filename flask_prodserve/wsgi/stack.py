"""Builds the stack of WSGI wrappers around the app: forwarded, prefix, X-Sendfile, mounts,
outermost first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .forwarded import Forwarded, PeerTrust
from .mounts import Mounts, MountTable
from .prefix import Prefix
from .x_sendfile import XSendfile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings.groups.network import Proxy
    from ..settings.mounts import Mount


def build(
    app: WSGIApplication,
    proxy: Proxy,
    *,
    keep_forwarded: bool,
    mounts: Sequence[tuple[Mount, WSGIApplication]] = (),
    x_sendfile: Sequence[tuple[str, str]] | None = None,
) -> WSGIApplication:
    """Wrap *app* and the apps of *mounts*.

    *keep_forwarded*: keep the proxies' fields, because the app evaluates them itself. *x_sendfile*
    is the mapping for nginx, or None if no app uses X-Sendfile.
    """
    if mounts:
        app = Mounts(MountTable(app, mounts))
    if x_sendfile is not None:
        app = XSendfile(app, x_sendfile)
    if proxy.url_prefix:
        app = Prefix(app, proxy.url_prefix)
    if keep_forwarded:
        return app
    trusted = proxy.trusted_proxies
    return Forwarded(app, PeerTrust(trusted or ()), frozenset(proxy.proxy_headers), undecided=trusted is None)
