"""Conditional, range and coding fields of a request for a static file, read strictly and in linear time. Pure: text in, values out.

No library sees these fields as the client sent them: the pattern for entity tags of Werkzeug 3.1.3 takes seconds for a field of 30 KB.
Each pattern here moves forward only: where a repeated part may end, the next part begins with another character.

Rules:

- A malformed field counts as one that matches nothing: If-None-Match and Range are ignored then, and If-Match fails.
- Clients in use deviate from the grammar, and these forms are accepted: entity tags without quotes, empty list members, and blanks
  around ``=`` in Range.
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
"""Characters of a date that is read. The longest form has 33 (RFC 9110, section 5.6.7: ``Wednesday, 06-Nov-94 08:49:37 GMT``)."""

MAX_REMEMBERED = 256
"""Characters of an Accept-Encoding field that is remembered. Browsers send about 30."""

# RFC 9110, section 13.1.2:  If-None-Match = "*" / #entity-tag;  section 8.8.3:  entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
#   etagc = %x21 / %x23-7E / obs-text
_TAG = re.compile(r'[ \t,]*(?:(?P<weak>[Ww]/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"|(?P<bare>[^ \t,"]+))[ \t]*(?:,|$)')

# RFC 9110, section 14.1.2:  int-range = first-pos "-" [ last-pos ];  suffix-range = "-" suffix-length
# Of several ranges none is sent. No file has a size of more than 19 digits.
_RANGE = re.compile(
    r"bytes[ \t]*=[ \t]*(?:(?P<first>[0-9]{1,19})-(?P<last>[0-9]{0,19})|-(?P<suffix>[0-9]{1,19}))[ \t,]*",
    re.IGNORECASE | re.ASCII,
)

# RFC 9110, section 12.4.2:  weight = OWS ";" OWS "q=" qvalue;  qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE | re.ASCII)


class Tags(NamedTuple):
    """What If-Match or If-None-Match names. *any* is ``*``."""

    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    any: bool = False

    def has(self, tag: str) -> bool:
        """The strong comparison (RFC 9110, section 8.8.3.2) with *tag*, a strong one without its quotes."""
        return self.any or tag in self.strong

    def has_weakly(self, tag: str) -> bool:
        """The weak comparison."""
        return self.has(tag) or tag in self.weak


def read_tags(text: str) -> Tags:
    """The entity tags in *text*, or none if it is malformed."""
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
    """Begin and end of the one range that *text* wants of *size* bytes, with nothing between them if it cannot be satisfied. None if all
    is to be sent.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    if match["suffix"] is not None:  # the last so many bytes, of a shorter file all
        return size - min(int(match["suffix"]), size), size
    first = int(match["first"])
    if not match["last"]:
        return first, size
    last = int(match["last"])
    return (first, min(last + 1, size)) if first <= last else None


def read_date(text: str | None) -> datetime | None:
    """The time that *text* names; None if it is none."""
    if text is None or len(text) > MAX_DATE:
        return None
    try:
        return parse_date(text)
    except OverflowError:  # a year or zone with many digits
        return None


def read_weights(text: str) -> Mapping[str, float]:
    """The content codings that an Accept-Encoding field names, in lower case, with their weights (RFC 9110, section 12.5.3)."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _weights(text)


def _weights(text: str) -> Mapping[str, float]:
    weights = {}
    for member in text.split(","):
        coding, semicolon, weight = (part.strip(" \t") for part in member.partition(";"))
        if not semicolon:
            weights[coding.lower()] = 1.0
        elif match := _WEIGHT.fullmatch(weight):
            weights[coding.lower()] = float(match[1])
    return MappingProxyType(weights)


_remembered = lru_cache(maxsize=128)(_weights)
