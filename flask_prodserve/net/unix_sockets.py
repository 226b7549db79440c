"""Opens listening Unix sockets. A path is taken over only if nothing listens on it any more."""

from __future__ import annotations

import os
import socket
import stat

from ..errors import BindError
from ..units import UnixAddress, format_address
from .root_only import account_name, open_to_others
from .socket_owner import Owner, bind, rights_for


def open_unix(
    address: UnixAddress, backlog: int, mode: int, owner: Owner | None, otherwise: str
) -> tuple[socket.socket, UnixAddress, tuple[int, int]]:
    """Listen on *address*. Returns the socket, the address, and the device and inode of its path.

    For *backlog*, *mode* and *owner* see :func:`.listeners.open_listeners`; *otherwise* ends hints
    that suggest another address. Raises BindError.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise BindError(f"This system has no Unix sockets: {format_address(address)}.", f"Instead, {otherwise}.")
    path = address.path
    if path.startswith("@"):
        raise BindError(
            f"{format_address(address)} is an abstract socket, which has no permissions.",
            "Use a path in a directory that only the server and its proxy can enter.",
        )
    folder = os.path.dirname(os.path.abspath(path))
    with rights_for(folder, owner) as as_owner:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _clear_stale(address, otherwise)
            listening.setblocking(False)
            bind(listening, path, mode)
            try:
                if owner is not None and not as_owner:
                    # Only root can have replaced it, see rights_for().
                    os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
                listening.listen(backlog)
                return listening, address, _identity(path)
            except BaseException:
                os.unlink(path)
                raise
        except OSError as error:
            listening.close()
            if as_owner and owner is not None and isinstance(error, PermissionError):
                raise BindError(
                    f"Cannot create {format_address(address)}: {account_name(owner.uid)} (USER) may not write to {folder}, and root "
                    f"does not use a directory that others can change ({open_to_others(folder)}).",
                    f"Give the directory to USER (chown {account_name(owner.uid)} {folder}), or it and its parents to root.",
                ) from error
            raise _explained(address, error) from error
        except BaseException:
            listening.close()
            raise


def _clear_stale(address: UnixAddress, otherwise: str) -> None:
    """Remove a socket on which nothing listens any more. Anything else at that path raises
    BindError and stays.
    """
    path = address.path
    try:
        status = os.lstat(path)
    except OSError:
        return  # missing, or bind() will report the problem
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(f"{path} exists and is not a socket.", f"Move it away if it is not needed, or {otherwise}.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full, so a server listens
        except OSError as error:
            raise _explained(address, error) from error
    raise BindError(
        f"Another server is listening on {path}.", f"Stop it, or {otherwise}.", in_use=format_address(address)
    )


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _explained(address: UnixAddress, error: OSError) -> BindError:
    shown = format_address(address)
    if error.errno is None:  # CPython refuses the path before the system sees it
        return BindError(
            f"The path of {shown} is too long for a Unix socket.",
            "About 100 bytes are allowed; use a shorter path.",
        )
    return BindError(
        f"Cannot create {shown}: {error.strerror or error}.",
        "The directory must exist, and the server's user must be able to write to it.",
    )
