"""One static file with its compressed variants, and the responses to requests for it, prepared at
the start.

Rules:

- A file is sent only as it was at the start. If its size or time has changed, or it is gone, the
  app answers.
- A variant older than its file counts as missing, at the start and later.
- Each variant has its own entity tag (RFC 9110, section 8.8.3.3), made of the file's time and of
  sizes, so it is the same in all processes.
- A coding is used only if the client names it: ``*`` comes from programs that cannot decode any
  (RFC 9110, section 12.5.3).
- Preconditions come before ranges (RFC 9110, section 13.2.2). A precondition with an unreadable
  date is ignored. So are several ranges at once, and ranges of HEAD.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import lru_cache
from typing import IO, Any, NamedTuple

from .conditional_fields import read_date, read_range, read_tags, read_weights

SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""Suffixes of variants by content coding."""

SMALL = 1 << 16
"""Largest file kept in memory, in bytes: opening, sending and closing it takes as long as all the
rest of a request.
"""

KEPT = 256
"""How many small files are kept in memory, the most recently requested ones; 16 MiB at most."""

_PRECONDITIONS = frozenset(
    {"HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"}
)

_KEPT_IN_304 = frozenset({"Cache-Control", "ETag", "Vary"})
"""The fields of a file that a 304 must have as well (RFC 9110, section 15.4.5)."""

Fields = list[tuple[str, str]]


class FileAnswer(NamedTuple):
    """The answer to a request for a file: *content*, or *size* bytes from the position of *file*,
    which the sender closes.
    """

    status: str
    fields: Sequence[tuple[str, str]]
    content: bytes = b""
    file: IO[bytes] | None = None
    size: int = 0


class Variant:
    """The file at *path* in *coding* (``""``: none), with its response fields."""

    __slots__ = ("coding", "etag", "fields", "fields_of_304", "modified", "path", "size")

    def __init__(self, coding: str, path: str, found: os.stat_result, base: Fields, tag: str) -> None:
        self.coding = coding
        self.path = path
        self.size = found.st_size
        self.modified = found.st_mtime_ns
        self.etag = f'"{tag}-{self.size:x}-{coding}"' if coding else f'"{tag}-{self.size:x}"'
        fields = [*base, ("ETag", self.etag), ("Content-Length", str(self.size))]
        if coding:
            fields.append(("Content-Encoding", coding))
        self.fields = tuple(fields)
        self.fields_of_304 = tuple(field for field in fields if field[0] in _KEPT_IN_304)

    def is_unchanged(self, found: os.stat_result) -> bool:
        return found.st_mtime_ns == self.modified and found.st_size == self.size

    def open(self) -> IO[bytes]:
        """Open the file. Raises OSError, also if it has changed since the start."""
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115  # the sender closes it
        if not self.is_unchanged(os.fstat(file.fileno())):
            file.close()
            raise OSError("the file has changed since the start")
        return file


