"""What is escaped in text that others have written."""

from __future__ import annotations

from flask_prodserve.observe.printable import printable, printable_ascii, printable_lines


def test_printable() -> None:
    """Characters that do not print are escaped; all others stay as they are."""
    assert printable("Grüße \\n") == "Grüße \\n"
    assert printable("a\nb\x1b[31m\u202e\x85") == "a\\nb\\x1b[31m\\u202e\\x85"


def test_lines() -> None:
    """Line feeds between lines are kept."""
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"


def test_printable_ascii() -> None:
    """Whatever is not printable ASCII is escaped, and so are backslashes."""
    assert printable_ascii("GET /a b~") == "GET /a b~"
    assert printable_ascii("\x85\xff\t\\") == "\\x85\\xff\\t\\\\"
