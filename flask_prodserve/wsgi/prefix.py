"""WSGI middleware for URL_PREFIX: the path under which the whole app lives, if the proxy does not
remove it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_BODY = b"This path is outside this server's URL prefix.\n"


def path_below(prefix: str, path: str) -> str | None:
    """Return the part of *path*, a decoded WSGI string, below *prefix*, or None. ``/apiary`` is not
    below ``/api``.

    Several slashes at the start become one, as in all paths of this server: a browser reads what
    follows ``//`` as another host.
    """
    if not path.startswith(prefix):
        return None
    rest = path[len(prefix) :]
    if rest and rest[0] != "/":
        return None
    return "/" + rest.lstrip("/") if rest.startswith("//") else rest


class Prefix:
    """WSGI middleware that moves *prefix* from PATH_INFO to the end of SCRIPT_NAME. Other paths get
    404.

    To the end, because SCRIPT_NAME may have a prefix that a proxy removed (X-Forwarded-Prefix),
    which comes first.
    """

    def __init__(self, app: WSGIApplication, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        rest = path_below(self._prefix, environ["PATH_INFO"])
        if rest is None:
            fields = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_BODY)))]
            start_response("404 Not Found", fields)
            return [_BODY]
        environ["SCRIPT_NAME"] += self._prefix
        environ["PATH_INFO"] = rest
        return self._app(environ, start_response)