class StaticFile:
    """The file at *path* and its variants, from *found*, which has all files by path. *fields* go
    out with every variant.
    """

    __slots__ = ("_coded", "_last_modified", "_modified", "_plain")

    def __init__(self, path: str, fields: Fields, found: Mapping[str, os.stat_result]) -> None:
        own = found[path]
        self._modified = datetime.fromtimestamp(own.st_mtime, timezone.utc).replace(microsecond=0)
        self._last_modified = format_datetime(self._modified, usegmt=True)
        fresh = {
            coding: beside
            for coding, suffix in SUFFIXES.items()
            if (beside := found.get(path + suffix)) is not None and beside.st_mtime_ns >= own.st_mtime_ns
        }
        base = [*fields, ("Last-Modified", self._last_modified), ("Accept-Ranges", "bytes")]
        if fresh:
            base.append(("Vary", "Accept-Encoding"))
        tag = f"{own.st_mtime_ns:x}"
        self._plain = Variant("", path, own, base, tag)
        coded = [Variant(coding, path + SUFFIXES[coding], beside, base, tag) for coding, beside in fresh.items()]
        self._coded = tuple(sorted(coded, key=lambda variant: variant.size))

    def answer(self, method: str, fields: Mapping[str, Any]) -> FileAnswer | None:
        """Answer a request with *method* and *fields*, which have WSGI names.

        Returns None if the app must answer: the method is not GET or HEAD, or the file has changed.
        """
        if method not in ("GET", "HEAD"):
            return None
        variant = self._choose(fields.get("HTTP_ACCEPT_ENCODING", "")) if self._coded else self._plain
        try:
            if not self._plain.is_unchanged(os.stat(self._plain.path)):
                return None
            if not fields.keys().isdisjoint(_PRECONDITIONS) and (status := self._precondition(variant, fields)):
                return FileAnswer(status, variant.fields_of_304)
            if method == "HEAD":
                return FileAnswer("200 OK", variant.fields)
            if (
                "HTTP_RANGE" in fields
                and (wanted := read_range(fields["HTTP_RANGE"], variant.size)) is not None
                and self._if_range(variant, fields)
            ):
                return _part(variant, *wanted)
            if variant.size <= SMALL:
                return FileAnswer("200 OK", variant.fields, _content(variant))
            return FileAnswer("200 OK", variant.fields, file=variant.open(), size=variant.size)
        except OSError:
            return None

    def _choose(self, accept_encoding: str) -> Variant:
        """Return the variant that the client prefers; the smallest of several with the same weight."""
        weights = read_weights(accept_encoding)
        chosen, best = self._plain, max(weights.get("identity", 0.0), 0.0)
        for variant in self._coded:
            weight = weights.get(variant.coding, 0.0)
            if weight > best or (chosen is self._plain and 0 < weight == best):
                chosen, best = variant, weight
        return chosen

    def _precondition(self, variant: Variant, fields: Mapping[str, Any]) -> str | None:
        """Return the status if a precondition fails, in the order of RFC 9110, section 13.2.2."""
        tag = variant.etag.strip('"')
        value = fields.get("HTTP_IF_MATCH")
        if value is not None:  # section 13.1.1: the strong comparison
            if not read_tags(value).has(tag):
                return "412 Precondition Failed"
        elif (date := read_date(fields.get("HTTP_IF_UNMODIFIED_SINCE"))) is not None and self._modified > date:
            return "412 Precondition Failed"  # section 13.1.4
        value = fields.get("HTTP_IF_NONE_MATCH")
        if value is not None:  # section 13.1.2: the weak comparison
            if read_tags(value).has_weakly(tag):
                return "304 Not Modified"
        elif (date := read_date(fields.get("HTTP_IF_MODIFIED_SINCE"))) is not None and self._modified <= date:
            return "304 Not Modified"  # section 13.1.3
        return None

    def _if_range(self, variant: Variant, fields: Mapping[str, Any]) -> bool:
        """Check If-Range: exactly this strong tag or this date (RFC 9110, section 13.1.5)."""
        value = fields.get("HTTP_IF_RANGE")
        return value is None or value in (variant.etag, self._last_modified)


def _part(variant: Variant, start: int, stop: int) -> FileAnswer:
    if start >= stop:
        return FileAnswer("416 Range Not Satisfiable", [("Content-Range", f"bytes */{variant.size}")])
    file = variant.open()
    file.seek(start)
    fields = [field for field in variant.fields if field[0] != "Content-Length"]
    fields += [("Content-Range", f"bytes {start}-{stop - 1}/{variant.size}"), ("Content-Length", str(stop - start))]
    return FileAnswer("206 Partial Content", fields, file=file, size=stop - start)


@lru_cache(maxsize=KEPT)
def _content(variant: Variant) -> bytes:
    """Read the content of a small file. Raises OSError, and then caches nothing."""
    with variant.open() as file:
        content = file.read(variant.size)
    if len(content) != variant.size:
        raise OSError("the file became shorter while it was read")
    return content


def is_variant(path: str, names: Iterable[str] | Mapping[str, object]) -> bool:
    """Return whether *path* is a compressed variant of another file in *names*."""
    return any(path.endswith(suffix) and path.removesuffix(suffix) in names for suffix in SUFFIXES.values())
