"""Static files without the app: WhiteNoise's index of them, made once, so that a request for anything else costs one look-up.

The one module that needs whitenoise, which is an extra; import it where that is there.

Rules:

- No path from a client reaches the file system: it is a key of the index, byte for byte, or none.
- What is not in the index is the app's: files that came later or have changed since, methods other than GET and HEAD, files whose
  URL another rule of the app answers, dotfiles, and whatever is no regular file.
- What is said of a file is what Flask says (its type and charset), where it does not know better: caching, variants, entity tags.
- Symbolic links are followed, as Flask does: whoever can write to the folder can write into the files, too.
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

# name.3f2a9c81.js, name-3f2a9c81.chunk.css, 3f2a9c81.js.map: at least 8 hexadecimal digits, with a letter and a digit, so that no date and
# hardly a word is taken for one. To take a name for one costs its visitors updates for years, to overlook one a request a minute.
_HASHED = re.compile(r"(?:^|[._-])(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,64}(?:\.[0-9A-Za-z]+){1,3}$")

EndpointOf = Callable[[str], "str | None"]
"""The endpoint that answers GET for a path, a WSGI string."""


class StaticFiles(WhiteNoise):  # type: ignore[misc]  # whitenoise is not annotated
    """What is in *folders*, of an app whose own rules give it to these.

    *max_age* is in seconds; 0 has browsers ask every time. Takes as long as it takes to look at each file once.
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
                except UnicodeEncodeError:  # a name that is not UTF-8, for which Flask has no URL
                    continue
                if endpoint_of(key) == folder.endpoint:
                    self.add_file_to_dictionary(key, path, stat_cache=found)

    def answer(self, path: str, method: str, fields: Mapping[str, Any]) -> FileAnswer | None:
        """The answer to a request for *path*, a WSGI string; None where it is the app's. For *fields* see :meth:`.StaticFile.answer`."""
        file: StaticFile | None = self.files.get(path)
        return None if file is None else file.answer(method, fields)

    # What WhiteNoise asks while it makes the index.

    @staticmethod
    def is_compressed_variant(path: str, stat_cache: Mapping[str, os.stat_result] | None = None) -> bool:
        return is_variant(path, stat_cache or {})

    def get_static_file(
        self, path: str, url: str, stat_cache: Mapping[str, os.stat_result] | None = None
    ) -> StaticFile:
        assert stat_cache is not None, "the index knows all files"
        headers = Headers([])
        self.add_mime_headers(headers, path, url)
        self.add_cache_headers(headers, path, url)
        alone = {path: stat_cache[path]}
        return StaticFile(path, headers.items(), alone if "Content-Encoding" in headers else stat_cache)

    def add_mime_headers(self, headers: Headers, path: str, url: str) -> None:
        """As Flask has it, whose app may have named types of its own; what Python does not know, WhiteNoise may."""
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
    """Whether the file's name has a hash of its content, so that its content never changes."""
    return _HASHED.search(os.path.basename(path)) is not None
