"""Where the control socket is: a path that somebody chose, or a place that both sides find by themselves.

Rules: only this account can reach it, from its first moment on. A file is never removed, and a socket only if nobody listens on it. The
automatic place is a folder that belongs to this account; if somebody else was there first, it is not used.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from glob import iglob

from ...errors import ProdServeError
from ...net.root_only import open_to_others

BACKLOG = 16

_LONGEST_PATH = 103
"""Bytes of a Unix socket's path that every system takes: sun_path is 104 with its NUL on BSD and macOS, 108 on Linux."""

RUN = "/run"
"""Where systemd makes runtime directories: of services one or two levels down, of users in user/UID."""

TEMPORARY = "/tmp"  # noqa: S108  # see _is_safe

_HINT = "Set CONTROL_SOCKET (--control-socket) to a path in a folder of the server's user, to auto, or to off."


class ControlSocketError(ProdServeError):
    """The control socket cannot be opened where CONTROL_SOCKET says."""


def working_folder(environ: Mapping[str, str]) -> str:
    """The working folder, by the name that the shell or systemd gave it: a deployment may make that name stand for another one."""
    named = environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, os.curdir):
            return named
    except OSError:
        pass
    return os.getcwd()


def automatic_path(app: str, folder: str, pid: int, environ: Mapping[str, str]) -> str | None:
    """A path for the socket of the server *pid* of *app* (``discovery.key_of``) in *folder*, in the first place that can be had; None where
    there is none.
    """
    if not hasattr(socket, "AF_UNIX"):
        return None
    for place in _places(environ):
        path = os.path.join(place, f"{_key(app, os.path.abspath(folder))}-{pid}.sock")
        if len(os.fsencode(path)) <= _LONGEST_PATH and _made(place):
            return path
    return None


def find(app: str, folder: str, environ: Mapping[str, str]) -> list[str]:
    """The automatic paths of the app's servers that live. Sockets of those that have died are removed.

    All places are looked at: a server may have been started where another one was the first.
    """
    if not hasattr(socket, "AF_UNIX"):
        return []
    keys = {_key(app, name) for name in (os.path.abspath(folder), os.path.realpath(folder))}
    paths = [path for path in _automatic_paths(environ) if os.path.basename(path).partition("-")[0] in keys]
    return [path for path in paths if not remove(path)]


def living(environ: Mapping[str, str]) -> list[str]:
    """The automatic paths of all servers of this account that live."""
    if not hasattr(socket, "AF_UNIX"):
        return []
    return [path for path in _automatic_paths(environ) if not remove(path)]


def places(environ: Mapping[str, str]) -> list[str]:
    """Folders in which servers may have their sockets, also those started by a service manager or with another environment."""
    run = [*iglob(f"{RUN}/*/flask-prodserve"), *iglob(f"{RUN}/*/*/flask-prodserve")]
    return list(dict.fromkeys([*_places(environ), *sorted(run), *_places({})]))


def _automatic_paths(environ: Mapping[str, str]) -> list[str]:
    return [
        os.path.join(place, name)
        for place in places(environ)
        if _is_safe(place)
        for name in sorted(os.listdir(place))
        if process_of(name) is not None
    ]


def process_of(path: str) -> int | None:
    """The process id in an automatic path."""
    match = re.fullmatch(r"[0-9a-f]+-([0-9]+)\.sock", os.path.basename(path))
    return None if match is None else int(match[1])


def open_control_socket(path: str) -> socket.socket:
    """Listen on *path*, which only this account and root can reach. Only in a process with one thread, whose umask it changes.

    Raises ControlSocketError.
    """
    path = os.path.abspath(path)  # the server may change its folder
    folder = os.path.dirname(path)
    try:
        status = os.stat(folder)
        others_write = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if os.geteuid() == 0:
            others_write = open_to_others(folder) is not None
        if others_write or status.st_uid not in (0, os.geteuid()):
            raise ControlSocketError(
                f"CONTROL_SOCKET is {path}, and others than the server's user can put something else there.", _HINT
            )
        if not remove(path):
            what = "another server listens there" if stat.S_ISSOCK(os.lstat(path).st_mode) else "that is not a socket"
            raise ControlSocketError(f"CONTROL_SOCKET is {path}, and {what}.", _HINT)
        return _listen(path)
    except OSError as error:
        # CPython itself refuses a path that is too long, and gives no number then.
        reason = error.strerror if error.errno is not None else "the path is too long, about 100 bytes are allowed"
        raise ControlSocketError(f"CONTROL_SOCKET: {path} cannot be created: {reason}.", _HINT) from error


def remove(path: str) -> bool:
    """Remove the socket *path* if nobody listens on it. Returns whether nothing is there then.

    A server calls it after it has closed its own, which needs no memory of which one that was: what listens there is somebody else's.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        return _unlinked(path)
    except FileNotFoundError:
        return True
    except OSError:  # also BlockingIOError, its backlog is full: somebody listens, or it is none of our business
        return False
    return False


def _unlinked(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _listen(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)  # born with 0600: there is no moment at which others could open it
        try:
            listening.bind(path)
        finally:
            os.umask(mask)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _places(environ: Mapping[str, str]) -> Iterator[str]:
    # systemd.exec(5): $RUNTIME_DIRECTORY has all folders of RuntimeDirectory=, with colons between them.
    for parent in (environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], environ.get("XDG_RUNTIME_DIR", "")):
        if os.path.isabs(parent):
            yield os.path.join(parent, "flask-prodserve")
    # Not tempfile.gettempdir(), whose last resort is the working folder.
    yield os.path.join(environ.get("TMPDIR") or TEMPORARY, f"flask-prodserve-{os.geteuid()}")


def _made(place: str) -> bool:
    try:
        os.mkdir(place, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    return _is_safe(place)


def _is_safe(place: str) -> bool:
    """Whether it is a folder, not a link to one, that belongs to this account, and into which nobody else can put anything."""
    try:
        status = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _key(app: str, folder: str) -> str:
    return hashlib.sha256(os.fsencode(f"{folder}\0{app}")).hexdigest()[:12]
