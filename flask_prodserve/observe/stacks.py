"""Shows the stacks of threads as text."""

from __future__ import annotations

import sys
import threading
import traceback

_OWN = (__name__.partition(".")[0] + ".", "threading")


def stack_of(thread: int) -> str:
    """Return the stack of the thread with that identity, outermost call first, without the server's
    own frames.
    """
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "  (the thread has ended)"
    lines = traceback.StackSummary.extract(
        (entry, line)
        for entry, line in traceback.walk_stack(frame)
        if not str(entry.f_globals.get("__name__", "")).startswith(_OWN)
    )
    lines.reverse()
    return "".join(lines.format()).rstrip()


def all_stacks() -> str:
    """Return the stacks of all threads of this process by name, including the server's own frames."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n\n".join(
        f"{names.get(thread, 'unnamed thread')}:\n{''.join(traceback.format_stack(frame)).rstrip()}"
        for thread, frame in sys._current_frames().items()
    )
