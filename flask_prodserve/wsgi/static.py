"""Serves static files without the app, from WhiteNoise's index. It is made once, so other requests
cost one look-up.

The only module that needs whitenoise, which is an extra. Import it only if that is installed.

Rules:

- No path from a client reaches the file system: it is a key of the index, byte for byte, or
  unknown.
- The app answers everything that is not in the index: files that are new or changed, methods other
  than GET and HEAD, files whose URL another rule of the app matches, dotfiles, and special files.
- A file's type and charset are what Flask says, unless only WhiteNoise knows them. Caching,
  variants and entity tags are ours.
- Symbolic links are followed, as Flask does: an account that can write to the folder can write into
  the files as well.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from wsgiref.headers import Headers

from werkzeug.utils import get_content_type
from whitenoise.base import WhiteNoise

from .folder import Folder, regular_files
from .static_file import FileAnswer, StaticFile, is_variant

# name.3f2a9c81.js, name-3f2a9c81.chunk.css, 3f2a9c81.js.map: at least 8 hexadecimal digits, with a
# letter and a digit, so that dates and nearly all words do not match. A false match hides updates
# from visitors for years, a missed one costs a request a minute.
_HASHED = re.compile(r"(?:^|[._-])(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,64}(?:\.[0-9A-Za-z]+){1,3}$")

EndpointOf = Callable[[str], "str | None"]
"""Returns the endpoint that answers GET for a path, a WSGI string."""


class StaticFiles(WhiteNoise):  # type: ignore[misc]  # whitenoise is not annotated
    """The index of all files in *folders* for which the app's URL rules choose the folder's
    endpoint.

    *max_age* is in seconds; with 0 browsers ask every time. Making the index examines each file
    once.
    """

    def __init__(self, folders: Sequence[Folder], endpoint_of: EndpointOf, *, max_age: float) -> None:
        super().__init__(None, max_age=int(max_age), allow_all_origins=False, immutable_file_test=is_immutable)
        for folder in folders:
            found = regular_files(folder.path)
            root = os.path.join(folder.path, "")
            for path in found:
                url = folder.url + path.removeprefix(root).replace(os.sep, "/")
                try:
                    key = url.encode().decode("latin-1")
                except UnicodeEncodeError:  # Flask has no URL for a name that is not UTF-8
                    continue
                if endpoint_of(key) == folder.endpoint:
                    self.add_file_to_dictionary(key, path, stat_cache=found)

    def answer(self, path: str, method: str, fields: Mapping[str, Any]) -> FileAnswer | None:
        """Answer a request for *path*, a WSGI string; None if the app must. For *fields* see
        :meth:`.StaticFile.answer`.
        """
        file: StaticFile | None = self.files.get(path)
        return None if file is None else file.answer(method, fields)

    # Called by WhiteNoise while it makes the index.

    @staticmethod
    def is_compressed_variant(path: str, stat_cache: Mapping[str, os.stat_result] | None = None) -> bool:
        return is_variant(path, stat_cache or {})

    def get_static_file(
        self, path: str, url: str, stat_cache: Mapping[str, os.stat_result] | None = None
    ) -> StaticFile:
        assert stat_cache is not None, "the index has all files"
        headers = Headers([])
        self.add_mime_headers(headers, path, url)
        self.add_cache_headers(headers, path, url)
        alone = {path: stat_cache[path]}
        return StaticFile(path, headers.items(), alone if "Content-Encoding" in headers else stat_cache)

    def add_mime_headers(self, headers: Headers, path: str, url: str) -> None:
        """Set the type that Flask sets, which the app may have registered; if Python knows none,
        WhiteNoise's.
        """
        media_type, coding = mimetypes.guess_type(path)
        headers["Content-Type"] = get_content_type(media_type or self.media_types.get_type(path), "utf-8")
        if coding:
            headers["Content-Encoding"] = coding

    def add_cache_headers(self, headers: Headers, path: str, url: str) -> None:
        if self.max_age or is_immutable(path, url):
            super().add_cache_headers(headers, path, url)
        else:
            headers["Cache-Control"] = "no-cache"


def is_immutable(path: str, url: str) -> bool:
    """Return whether the file's name contains a hash of its content, so that the content never
    changes.
    """
    return _HASHED.search(os.path.basename(path)) is not None
