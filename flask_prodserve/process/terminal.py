"""The terminal that the server was started from: tells whether SIGHUP means that it was closed.

A terminal that closes sends SIGHUP, and so does ``kill -HUP``. Once a terminal is closed, its
processes have none, and opening ``/dev/tty`` fails with ENXIO (tty_ioctl(2), credentials(7)).
SIGHUP never comes from a terminal if there was none at the start (``setsid``, systemd, daemons), or
if SIGHUP was ignored (``nohup``).
"""

from __future__ import annotations

import errno
import os

from ..clock import Deadline

GRACE_SECONDS = 5.0
"""A terminal's SIGHUP arrives within milliseconds.

If none arrives in this time, the shell wants the server to live on (``disown``).
"""


class Terminal:
    """*ignores_hangup*: SIGHUP was ignored when the process started."""

    def __init__(self, *, ignores_hangup: bool) -> None:
        self._watched = not ignores_hangup and _is_there()
        self._grace: Deadline | None = None

    def check(self) -> None:
        """Notice that the terminal was closed.

        Call it about once a second, so that a later SIGHUP is not taken for the terminal's.
        """
        if self._watched and not _is_there():
            self._grace = self._grace or Deadline(GRACE_SECONDS)
            self._watched = not self._grace.passed()

    @property
    def was_closed(self) -> bool:
        """Whether a SIGHUP that has just arrived is the terminal's."""
        return self._watched and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.EIO, errno.ENOENT)
    return True
