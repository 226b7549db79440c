"""Replace the supervisor by a new one in the same process (``exec``)."""

from __future__ import annotations

import os

from ..observe import line_writer
from .exit_guard import end_daemons
from .handover import HandoverState, hand_over, take_back
from .preflight_check import StartCommand
from .signals import SignalInbox, blocked


def replace_supervisor(handover: HandoverState, command: StartCommand, inbox: SignalInbox) -> str:
    """Execute *command* in this process and hand everything over to it.

    Returns only if that fails: the error.
    """
    environ = dict(command.environ)
    hand_over(handover, environ)
    end_daemons()
    line_writer.flush()
    with blocked():
        try:
            os.chdir(command.folder)
            inbox.ignore_again()
            os.execve(command.program, command.arguments, environ)  # noqa: S606  # no shell is wanted
        except OSError as failure:
            error = cannot_execute(command, failure)
            inbox.open()
    take_back(handover, environ)
    return error


def cannot_execute(command: StartCommand, error: OSError) -> str:
    """Return the text for an *error* of executing *command*."""
    return f"cannot execute {command.program}: {error.strerror}"
