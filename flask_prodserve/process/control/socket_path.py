"""The path of the control socket: a path that was set, or one that server and commands compute by
the same rules.

Rules: only this account and root can connect, from the moment the socket exists. A regular file is
never removed, and a socket only if no process listens on it. The automatic directory belongs to
this account; if another account has created it first, it is not used.
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
"""Most bytes of a Unix socket's path on every system: sun_path is 104 with its NUL on BSD and
macOS, 108 on Linux.
"""

RUN = "/run"
"""Where systemd creates runtime directories: of services one or two levels down, of users in
user/UID.
"""

TEMPORARY = "/tmp"  # noqa: S108  # see _is_safe

_HINT = "Set CONTROL_SOCKET (--control-socket) to a path in a directory of the server's user, to auto, or to off."


class ControlSocketError(ProdServeError):
    """The control socket cannot be opened at CONTROL_SOCKET."""


def working_folder(environ: Mapping[str, str]) -> str:
    """Return the working directory by the name that the shell or systemd uses: a deployment may
    point that name at another directory.
    """
    named = environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, os.curdir):
            return named
    except OSError:
        pass
    return os.getcwd()


def automatic_path(app: str, folder: str, pid: int, environ: Mapping[str, str]) -> str | None:
    """Return a path for the socket of the server *pid* of *app* (``discovery.key_of``) in *folder*.

    It is in the first directory that is safe or can be created; None if there is none.
    """
    if not hasattr(socket, "AF_UNIX"):
        return None
    for directory in _directories(environ):
        path = os.path.join(directory, f"{_key(app, os.path.abspath(folder))}-{pid}.sock")
        if len(os.fsencode(path)) <= _LONGEST_PATH and _created(directory):
            return path
    return None


def find(app: str, folder: str, environ: Mapping[str, str]) -> list[str]:
    """Return the automatic paths of the app's running servers, and remove the sockets of dead ones.

    Searches all directories: another environment of the server may have made it choose another one.
    """
    if not hasattr(socket, "AF_UNIX"):
        return []
    keys = {_key(app, name) for name in (os.path.abspath(folder), os.path.realpath(folder))}
    paths = [path for path in _automatic_paths(environ) if os.path.basename(path).partition("-")[0] in keys]
    return [path for path in paths if not remove(path)]


def running(environ: Mapping[str, str]) -> list[str]:
    """Return the automatic paths of all running servers of this account."""
    if not hasattr(socket, "AF_UNIX"):
        return []
    return [path for path in _automatic_paths(environ) if not remove(path)]


def directories(environ: Mapping[str, str]) -> list[str]:
    """Return the directories in which servers may have sockets, also if started by a service
    manager or with another environment.
    """
    run = [*iglob(f"{RUN}/*/flask-prodserve"), *iglob(f"{RUN}/*/*/flask-prodserve")]
    return list(dict.fromkeys([*_directories(environ), *sorted(run), *_directories({})]))


def _automatic_paths(environ: Mapping[str, str]) -> list[str]:
    return [
        os.path.join(directory, name)
        for directory in directories(environ)
        if _is_safe(directory)
        for name in sorted(os.listdir(directory))
        if process_of(name) is not None
    ]


def process_of(path: str) -> int | None:
    """Return the process id in an automatic path; None if it is no such path."""
    match = re.fullmatch(r"[0-9a-f]+-([0-9]+)\.sock", os.path.basename(path))
    return None if match is None else int(match[1])


def open_control_socket(path: str) -> socket.socket:
    """Listen on *path*, which only this account and root can reach.

    Only in a process with one thread: it changes the umask.

    Raises ControlSocketError.
    """
    path = os.path.abspath(path)  # the server may change its directory
    folder = os.path.dirname(path)
    try:
        status = os.stat(folder)
        others_write = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if os.geteuid() == 0:
            others_write = open_to_others(folder) is not None
        if others_write or status.st_uid not in (0, os.geteuid()):
            raise ControlSocketError(
                f"CONTROL_SOCKET is {path}, but others than the server's user can replace it.", _HINT
            )
        if not remove(path):
            what = "another server listens there" if stat.S_ISSOCK(os.lstat(path).st_mode) else "it is not a socket"
            raise ControlSocketError(f"CONTROL_SOCKET is {path}, but {what}.", _HINT)
        return _listen(path)
    except OSError as error:
        # CPython itself refuses a path that is too long, without an errno.
        reason = error.strerror if error.errno is not None else "the path is too long, about 100 bytes are allowed"
        raise ControlSocketError(f"CONTROL_SOCKET: {path} cannot be created: {reason}.", _HINT) from error


def remove(path: str) -> bool:
    """Remove the socket *path* if no process listens on it. Returns whether nothing is there now.

    A server calls this after it has closed its own socket: if a process listens there then, it is
    another server's.
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
    except OSError:  # such as BlockingIOError: its backlog is full, so a process listens
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
        mask = os.umask(0o177)  # created with mode 0600, so that others can never connect
        try:
            listening.bind(path)
        finally:
            os.umask(mask)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _directories(environ: Mapping[str, str]) -> Iterator[str]:
    # systemd.exec(5): $RUNTIME_DIRECTORY lists all directories of RuntimeDirectory=, separated by
    # colons.
    for parent in (environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], environ.get("XDG_RUNTIME_DIR", "")):
        if os.path.isabs(parent):
            yield os.path.join(parent, "flask-prodserve")
    # Not tempfile.gettempdir(), whose last resort is the working directory.
    yield os.path.join(environ.get("TMPDIR") or TEMPORARY, f"flask-prodserve-{os.geteuid()}")


def _created(directory: str) -> bool:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    return _is_safe(directory)


def _is_safe(directory: str) -> bool:
    """Return whether *directory* is a directory, not a link, that belongs to this account and that
    others cannot write to.
    """
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _key(app: str, folder: str) -> str:
    return hashlib.sha256(os.fsencode(f"{folder}\0{app}")).hexdigest()[:12]
