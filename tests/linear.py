"""Whether the time that something takes grows with its input, and not with the square of that. No absolute speed is asserted."""

from __future__ import annotations

import time
from collections.abc import Callable

LENGTH = 30_000
"""Characters of the longest input: a little less than MAX_HEADER_SIZE allows."""

TIMES = 4
"""How many times as long the second input is."""

MOST = 10.0
"""How many times as long the second may take: 4 times if it grows with the input, 16 times if it grows with its square."""

NOISE = 0.002
"""Seconds of processor time below which nothing is compared."""


def _seconds(function: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        function(text)
        best = min(best, time.thread_time() - began)
    return best


def is_linear(function: Callable[[str], object], make: Callable[[int], str]) -> bool:
    """Whether *function* takes *make*'s input of 30 KB, in processor time, less than 10 times as long as a quarter of that."""
    long = _seconds(function, make(LENGTH))
    return long < NOISE or long < MOST * _seconds(function, make(LENGTH // TIMES))


def forms(length: int) -> dict[str, str]:
    """Texts of about *length* characters that patterns of fields fall for, by name."""

    def fill(part: str, before: str = "", after: str = "") -> str:
        return before + part * ((length - len(before) - len(after)) // len(part)) + after

    return {
        "blanks": fill(" ", "a", "b"),
        "tabs": fill("\t", "a", "b"),
        "blanks between tags": fill(" ", '"a"', '"b"'),
        "rows of blanks": fill("a" + " " * 16),
        "rows of blanks between tags": fill('"a"' + " " * 16),
        "quotes": fill('"'),
        "unclosed quotes": fill('"a'),
        "backslashes": fill("\\", 'a; x="'),
        "commas": fill(","),
        "commas and blanks": fill(", "),
        "letters": fill("a"),
        "weak marks": fill("W/"),
        "weak tags": fill('W/"a", '),
        "tags": fill('"a",', after='"b'),
        "digits": fill("1", "bytes="),
        "ranges": fill("0-1,", "bytes="),
        "blanks in a range": fill(" ", "bytes=0-", "1"),
        "dashes": fill("-", "bytes="),
        "weights": fill("a;q=0.5,"),
        "digits of a weight": fill("1", "a;q=0."),
        "equals": fill("a="),
        "semicolons": fill(";"),
        "parameters": fill('; x="a"', "a"),
        "parentheses": fill("("),
    }
