"""The stacks that a dying worker writes (``faulthandler``): into a file of its own, which the supervisor logs as one block.

Written to standard error, the lines of two workers that are killed at the same time would mix. The supervisor reads a bounded amount and
trusts none of it: the app can write there, too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile

from ..observe.printable import printable

MOST_BYTES = 1 << 16
"""Of a dump that are logged. The stacks of 100 threads have half as much."""


def open_dump() -> int | None:
    """A descriptor of an unnamed file for one worker; None if there can be none."""
    with contextlib.suppress(OSError):
        if hasattr(os, "memfd_create"):
            return os.memfd_create("prodserve-stacks")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    return None


def enable(dump: int | None) -> None:
    """In a worker: have SIGABRT, SIGSEGV and the like write all stacks to *dump*, whatever the interpreter is doing. Its forked children
    write to standard error.
    """
    if dump is None:
        _enable_to_standard_error()
        return
    faulthandler.enable(dump, all_threads=True)
    os.register_at_fork(after_in_child=_enable_to_standard_error)


def read(dump: int) -> str:
    """What was written to *dump*, with each line indented, so that none can pass for another log line."""
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
