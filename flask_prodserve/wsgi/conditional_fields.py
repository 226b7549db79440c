"""Reads conditional, range and coding fields of requests for static files, strictly and in linear
time. Pure: text in, values out.

No library sees these fields as the client sent them: Werkzeug 3.1.3's pattern for entity tags takes
seconds for a field of 30 KB. Each pattern here only moves forward: if a repeated part may end, the
next part starts with another character.

Rules:

- A malformed field matches nothing: If-None-Match and Range are then ignored, and If-Match fails.
- Some clients deviate from the grammar. These forms are accepted: entity tags without quotes, empty
  list members, and blanks around ``=`` in Range.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.http import parse_date

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DATE = 64
"""Longest date that is read, in characters. The longest form has 33 (RFC 9110, section 5.6.7:
``Wednesday, 06-Nov-94 08:49:37 GMT``).
"""

MAX_CACHED = 256
"""Longest Accept-Encoding field that is cached, in characters. Browsers send about 30."""

# RFC 9110, section 13.1.2:  If-None-Match = "*" / #entity-tag;  section 8.8.3:  entity-tag = [ "W/"
# ] DQUOTE *etagc DQUOTE etagc = %x21 / %x23-7E / obs-text
_TAG = re.compile(r'[ \t,]*(?:(?P<weak>[Ww]/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"|(?P<bare>[^ \t,"]+))[ \t]*(?:,|$)')

# RFC 9110, section 14.1.2:  int-range = first-pos "-" [ last-pos ];  suffix-range = "-"
# suffix-length Requests for several ranges get the whole file. No file size has more than 19
# digits.
_RANGE = re.compile(
    r"bytes[ \t]*=[ \t]*(?:(?P<first>[0-9]{1,19})-(?P<last>[0-9]{0,19})|-(?P<suffix>[0-9]{1,19}))[ \t,]*",
    re.IGNORECASE | re.ASCII,
)

# RFC 9110, section 12.4.2:  weight = OWS ";" OWS "q=" qvalue;  qvalue = ( "0" [ "." 0*3DIGIT ] ) /
# ( "1" [ "." 0*3("0") ] )
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE | re.ASCII)


class Tags(NamedTuple):
    """The entity tags of If-Match or If-None-Match. *any* stands for ``*``."""

    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    any: bool = False

    def has(self, tag: str) -> bool:
        """Compare strongly (RFC 9110, section 8.8.3.2) with *tag*, a strong tag without its quotes."""
        return self.any or tag in self.strong

    def has_weakly(self, tag: str) -> bool:
        """Compare weakly with *tag*."""
        return self.has(tag) or tag in self.weak


def read_tags(text: str) -> Tags:
    """Return the entity tags in *text*; none if it is malformed."""
    if text == "*":
        return Tags(any=True)
    strong: set[str] = set()
    weak: set[str] = set()
    text = text.rstrip(" \t,")
    position = 0
    while position < len(text):
        match = _TAG.match(text, position)
        if match is None:
            return Tags()
        position = match.end()
        if match["bare"] is not None:
            strong.add(match["bare"])
        else:
            (weak if match["weak"] else strong).add(match["tag"])
    return Tags(frozenset(strong), frozenset(weak))


def read_range(text: str, size: int) -> tuple[int, int] | None:
    """Return the start and end of the one range that *text* requests of *size* bytes; None if
    everything is to be sent.

    A range that cannot be satisfied is empty: its start is not below its end.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    if match["suffix"] is not None:  # the last bytes; all of a shorter file
        return size - min(int(match["suffix"]), size), size
    first = int(match["first"])
    if not match["last"]:
        return first, size
    last = int(match["last"])
    return (first, min(last + 1, size)) if first <= last else None


def read_date(text: str | None) -> datetime | None:
    """Return the time in *text*, or None if it is not a valid date."""
    if text is None or len(text) > MAX_DATE:
        return None
    try:
        return parse_date(text)
    except OverflowError:  # a year or zone with many digits
        return None


def read_weights(text: str) -> Mapping[str, float]:
    """Return the content codings in an Accept-Encoding field, in lower case, with their weights
    (RFC 9110, section 12.5.3).
    """
    return _cached_weights(text) if len(text) <= MAX_CACHED else _weights(text)


def _weights(text: str) -> Mapping[str, float]:
    weights = {}
    for member in text.split(","):
        coding, semicolon, weight = (part.strip(" \t") for part in member.partition(";"))
        if not semicolon:
            weights[coding.lower()] = 1.0
        elif match := _WEIGHT.fullmatch(weight):
            weights[coding.lower()] = float(match[1])
    return MappingProxyType(weights)


_cached_weights = lru_cache(maxsize=128)(_weights)
