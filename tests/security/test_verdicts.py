"""One message, three readers: what ours accepts and refuses, beside h11 and waitress, and why where they differ.

The tables are in ``verdict_cases_of_heads`` and ``verdict_cases_of_framing``. All three readers run, so the tables cannot rot.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from request_readers import ACCEPT, REFUSE, STATUSES, WAIT, read_ours, read_with_h11, read_with_waitress
from verdict_case import Case
from verdict_cases_of_framing import CASES as FRAMING
from verdict_cases_of_heads import CASES as HEADS

CASES = [*HEADS, *FRAMING]
TRAILING = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


def whole(message: bytes) -> list[bytes]:
    return [message]


def byte_by_byte(message: bytes) -> list[bytes]:
    return [message[index : index + 1] for index in range(len(message))]


def with_trailing_data(message: bytes) -> list[bytes]:
    return [message + TRAILING]


@pytest.mark.parametrize("way", [whole, byte_by_byte, with_trailing_data])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdicts(case: Case, way: Callable[[bytes], list[bytes]]) -> None:
    """Each reader says what the table says however the message comes, and those that accept it read the same."""
    pieces = way(case.message)
    ours = read_ours(pieces)
    assert ours.verdict == case.ours
    assert ours.consumed == (len(case.message) if case.ours == ACCEPT else 0)
    for read, verdict in ((read_with_h11, case.h11), (read_with_waitress, case.waitress)):
        if verdict == WAIT and way is with_trailing_data:
            continue  # it takes the next request for the rest of this one
        theirs = read(pieces)
        assert theirs.verdict == verdict, read.__name__
        if case.ours == verdict == ACCEPT:
            assert theirs == ours, read.__name__


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_cut(case: Case) -> None:
    """A message that comes in two pieces is read as it is whole, wherever it is cut (in a hundred places, if it is long)."""
    message = case.message
    reading = read_ours([message])
    for cut in range(1, len(message), max(1, len(message) // 100)):
        assert read_ours([message[:cut], message[cut:]]) == reading, cut


def unexplained(case: Case) -> bool:
    """Whether verdicts differ without a reason that names its section, or a reason is given where nothing differs."""
    agreed = ACCEPT if case.ours == ACCEPT else REFUSE
    if case.h11 == case.waitress == agreed:
        return case.reason != ""
    return re.match(r"RFC \d{4}, section \d+(\.\d+)*: ", case.reason) is None


def test_each_difference_has_its_reason() -> None:
    """Where ours differs from h11 or waitress, the table says why and after which section; elsewhere it says nothing."""
    assert [case.name for case in CASES if unexplained(case)] == []


@pytest.mark.parametrize(
    ("h11", "waitress", "reason"),
    [
        (ACCEPT, REFUSE, ""),
        (REFUSE, ACCEPT, "h11 does so"),
        (WAIT, REFUSE, ""),
        (REFUSE, REFUSE, "RFC 9112, section 1: x"),
    ],
)
def test_what_is_unexplained(h11: str, waitress: str, reason: str) -> None:
    """A difference without a reason, or with one that has no section, is found, and so is a reason for no difference."""
    assert unexplained(Case("refused by us", b"", 400, h11, waitress, reason))


def test_the_table_is_whole() -> None:
    """Each row has a name of its own, and there are rows for all that our reader may say."""
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.ours for case in CASES} == {ACCEPT, *STATUSES}
