"""Find the running server that a command means, or the one that has an address.

Rules:

- A server of the same app in the same folder is used, however the app is written, without asking
  it. Otherwise all servers of this account are asked for their app. If exactly one matches, it is
  used, and the caller is told which. Among several nothing is guessed.
- If the app is in the caller's folder, servers of another app of that name in other folders never
  match.
- A command that changes a server uses one in another folder only if the caller names its app.
- Only sockets in directories of this account are used. Root is shown those of other accounts, but
  they are not asked.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import iglob

from ...errors import BindError, ProdServeError
from ...net.root_only import account_name
from ...observe.printable import printable
from . import socket_path
from .client import NoServerError, SeveralServersError, ask
from .requests import Status

ANSWER_SECONDS = 2.0
"""How long a supervisor may take for an answer that it has at once."""

_DEFAULT_NAMES = ("app", "application", "create_app", "make_app")
"""What Flask looks for in a module if no name is given. A given name of these is ignored."""

_CHOOSE = "name its app (flask --app), run the command in its folder, or name its socket with --control-socket PATH (CONTROL_SOCKET)"
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared, not listened on


@dataclass(frozen=True, slots=True)
class Found:
    """A running server. What is unknown is None or empty."""

    path: str
    pid: int | None
    app: str | None = None
    folder: str | None = None
    urls: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"app {self.app}" if self.app else "",
            f"folder {self.folder}" if self.folder else "",
            *self.urls,
            f"socket {self.path}",
        ]
        return f"pid {self.pid}: {printable(', '.join(filter(None, parts)))}"


def locate(
    control_socket: str,
    app: str | None,
    folder: str,
    environ: Mapping[str, str],
    note: Callable[[str], object] = lambda text: None,
    *,
    changes: bool = True,
) -> str:
    """Return the socket's path of the one server that is meant: *control_socket* (CONTROL_SOCKET)
    if that is a path, else a search.

    *app* is the import string, None if none was given. *note* is called with a description of the
    server if it is not in *folder*. *changes*: the command changes the server.

    Raises NoServerError and SeveralServersError.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise NoServerError("This system has no Unix sockets, so no server can be reached.")
    if control_socket == "off":
        raise NoServerError(
            "CONTROL_SOCKET is off, so the server cannot be reached.",
            "Set it to auto or a path, here and for the server.",
        )
    if control_socket != "auto":
        return control_socket
    exact = socket_path.find(key_of(app, folder), folder, environ)
    if len(exact) == 1:
        return exact[0]
    running = [describe(path) for path in exact or socket_path.running(environ)]
    meant = [found for found in running if exact or _is_meant(app, folder, found, changes=changes)]
    if len(meant) > 1:
        of_app = " of this app" if app is not None or exact else ""
        raise SeveralServersError(
            f"{len(meant)} servers{of_app} are running:\n{_listed(meant)}", f"Choose one: {_CHOOSE}."
        )
    if not meant:
        raise _none_found(running, environ)
    note(f"Using the server with {meant[0]}")
    return meant[0].path


def key_of(app: str | None, folder: str) -> str:
    """Return a key for the app that *app* names from *folder*; the same for ``slow``, ``slow.py``
    and ``slow:app``.
    """
    if app is None:
        return ""
    path, *names = re.split(r":(?![\\/])", app, maxsplit=1)
    path = os.path.realpath(os.path.join(folder, path)).removesuffix(".py")
    if os.path.basename(path) == "__init__":
        path = os.path.dirname(path)
    module = os.path.basename(path)
    while os.path.exists(os.path.join(path := os.path.dirname(path), "__init__.py")) and os.path.dirname(path) != path:
        module = f"{os.path.basename(path)}.{module}"
    name = names[0].strip().removesuffix("()") if names else ""
    return f"{module}:{name}" if name and name not in _DEFAULT_NAMES else module


def describe(path: str) -> Found:
    """Ask the server at *path* what it is."""
    pid = socket_path.process_of(path)
    try:
        answer = ask(path, Status(), ANSWER_SECONDS)
    except ProdServeError:
        return Found(path, pid)
    app, folder, urls = answer.get("app"), answer.get("folder"), answer.get("listen")
    return Found(
        path,
        pid,
        app if isinstance(app, str) else None,
        folder if isinstance(folder, str) else None,
        tuple(map(str, urls)) if isinstance(urls, Sequence) else (),
    )


