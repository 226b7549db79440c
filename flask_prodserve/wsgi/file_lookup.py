"""Which static file a request is for, if it is for one: asked by the engine, before any app is called.

Rule: what is in front of the apps (see ``stack``) is asked here as well: who the client is, for the log, and which app has the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .forwarded import apply_forwarded
from .forwarded_fields import MalformedFieldError
from .prefix import path_below

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from ..settings.table import Proxy
    from .forwarded import PeerTrust
    from .mounts import Directory
    from .static import StaticFiles
    from .static_file import FileAnswer


class FileLookup:
    """*directory* has the static files of each app, None for an app that has none. *trust* is what TRUSTED_PROXIES says."""

    def __init__(self, directory: Directory[StaticFiles | None], proxy: Proxy, trust: PeerTrust) -> None:
        self._directory = directory
        self._prefix = proxy.url_prefix or ""
        self._trust = trust
        self._fields = frozenset(proxy.proxy_headers)

    def find(self, head: RequestHead, peer: str) -> tuple[FileAnswer, str] | None:
        """The answer to a request that came from *peer*, and the client's address; None where it is not for this one to answer."""
        fields: dict[str, Any] = head.fields
        client = peer
        if self._trust.covers(peer):
            # The scheme decides about the port of a host only, which no mount looks at.
            fields = {**fields, "REMOTE_ADDR": peer, "wsgi.url_scheme": "http"}
            try:
                apply_forwarded(fields, self._fields, self._trust)
            except MalformedFieldError:
                return None  # the middleware refuses the request
            client = fields["REMOTE_ADDR"]
        path = path_below(self._prefix, head.path) if self._prefix else head.path
        if path is None:
            return None
        files, _, path = self._directory.find(path, fields.get("HTTP_HOST", ""))
        answer = None if files is None else files.answer(path, head.method, head.fields)
        return None if answer is None else (answer, client)
