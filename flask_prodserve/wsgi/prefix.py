"""The path under which the whole app lives (URL_PREFIX), where the proxy in front leaves it in the requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_BODY = b"There is nothing outside of this server's URL prefix.\n"


def path_below(prefix: str, path: str) -> str | None:
    """What of *path*, decoded and as WSGI has it, is below *prefix*; None where it is elsewhere. ``/apiary`` is not below ``/api``.

    Several slashes at the start become one, as in every path of this server: what follows ``//`` is another host to a browser.
    """
    if not path.startswith(prefix):
        return None
    rest = path[len(prefix) :]
    if rest and rest[0] != "/":
        return None
    return "/" + rest.lstrip("/") if rest.startswith("//") else rest


class Prefix:
    """WSGI middleware that moves *prefix* from PATH_INFO to the end of SCRIPT_NAME, and answers what is not below it with 404.

    The end: what is in SCRIPT_NAME already came from a proxy that has removed it (X-Forwarded-Prefix), and so comes before.
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
