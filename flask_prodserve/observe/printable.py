"""Makes text from other sources safe for a terminal and a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape all characters of *text* that do not print, as in Python's literals.

    These are control characters, which terminals obey, invisible characters, and those that change
    the writing direction.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def printable_lines(text: str) -> str:
    """Escape what does not print in each line of *text*."""
    return "\n".join(map(printable, text.split("\n")))


def printable_ascii(text: str) -> str:
    """Escape backslashes, and all characters of *text* that are not printable ASCII.

    For bytes in an unknown encoding, which WSGI represents as latin-1.
    """
    return text.encode("unicode_escape").decode("ascii")
