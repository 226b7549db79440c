"""What the exit status of a worker means: an exit code, or the negated number of the signal that
killed it.
"""

from __future__ import annotations

import signal

from ..errors import ExitCode


def exit_code_after_boot(status: int) -> int:
    """Return the exit code of a server whose first worker ended with *status*: the worker's own
    code if it names a cause.
    """
    known = (ExitCode.FAILURE, ExitCode.USAGE, ExitCode.APP)
    return status if status in known else ExitCode.BOOT


def describe_exit(status: int) -> str:
    """Return *status* in words, to follow the name of a worker."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
