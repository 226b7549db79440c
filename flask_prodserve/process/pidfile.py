"""PIDFILE: who runs here, for those who send signals."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from ..errors import ProdServeError


def write_pidfile(path: str) -> None:
    """Put this process's id into the file *path*. Raises ProdServeError where a living process has put its own, or it cannot be written."""
    file = Path(path)
    owner = read_pidfile(path)
    if owner is not None and owner != os.getpid() and _lives(owner):
        raise ProdServeError(
            f"PIDFILE: {path} says that the server runs already, as process {owner}.",
            "Stop that one, or give this one another PIDFILE. If that process is something else, remove the file.",
        )
    # Renamed into place, so that nobody reads half a number.
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_text(f"{os.getpid()}\n", "ascii")
        draft.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise ProdServeError(
            f"PIDFILE: {path} cannot be written: {error.strerror}.",
            "Set PIDFILE to a file in a folder that exists and that this user may write to.",
        ) from error


def read_pidfile(path: str) -> int | None:
    """The process id in the file, None where there is none."""
    try:
        return int(Path(path).read_text("ascii"))
    except (OSError, ValueError):
        return None


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
