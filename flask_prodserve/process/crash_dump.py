"""The stacks that a dying worker writes (``faulthandler``) into a file of its own, which the
supervisor logs as one block.

On standard error, the lines of two workers that die at the same time would mix. The supervisor
reads a bounded amount and does not trust it: the app can write to the file too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile

from ..observe.printable import printable

MOST_BYTES = 1 << 16
"""How much of a dump is logged. The stacks of 100 threads take half of it."""


def open_dump() -> int | None:
    """Return the descriptor of an unnamed file for one worker; None if none can be made."""
    with contextlib.suppress(OSError):
        if hasattr(os, "memfd_create"):
            return os.memfd_create("prodserve-stacks")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    return None


def enable(dump: int | None) -> None:
    """In a worker: write all stacks to *dump* on SIGABRT, SIGSEGV and the like, whatever the
    interpreter is doing.

    Children that it forks write to standard error.
    """
    if dump is None:
        _enable_to_standard_error()
        return
    faulthandler.enable(dump, all_threads=True)
    os.register_at_fork(after_in_child=_enable_to_standard_error)


def read(dump: int) -> str:
    """Return what was written to *dump*, with each line indented, so that none can pass for a log
    line.
    """
    try:
        data = os.pread(dump, MOST_BYTES, 0)
    except OSError:
        return ""
    lines = data.decode("ascii", "backslashreplace").rstrip().split("\n")
    return "\n".join(f"  {printable(line)}" for line in lines) if data else ""


def _enable_to_standard_error() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # replaced by something without a descriptor
            faulthandler.enable(all_threads=True)
