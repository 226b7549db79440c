"""systemd's two protocols: what a service says of itself (sd_notify(3)), and the sockets that it is given (sd_listen_fds(3)).

Rules: without systemd nothing happens, and what it does not take stops nothing. Nobody's environment is changed in here; the caller
removes the variables that are HIDDEN.
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
"""What is meant for the server alone: neither the app nor programs that it starts speak for it."""

_FIRST_DESCRIPTOR = 3
_UNNAMED = "unknown"
_FAMILIES = frozenset(getattr(socket, name) for name in ("AF_INET", "AF_INET6", "AF_UNIX") if hasattr(socket, name))
_SEND_SECONDS = 1.0


class Notifier:
    """Tells systemd how the service is. Does nothing where nobody listens.

    *address* is where to send to (``\\0`` first: an abstract one), None: nowhere. *watchdog_interval* is after how many seconds systemd
    wants to hear from the service again, None where it does not look.
    """

    def __init__(self, address: str | None = None, watchdog_interval: float | None = None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """For this process, which is the one that systemd watches."""
        named = environ.get("NOTIFY_SOCKET", "")
        if named[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
            return cls()
        return cls("\0" + named[1:] if named.startswith("@") else named, _watchdog_interval(environ, os.getpid()))

    def ready(self, status: str = "") -> None:
        """Serving: for the first time, or again after :meth:`reloading`."""
        self._send("READY=1", *([_status(status)] if status else []))

    def reloading(self) -> None:
        """New code is on its way, until :meth:`ready` says that it is there, or will not be."""
        # In one message (Type=notify-reload): by the time systemd knows that its own request is what is answered.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(_status(text))

    def main_pid(self, pid: int) -> None:
        """Which process is the service."""
        self._send(f"MAINPID={pid}")

    def watchdog(self) -> None:
        """Alive. To be said every *watchdog_interval* seconds; says nothing where systemd does not look."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)  # its queue may be full, and its reader stuck
                sender.sendto("\n".join(assignments).encode("utf-8", "backslashreplace"), self._address)
        except OSError as error:
            logger.debug("systemd was not told %s: %s", assignments[0], error)


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ")


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of the time after which systemd gives a service up, as sd_watchdog_enabled(3) recommends."""
    microseconds = _number(environ.get("WATCHDOG_USEC"))
    if not microseconds or _number(environ.get("WATCHDOG_PID", str(pid))) != pid:
        return None
    return microseconds / 1e6 / 2


@dataclass(frozen=True, slots=True)
class Inherited:
    """A listening socket from systemd, and the name that its unit has for it (``FileDescriptorName=``).

    *descriptor* stays open as long as the process lives; whoever listens on it uses a duplicate.
    """

    name: str
    descriptor: int


def inherited_sockets(environ: Mapping[str, str], pid: int) -> list[Inherited]:
    """The sockets that systemd has passed to the process *pid*, which is this one. They do not go to the programs that it starts.

    Raises BindError for what cannot be served on.
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
    shown = f"{given.name!r} (descriptor {given.descriptor}), which systemd has passed,"
    try:
        sock = socket.socket(fileno=given.descriptor)
    except OSError as error:
        raise BindError(
            f"{shown} is no socket: {error.strerror or error}.",
            "In the .socket unit write ListenStream=, and nothing else that listens; in the .service unit no OpenFile=.",
        ) from error
    try:
        if (
            sock.family not in _FAMILIES
            or sock.type != socket.SOCK_STREAM
            or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            raise BindError(
                f"{shown} is no stream socket that listens on TCP or on a path.",
                "In the .socket unit write ListenStream= with a port, an address or a path, and leave Accept= out.",
            )
    finally:
        sock.detach()


def _number(text: str | None) -> int | None:
    """What *text* says in decimal digits; None for anything else."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 20 else None
