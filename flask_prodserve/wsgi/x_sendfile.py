"""Files that the proxy in front sends: what the app says in X-Sendfile, put so that nginx or Apache understands it.

Rules:

- The proxy makes the response out of the file. What the app says of the body, its length and range, would be said of the empty one
  that goes to the proxy, and is taken out.
- With a mapping (nginx) the file's folder must be in it: an answer that the proxy cannot complete is an error, and not an empty file.
- Without one (Apache's mod_xsendfile) the path stays as it is, in the bytes that the file system knows it by.
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
    """WSGI middleware. *mapping*: folders and the URLs of nginx's internal locations for them; empty for servers that take a path."""

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
            told = self._told(path)
            if told is None:
                return start_response("500 Internal Server Error", [("Content-Length", "0")], exc_info)
            fields = [(name, value) for name, value in fields if name.lower() not in (*_OF_THE_BODY, "x-sendfile")]
            # The range is the proxy's to choose, from the whole file: one that the app has chosen would be applied twice.
            return start_response("200 OK" if status.startswith("206") else status, [*fields, told], exc_info)

        return self._app(environ, start)

    def _told(self, path: str) -> tuple[str, str] | None:
        """The field for the proxy; None where *path* is in no folder of the mapping."""
        if not self._mapping:
            return "X-Sendfile", os.fsencode(path).decode("latin-1")
        # As text and not as the system sees it: what a link leads to is for the proxy to follow, or not.
        normal = posixpath.normpath(path).replace("//", "/")
        for folder, url in self._mapping:
            below = folder.rstrip("/") + "/"
            if path.startswith("/") and normal.startswith(below):
                return "X-Accel-Redirect", quote(os.fsencode(url.rstrip("/") + "/" + normal.removeprefix(below)))
        logger.error(
            "the app has X-Sendfile send %s, which is in no folder of X_ACCEL_MAPPING: the answer is 500", ascii(path)
        )
        return None
