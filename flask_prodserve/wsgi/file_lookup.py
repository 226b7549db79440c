"""Finds the static file that a request asks for, before any app is called.

Rule: the wrappers in front of the apps (see ``stack``) count here as well. They decide which app
has the path, and which client address goes to the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .forwarded import apply_forwarded
from .forwarded_fields import MalformedFieldError
from .prefix import path_below

if TYPE_CHECKING:
    from ..protocol.request_head import RequestHead
    from ..settings.groups.network import Proxy
    from .forwarded import PeerTrust
    from .mounts import MountTable
    from .static import StaticFiles
    from .static_file import FileAnswer


class FileLookup:
    """Looks in *table*, which maps each app to its static files, or None. *trust* is that of
    TRUSTED_PROXIES.
    """

    def __init__(self, table: MountTable[StaticFiles | None], proxy: Proxy, trust: PeerTrust) -> None:
        self._table = table
        self._prefix = proxy.url_prefix or ""
        self._trust = trust
        self._fields = frozenset(proxy.proxy_headers)

    def find(self, head: RequestHead, peer: str) -> tuple[FileAnswer, str] | None:
        """Return the answer to a request from *peer* and the client's address, or None if the app
        must answer.
        """
        fields: dict[str, Any] = head.fields
        client = peer
        if self._trust.covers(peer):
            # The scheme only affects the port of the host, which mounts ignore.
            fields = {**fields, "REMOTE_ADDR": peer, "wsgi.url_scheme": "http"}
            try:
                apply_forwarded(fields, self._fields, self._trust)
            except MalformedFieldError:
                return None  # the middleware refuses the request
            client = fields["REMOTE_ADDR"]
        path = path_below(self._prefix, head.path) if self._prefix else head.path
        if path is None:
            return None
        files, _, path = self._table.find(path, fields.get("HTTP_HOST", ""))
        answer = None if files is None else files.answer(path, head.method, head.fields)
        return None if answer is None else (answer, client)