def name_holder(error: BindError, environ: Mapping[str, str]) -> BindError:
    """Return *error*, with a description of the server if one of this account has the address."""
    if error.in_use is None or not hasattr(socket, "AF_UNIX"):
        return error
    for found in map(describe, socket_path.running(environ)):
        if any(_is_same_address(error.in_use, url) for url in found.urls) and found.pid != os.getpid():
            return BindError(
                f"{error.in_use} is already in use by the server with {found}.",
                f"Stop it with 'flask serve --control-socket {printable(found.path)} stop', or choose another address with --bind or "
                "PRODSERVE_BIND (or --port).",
            )
    return error


def _is_same_address(wanted: str, url: str) -> bool:
    """Return whether a server at *url* keeps others from *wanted*, an address as it was written."""
    if wanted.startswith("unix:") or url.startswith("unix:"):
        return wanted == url
    host, _, port = wanted.rpartition(":")
    other_host, _, other_port = url.partition("://")[2].rpartition(":")
    if port != other_port:
        return False
    hosts = {host.strip("[]*"), other_host.strip("[]")}
    return len(hosts) == 1 or bool(hosts & _EVERYWHERE) or "localhost" in hosts


def _is_meant(app: str | None, folder: str, found: Found, *, changes: bool) -> bool:
    """Return whether *found* may be the server of *app*, seen from *folder*."""
    here = next(filter(None, (_file_of(name, folder) for name in ([app] if app else ["wsgi.py", "app.py"]))), None)
    if here is not None:
        if found.app is None or found.folder is None or here != _file_of(found.app, found.folder):
            return False
        name = key_of(app, folder).partition(":")[2]
        # Two apps may be in one file.
        return name in ("", key_of(found.app, found.folder).partition(":")[2])
    if app is None:
        return not changes or (found.folder is not None and os.path.realpath(found.folder) == os.path.realpath(folder))
    return found.app is not None and key_of(app, folder) == key_of(found.app, found.folder or folder)


def _file_of(app: str, folder: str) -> str | None:
    """Return the file from which *app* is imported in *folder*; None if it is not there.

    Ignores installed packages.
    """
    path = os.path.join(folder, re.split(r":(?![\\/])", app, maxsplit=1)[0])
    dotted = os.path.join(folder, *os.path.relpath(path, folder).removesuffix(".py").split("."))
    for candidate in (
        path,
        f"{path}.py",
        f"{dotted}.py",
        os.path.join(path, "__init__.py"),
        os.path.join(dotted, "__init__.py"),
    ):
        if os.path.isfile(candidate):
            return os.path.realpath(candidate)
    return None


def _none_found(running: Iterable[Found], environ: Mapping[str, str]) -> NoServerError:
    running = list(running)
    others = [
        f"pid {socket_path.process_of(path)}: account {account}, socket {printable(path)}"
        for path, account in _of_other_accounts(environ)
    ]
    listed = [*map(str, running), *others]
    if not listed:
        return NoServerError(
            "No server of this app seems to be running.",
            "A single process (--workers 0) and a server with CONTROL_SOCKET=off cannot be reached. To reach a server with another TMPDIR "
            "or a private /tmp, name its socket: --control-socket PATH (CONTROL_SOCKET).",
        )
    hint = f"To choose one, {_CHOOSE}."
    if others:
        hint += " Run the command as the account of the server."
    return NoServerError("No server of this app seems to be running. Running servers:\n" + _listed(listed), hint)


def _listed(servers: Iterable[object]) -> str:
    return "\n".join(f"  - {server}" for server in servers)


def _of_other_accounts(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """For root: return the sockets in directories of other accounts, each with the name of the
    account.
    """
    if os.geteuid() != 0:
        return []
    seen = []
    for folder in {*socket_path.directories(environ), *iglob(f"{socket_path.TEMPORARY}/flask-prodserve-*")}:
        try:
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid == 0:
                continue
            names = [name for name in sorted(os.listdir(folder)) if socket_path.process_of(name) is not None]
        except OSError:
            continue
        seen += [(os.path.join(folder, name), account_name(status.st_uid)) for name in names]
    return seen
