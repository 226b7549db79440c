"""WSGI middleware for files that the proxy sends: turns the app's X-Sendfile into a field for nginx
or Apache.

Rules:

- The proxy makes the response from the file. The app's Content-Length and Content-Range would
  describe the empty body that goes to the proxy, so they are removed.
- With a mapping (nginx), the file's folder must be in it. A response that the proxy cannot complete
  is an error, not an empty file.
- Without a mapping (Apache's mod_xsendfile), the path stays as it is, in the bytes of the file
  system.
"""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication

logger = logging.getLogger("flask_prodserve.proxy")

_OF_THE_BODY = frozenset({"content-length", "content-range"})


class XSendfile:
    """WSGI middleware. *mapping* has folders and the URLs of nginx's internal locations for them;
    empty for Apache.
    """

    def __init__(self, app: WSGIApplication, mapping: Sequence[tuple[str, str]]) -> None:
        self._app = app
        self._mapping = sorted(mapping, key=lambda pair: len(pair[0]), reverse=True)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        def start(
            status: str, fields: list[tuple[str, str]], exc_info: OptExcInfo | None = None
        ) -> Callable[[bytes], object]:
            path = next((value for name, value in fields if name.lower() == "x-sendfile"), None)
            if path is None:
                return start_response(status, fields, exc_info)
            field = self._field_for_proxy(path)
            if field is None:
                return start_response("500 Internal Server Error", [("Content-Length", "0")], exc_info)
            fields = [(name, value) for name, value in fields if name.lower() not in (*_OF_THE_BODY, "x-sendfile")]
            # The proxy applies the range to the whole file. If the app did so too, it would be
            # applied twice.
            return start_response("200 OK" if status.startswith("206") else status, [*fields, field], exc_info)

        return self._app(environ, start)

    def _field_for_proxy(self, path: str) -> tuple[str, str] | None:
        """Return the field for the proxy, or None if *path* is in no folder of the mapping."""
        if not self._mapping:
            return "X-Sendfile", os.fsencode(path).decode("latin-1")
        # Compared as text: the proxy decides whether to follow links.
        normal = posixpath.normpath(path).replace("//", "/")
        for folder, url in self._mapping:
            below = folder.rstrip("/") + "/"
            if path.startswith("/") and normal.startswith(below):
                return "X-Accel-Redirect", quote(os.fsencode(url.rstrip("/") + "/" + normal.removeprefix(below)))
        logger.error(
            "answered a request with 500: X-Sendfile names %s, which is in no folder of X_ACCEL_MAPPING", ascii(path)
        )
        return None
