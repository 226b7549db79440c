"""The order of the wrappers around the app, outermost first: forwarded, prefix, mounts. Each later one has its place in this list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .forwarded import Forwarded, PeerTrust
from .mounts import Directory, Mounts
from .prefix import Prefix

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings.mounts import Mount
    from ..settings.table import Proxy


def build(app: WSGIApplication, proxy: Proxy, *, keep_forwarded: bool, mounts: Sequence[Mount] = ()) -> WSGIApplication:
    """Wrap *app*, and *mounts* beside it, which have been loaded. *keep_forwarded*: leave the proxies' fields alone, because the app
    evaluates them itself.
    """
    if mounts:
        app = Mounts(Directory(app, [(mount, mount.loaded) for mount in mounts]))
    if proxy.url_prefix:
        app = Prefix(app, proxy.url_prefix)
    if keep_forwarded:
        return app
    return Forwarded(app, PeerTrust(proxy.trusted_proxies or ()), frozenset(proxy.proxy_headers))
