"""One static file with its compressed variants, and the responses to requests for it. What can be known at the start is made there.

Rules:

- A file goes out only as it was at the start: whatever has another size or time since, or is gone, is not sent from here.
- A variant that is older than its file is not there, neither at the start nor later.
- Each variant has an entity tag of its own (RFC 9110, section 8.8.3.3), made of the file's time and of sizes: the same in all processes.
- A coding is used only where the client names it, since ``*`` comes from programs that cannot read any (RFC 9110, section 12.5.3).
- Preconditions come before ranges (RFC 9110, section 13.2.2), and a date among them that cannot be read is not there. Several ranges at
  once, and ranges of HEAD, are not understood, and ignored.
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
"""How the variants of a file are called beside it, by content coding."""

SMALL = 1 << 16
"""Bytes. A file that is not larger is kept in memory: to open, send and close it takes as long as all the rest."""

KEPT = 256
"""So many small files are kept, those that were asked for last; 16 MiB at most."""

_PRECONDITIONS = frozenset(
    {"HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"}
)

_KEPT_IN_304 = frozenset({"Cache-Control", "ETag", "Vary"})
"""Of what a file's responses have, what a 304 must have as well (RFC 9110, section 15.4.5)."""

Fields = list[tuple[str, str]]


class FileAnswer(NamedTuple):
    """What a request for a file is answered with: *content*, or *size* bytes of *file*, from where it is; whoever sends them closes it."""

    status: str
    fields: Sequence[tuple[str, str]]
    content: bytes = b""
    file: IO[bytes] | None = None
    size: int = 0


class Variant:
    """The bytes at *path*, in *coding* (``""``: as they are), with what a response says of them."""

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
        """The file. Raises OSError, also where it is not as it was."""
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115  # whoever sends it closes it
        if not self.is_unchanged(os.fstat(file.fileno())):
            file.close()
            raise OSError("the file has changed since the start")
        return file


class StaticFile:
    """The file at *path* and those beside it, as *found* has them by path. *fields* are said of it whatever the variant."""

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
        """The answer to a request with *method* and *fields*, called as in a WSGI environment; None where it is the app's to answer: not
        GET or HEAD, or the file is not as it was at the start.
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
        """The coding that the client likes best, and the smallest of those that it likes as much."""
        weights = read_weights(accept_encoding)
        chosen, best = self._plain, max(weights.get("identity", 0.0), 0.0)
        for variant in self._coded:
            weight = weights.get(variant.coding, 0.0)
            if weight > best or (chosen is self._plain and 0 < weight == best):
                chosen, best = variant, weight
        return chosen

    def _precondition(self, variant: Variant, fields: Mapping[str, Any]) -> str | None:
        """The status where a precondition does not hold, in the order of RFC 9110, section 13.2.2."""
        tag = variant.etag.strip('"')
        said = fields.get("HTTP_IF_MATCH")
        if said is not None:  # section 13.1.1: the strong comparison
            if not read_tags(said).has(tag):
                return "412 Precondition Failed"
        elif (date := read_date(fields.get("HTTP_IF_UNMODIFIED_SINCE"))) is not None and self._modified > date:
            return "412 Precondition Failed"  # section 13.1.4
        said = fields.get("HTTP_IF_NONE_MATCH")
        if said is not None:  # section 13.1.2: the weak comparison
            if read_tags(said).has_weakly(tag):
                return "304 Not Modified"
        elif (date := read_date(fields.get("HTTP_IF_MODIFIED_SINCE"))) is not None and self._modified <= date:
            return "304 Not Modified"  # section 13.1.3
        return None

    def _if_range(self, variant: Variant, fields: Mapping[str, Any]) -> bool:
        """RFC 9110, section 13.1.5: the very tag, which is a strong one, or the very date."""
        said = fields.get("HTTP_IF_RANGE")
        return said is None or said in (variant.etag, self._last_modified)


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
    """Raises OSError, and keeps nothing then."""
    with variant.open() as file:
        content = file.read(variant.size)
    if len(content) != variant.size:
        raise OSError("the file has become shorter while it was read")
    return content


def is_variant(path: str, names: Iterable[str] | Mapping[str, object]) -> bool:
    """Whether *path* is a compressed form of another of *names*."""
    return any(path.endswith(suffix) and path.removesuffix(suffix) in names for suffix in SUFFIXES.values())
