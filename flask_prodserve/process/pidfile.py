"""PIDFILE: who runs here, for those who send signals.

Rules: its folder may be writable by another account, so nothing that stands there is followed, opened for writing, or waited for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys

from ..errors import ProdServeError

_LONGEST = 32
"""Bytes of a process id with blanks around it."""


def write_pidfile(path: str) -> None:
    """Put this process's id into the file *path*. Raises ProdServeError where a living process has put its own, or it cannot be written."""
    owner = read_pidfile(path)
    if owner is not None and owner != os.getpid() and _lives(owner):
        raise ProdServeError(
            f"PIDFILE: {path} says that the server runs already, as process {owner}.",
            "Stop that one, or give this one another PIDFILE. If that process is something else, remove the file.",
        )
    # Renamed into place: no reader sees half a number, and a link at *path* is replaced, not followed.
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
            "Set PIDFILE to a file in a folder that exists and that this user may write to.",
        ) from error


def read_pidfile(path: str) -> int | None:
    """The process id in the file; None if there is none, or if it is not a regular file."""
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
    """Remove it, if it is still ours."""
    if read_pidfile(path) == os.getpid():
        with contextlib.suppress(OSError):
            os.unlink(path)


def _lives(process: int) -> bool:
    if sys.platform == "win32":
        return False  # not known: signal 0 asks nothing there, it is CTRL+C
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
