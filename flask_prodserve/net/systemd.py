"""systemd's two protocols: the notifications of a service (sd_notify(3)), and the sockets passed to
it (sd_listen_fds(3)).

Rules: without systemd nothing happens, and a notification that fails stops nothing. The environment
is never changed here; the caller removes the variables in HIDDEN.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BindError

logger = logging.getLogger("flask_prodserve.systemd")

HIDDEN = (
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
"""Variables for the server alone. The app, and programs that it starts, must not notify for the
server.
"""

_FIRST_DESCRIPTOR = 3
_UNNAMED = "unknown"
_FAMILIES = frozenset(getattr(socket, name) for name in ("AF_INET", "AF_INET6", "AF_UNIX") if hasattr(socket, name))
_SEND_SECONDS = 1.0


class Notifier:
    """Sends the state of the service to systemd.

    *address* is systemd's socket (with ``\\0`` first: an abstract one); with None nothing is sent.
    *watchdog_interval* is the time in seconds between two watchdog messages, None if systemd
    expects none.
    """

    def __init__(self, address: str | None = None, watchdog_interval: float | None = None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """Make the notifier for this process from systemd's variables."""
        named = environ.get("NOTIFY_SOCKET", "")
        if named[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
            return cls()
        return cls("\0" + named[1:] if named.startswith("@") else named, _watchdog_interval(environ, os.getpid()))

    def ready(self, status: str = "") -> None:
        """Report that the service serves, for the first time or again after :meth:`reloading`."""
        self._send("READY=1", *([_status(status)] if status else []))

    def reloading(self) -> None:
        """Report that a reload has started. :meth:`ready` reports its end, whether it succeeded or
        failed.
        """
        # In one message (Type=notify-reload): the time tells systemd that this answers its own
        # request.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(_status(text))

    def main_pid(self, pid: int) -> None:
        """Report the main process of the service."""
        self._send(f"MAINPID={pid}")

    def watchdog(self) -> None:
        """Report that the service is alive. Call it every *watchdog_interval* seconds; does nothing
        without an interval.
        """
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)  # its queue may be full and its reader stuck
                sender.sendto("\n".join(assignments).encode("utf-8", "backslashreplace"), self._address)
        except OSError as error:
            logger.debug("could not send %s to systemd: %s", assignments[0], error)


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ")


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Return half of systemd's watchdog timeout in seconds, as sd_watchdog_enabled(3) recommends,
    or None.
    """
    microseconds = _number(environ.get("WATCHDOG_USEC"))
    if not microseconds or _number(environ.get("WATCHDOG_PID", str(pid))) != pid:
        return None
    return microseconds / 1e6 / 2


@dataclass(frozen=True, slots=True)
class Inherited:
    """A listening socket from systemd, and its name in the unit (``FileDescriptorName=``).

    *descriptor* stays open as long as the process lives; a listener uses a duplicate.
    """

    name: str
    descriptor: int


def inherited_sockets(environ: Mapping[str, str], pid: int) -> list[Inherited]:
    """Return the sockets that systemd passed to this process, *pid*. Programs that it starts do not
    inherit them.

    Raises BindError for a socket that cannot be served on.
    """
    count = _number(environ.get("LISTEN_FDS"))
    if not count or _number(environ.get("LISTEN_PID")) != pid:
        return []
    named = environ.get("LISTEN_FDNAMES", "").split(":")
    passed = []
    for number in range(count):
        name = (named[number] if number < len(named) else "") or _UNNAMED
        given = Inherited(name, _FIRST_DESCRIPTOR + number)
        _check(given)
        os.set_inheritable(given.descriptor, False)
        os.set_blocking(given.descriptor, False)
        passed.append(given)
    return passed


def _check(given: Inherited) -> None:
    shown = f"{given.name!r} (descriptor {given.descriptor}), which systemd passed,"
    try:
        sock = socket.socket(fileno=given.descriptor)
    except OSError as error:
        raise BindError(
            f"{shown} is not a socket: {error.strerror or error}.",
            "Use only ListenStream= in the .socket unit, and no OpenFile= in the .service unit.",
        ) from error
    try:
        if (
            sock.family not in _FAMILIES
            or sock.type != socket.SOCK_STREAM
            or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            raise BindError(
                f"{shown} is not a listening TCP or Unix stream socket.",
                "In the .socket unit use ListenStream= with a port, an address or a path, and omit Accept=.",
            )
    finally:
        sock.detach()


def _number(text: str | None) -> int | None:
    """Return the number in *text*, decimal digits only; None for anything else."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 20 else None
