"""The terminal that the server was started from: whether SIGHUP means that it was closed.

A terminal that closes sends SIGHUP, and so does ``kill -HUP``. The two differ in what is left: once a terminal is closed, processes that
had it have none, and opening ``/dev/tty`` fails with ENXIO (tty_ioctl(2), credentials(7)). No terminal at the start, as with ``setsid``,
systemd and daemons, or SIGHUP ignored, as with ``nohup``: then no SIGHUP is that of a terminal.
"""

from __future__ import annotations

import errno
import os

from ..clock import Deadline

GRACE_SECONDS = 5.0
"""The SIGHUP of a terminal comes within milliseconds. If none came in this time, the shell meant the server to live on (``disown``)."""


class Terminal:
    """*immune*: SIGHUP was ignored when the process was started."""

    def __init__(self, *, immune: bool) -> None:
        self._watched = not immune and _is_there()
        self._grace: Deadline | None = None

    def check(self) -> None:
        """Notice that it was closed. To be called about once a second, so that later signals are not taken for its own."""
        if self._watched and not _is_there():
            self._grace = self._grace or Deadline(GRACE_SECONDS)
            self._watched = not self._grace.passed()

    @property
    def was_closed(self) -> bool:
        """Whether a SIGHUP that has just come is that of the terminal."""
        return self._watched and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.EIO, errno.ENOENT)
    return True
