"""PIDFILE: the supervisor's process id, for scripts that send signals.

Rules: another account may be able to write to its directory, so nothing in there is followed,
opened for writing, or waited for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys

from ..errors import ProdServeError

_LONGEST = 32
"""Most bytes of a process id with blanks around it."""


def write_pidfile(path: str) -> None:
    """Write this process's id to *path*.

    Raises ProdServeError if it names another running process or cannot be written.
    """
    owner = read_pidfile(path)
    if owner is not None and owner != os.getpid() and _lives(owner):
        raise ProdServeError(
            f"PIDFILE: {path} names process {owner}, which is running: the server has been started already.",
            "Stop it, or give this server another PIDFILE. If that process is no server, remove the file.",
        )
    # Renamed into place, so that no reader sees half a number, and a link at *path* is replaced,
    # not followed.
    folder, name = os.path.split(os.path.abspath(path))
    draft = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
    except OSError as error:
        raise ProdServeError(
            f"PIDFILE: {path} cannot be written: {error.strerror}.",
            "Set PIDFILE to a file in an existing directory that this user can write to.",
        ) from error


def read_pidfile(path: str) -> int | None:
    """Return the process id in the file; None if it has none or is not a regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        number = int(os.read(descriptor, _LONGEST + 1).decode("ascii"))
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
    return number if 0 < number < 2**31 else None


def remove_pidfile(path: str) -> None:
    """Remove the file if it still names this process."""
    if read_pidfile(path) == os.getpid():
        with contextlib.suppress(OSError):
            os.unlink(path)


def _lives(process: int) -> bool:
    if sys.platform == "win32":
        return False  # unknown: signal 0 is CTRL+C there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
