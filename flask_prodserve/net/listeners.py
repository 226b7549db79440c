"""Listeners: opened all together or not at all, and closed without touching what belongs to somebody else.

Rules: whatever cannot be opened is a :class:`~flask_prodserve.errors.BindError` that names the address as it was written and what to
do. A file is never removed; a Unix socket only if nobody answers on it, or if it is still our own. What systemd has opened is its own:
neither backlog nor permissions nor paths are touched, and listeners have duplicates, so that a reload may drop and take them again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from ..errors import BindError
from ..units import Address, SystemdAddress, TCPAddress, UnixAddress, format_address, format_host
from .root_only import account_name, open_to_others
from .socket_owner import Owner, bind, rights_for
from .systemd import Inherited

logger = logging.getLogger("flask_prodserve.listeners")

_CHOOSE = "choose another address with --bind or PRODSERVE_BIND (or --port)"
_MISSING_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_EVERY = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared, not listened on
_SHARED_PORT_TRIES = 10


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound, listening, non-blocking socket, and the address that was asked for.

    *file* is the device and inode of a Unix socket's path, by which it is known again when it is removed; None where closing the
    listener is not the end of it.
    """

    socket: socket.socket
    address: Address
    file: tuple[int, int] | None = None

    def url(self, scheme: str) -> str:
        """Where it really listens: ``http://127.0.0.1:8000`` or ``unix:/run/app.sock``."""
        if isinstance(self.address, UnixAddress):
            return format_address(self.address)
        name = self.socket.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        if isinstance(name, bytes):  # an abstract one, which only systemd can give
            return f"unix:@{os.fsdecode(name[1:])}"
        return f"{scheme}://{format_host(name[0])}:{name[1]}"

    def close(self) -> None:
        """Close it; a Unix socket's path goes too, unless somebody else has put theirs there. Closing again does nothing."""
        if self.socket.fileno() == -1:
            return
        self.socket.close()
        self.remove_path()

    def remove_path(self) -> None:
        """Remove a Unix socket's path, unless somebody else has put theirs there."""
        if isinstance(self.address, UnixAddress):
            folder, name = os.path.split(os.path.abspath(self.address.path))
            with contextlib.suppress(OSError):
                # Compare and remove through one descriptor: the path of the directory may change meanwhile.
                descriptor = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY))
                try:
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if (found.st_dev, found.st_ino) == self.file:
                        os.unlink(name, dir_fd=descriptor)
                finally:
                    os.close(descriptor)


def open_listeners(
    addresses: Sequence[Address],
    *,
    backlog: int,
    unix_socket_mode: int,
    inherited: Sequence[Inherited] = (),
    owner: Owner | None = None,
) -> list[Listener]:
    """Listen on all of *addresses*. One name may give several listeners, one for each of its IP addresses.

    *backlog* is the number of connections that may wait; *unix_socket_mode* the permission bits of Unix sockets, and *owner* their user
    and group, None for those of this process. *inherited* is what systemd has passed.

    Raises BindError, and nothing is left open then.
    """
    return exchange_listeners(
        (), addresses, backlog=backlog, unix_socket_mode=unix_socket_mode, inherited=inherited, owner=owner
    )[0]


def exchange_listeners(
    current: Sequence[Listener],
    addresses: Sequence[Address],
    *,
    backlog: int,
    unix_socket_mode: int,
    inherited: Sequence[Inherited] = (),
    owner: Owner | None = None,
) -> tuple[list[Listener], list[Listener]]:
    """Listen on all of *addresses*, where those that *current* has keep their sockets, and the connections that wait there.

    Returns the listeners in the order of *addresses*, and those of *current* that are not among them, which are still open. An address
    is the same if it is written the same: port 0 keeps the port that the system chose. *unix_socket_mode* and *owner* are for new ones.

    Raises BindError, and nothing has changed then.
    """
    _check_systemd(addresses, inherited, {listener.address for listener in current})
    leaving = [listener for listener in current if listener.address not in addresses]
    listeners: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for address in addresses:
            kept = [listener for listener in current if listener.address == address]
            listeners.extend(kept)
            if kept:
                continue
            match address:
                case SystemdAddress(name):
                    opened = [
                        from_descriptor(os.dup(given.descriptor), address, None) for given in _called(name, inherited)
                    ]
                case UnixAddress():
                    opened = [_open_unix(address, backlog, unix_socket_mode, owner)]
                case TCPAddress():
                    staying = [listener for listener in (*current, *listeners) if listener not in leaving]
                    opened = _open_tcp(address, backlog, staying, leaving)
            for listener in opened:
                undo.callback(listener.close)
            listeners.extend(opened)
        for listener in current:
            if listener not in leaving and not isinstance(listener.address, SystemdAddress):
                listener.socket.listen(backlog)  # which may have changed
        undo.pop_all()
    return listeners, leaving


def from_descriptor(descriptor: int, address: Address, file: tuple[int, int] | None) -> Listener:
    """The listener that another process had on *address*, from a *descriptor* of its socket, which is the listener's from now on.

    *file* is :attr:`Listener.file`, None where the other process will remove the path.
    """
    listening = socket.socket(fileno=descriptor)
    listening.set_inheritable(False)
    listening.setblocking(False)
    return Listener(listening, address, file)


def _called(name: str, inherited: Sequence[Inherited]) -> list[Inherited]:
    return [given for given in inherited if name in ("", given.name)]


def _check_systemd(addresses: Sequence[Address], inherited: Sequence[Inherited], there: Set[Address]) -> None:
    """See that systemd has passed what *addresses* want of it, but for those that are *there*, and say so where they want less."""
    wanted = [address for address in addresses if isinstance(address, SystemdAddress)]
    used: set[str] = set()
    for address in wanted:
        names = {given.name for given in _called(address.name, inherited)}
        if address in there:
            used |= names
            continue
        if not inherited:
            raise BindError(
                f"{format_address(address)} is what to listen on, and systemd has passed no sockets to this process.",
                f"Start it from a .service unit whose .socket unit has ListenStream=, not through a shell; or {_CHOOSE}.",
            )
        if not names:
            raise BindError(
                f"{format_address(address)} is what to listen on, and systemd has passed other sockets: {_listed(inherited)}.",
                f"Write FileDescriptorName={address.name} into the .socket unit, or use a name that is there.",
            )
        if names & used:
            raise BindError(
                "systemd, which is all sockets that it passes, and some of them by name are both what to listen on.",
                "Keep one: systemd for all, or systemd:NAME for each that you want (--bind or PRODSERVE_BIND).",
            )
        used |= names
    if unused := [given for given in inherited if given.name not in used]:
        logger.warning(
            "nobody answers on sockets that systemd has passed: %s. Add systemd to BIND, or remove the .socket unit",
            _listed(unused),
        )


def _listed(inherited: Sequence[Inherited]) -> str:
    return ", ".join(sorted({given.name for given in inherited}))


def _open_tcp(
    address: TCPAddress, backlog: int, staying: Sequence[Listener], leaving: Sequence[Listener]
) -> list[Listener]:
    """Listen on *address* beside our own listeners: those that are *staying*, and those that are *leaving* once all are open."""
    targets = list(_resolve(address))
    for attempt in range(_SHARED_PORT_TRIES):
        try:
            return _open_targets(address, targets, backlog)
        except OSError as error:
            # Port 0: what the system chose for one family may be taken in the other. It chooses again.
            if address.port == 0 and error.errno == errno.EADDRINUSE and attempt < _SHARED_PORT_TRIES - 1:
                continue
            if error.errno == errno.EADDRINUSE and (own := _in_place_of(targets, staying)):
                raise BindError(
                    f"{own} and {format_address(address)} are the same place, or one is a part of the other.",
                    "Keep one of them (BIND, TLS_REDIRECT_BIND); nothing before the colon, or '*', is every interface.",
                ) from error
            if error.errno == errno.EADDRINUSE and (own := _on_port(address.port, leaving)):
                raise BindError(
                    f"{format_address(address)} cannot be opened while this server listens on {own}.",
                    "Another address on the same port needs a restart (stop, then start); a reload can take another port.",
                ) from error
            raise _explained(address, error) from error
    raise AssertionError("the last attempt returns or raises")


def _in_place_of(
    targets: Sequence[tuple[socket.AddressFamily, tuple[str, int]]], listeners: Sequence[Listener]
) -> str | None:
    """What one of *listeners* that leaves no room for one of *targets* was asked to listen on."""
    for listener in listeners:
        name = listener.socket.getsockname()
        for family, (host, port) in targets:
            if family == listener.socket.family and port == name[1] and (host == name[0] or {host, name[0]} & _EVERY):
                return format_address(listener.address)
    return None


def _on_port(port: int, listeners: Sequence[Listener]) -> str | None:
    """What one of *listeners* that has the TCP *port* was asked to listen on."""
    for listener in listeners:
        name = listener.socket.getsockname()
        if isinstance(name, tuple) and name[1] == port:
            return format_address(listener.address)
    return None


def _open_targets(
    address: TCPAddress, targets: list[tuple[socket.AddressFamily, tuple[str, int]]], backlog: int
) -> list[Listener]:
    with contextlib.ExitStack() as undo:
        opened: list[Listener] = []
        missing: OSError | None = None
        port = address.port
        for family, (host, _) in targets:
            try:
                listening = _listen(family, (host, port), backlog)
            except OSError as error:
                # A name may have an address of a family that this machine is without; the others count.
                if error.errno not in _MISSING_FAMILY or len(targets) == 1:
                    raise
                missing = error
                continue
            undo.callback(listening.close)
            opened.append(Listener(listening, address))
            port = listening.getsockname()[1]
        if not opened and missing is not None:
            raise missing
        undo.pop_all()
        return opened


def _resolve(address: TCPAddress) -> Iterator[tuple[socket.AddressFamily, tuple[str, int]]]:
    """The families and numeric addresses that a host stands for, each once."""
    if not address.host:
        yield socket.AF_INET, ("0.0.0.0", address.port)  # noqa: S104  # every interface is what was asked for
        if socket.has_ipv6:
            yield socket.AF_INET6, ("::", address.port)
        return
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (socket.gaierror, UnicodeError) as error:
        raise BindError(
            f"The host name of {format_address(address)} cannot be resolved.",
            "Use an IP address of this machine, localhost, or '*' for every interface (--bind, --host).",
        ) from error
    seen = set()
    for family, _, _, _, target in found:
        numeric = (str(target[0]), int(target[1]))
        if (family, numeric) not in seen:
            seen.add((family, numeric))
            yield family, numeric


def _listen(family: socket.AddressFamily, target: tuple[str, int], backlog: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "nt":
            # There SO_REUSEADDR would let another program take the port over.
            listening.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE"), 1)  # noqa: B009  # only there
        else:
            # A port whose last connections are still in TIME_WAIT can be used again.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One family a listener: "::" never stands for IPv4 as well, whatever the system's default is.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(target)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def _open_unix(address: UnixAddress, backlog: int, mode: int, owner: Owner | None) -> Listener:
    if not hasattr(socket, "AF_UNIX"):
        raise BindError(f"This system has no Unix sockets: {format_address(address)}.", f"Instead, {_CHOOSE}.")
    path = address.path
    if path.startswith("@"):
        raise BindError(
            f"{format_address(address)} is an abstract socket, which has no permissions.",
            "Use a path in a folder that only the server and its proxy can enter.",
        )
    folder = os.path.dirname(os.path.abspath(path))
    with rights_for(folder, owner) as as_owner:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _clear_stale(address)
            listening.setblocking(False)
            bind(listening, path, mode)
            try:
                if owner is not None and not as_owner:
                    # Only root can have replaced it, see rights_for().
                    os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
                listening.listen(backlog)
                return Listener(listening, address, _identity(path))
            except BaseException:
                os.unlink(path)
                raise
        except OSError as error:
            listening.close()
            if as_owner and owner is not None and isinstance(error, PermissionError):
                raise BindError(
                    f"Cannot create {format_address(address)}: {account_name(owner.uid)} (USER) may not write to {folder}, and root does "
                    f"not work in a directory that others can change ({open_to_others(folder)}).",
                    f"Give the directory to USER (chown {account_name(owner.uid)} {folder}), or it and all above it to root.",
                ) from error
            raise _explained(address, error) from error
        except BaseException:
            listening.close()
            raise


def _clear_stale(address: UnixAddress) -> None:
    """Remove a socket on which nobody listens any more. What else may be there is left alone, and refused."""
    path = address.path
    try:
        status = os.lstat(path)
    except OSError:
        return  # not there; or binding will say what is wrong
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(f"{path} exists and is not a socket.", f"Move it away if nobody needs it, or {_CHOOSE}.")
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
            pass  # its backlog is full: somebody listens
        except OSError as error:
            raise _explained(address, error) from error
    raise BindError(
        f"Another server is listening on {path}.", f"Stop it, or {_CHOOSE}.", in_use=format_address(address)
    )


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _explained(address: Address, error: OSError) -> BindError:
    shown = format_address(address)
    if isinstance(address, UnixAddress):
        if error.errno is None:  # CPython refuses the path before the system sees it
            return BindError(
                f"The path of {shown} is too long for a Unix socket.",
                "About 100 bytes are allowed; use a shorter path.",
            )
        reason = error.strerror or str(error)
        return BindError(
            f"Cannot create {shown}: {reason}.",
            "The folder must exist, and the server's user must be able to write to it.",
        )
    match error.errno:
        case errno.EADDRINUSE:
            return BindError(
                f"{shown} is already in use.", f"Stop the program that listens there, or {_CHOOSE}.", in_use=shown
            )
        case errno.EACCES | errno.EPERM:
            return BindError(
                f"This user may not listen on {shown}; ports below 1024 are reserved.",
                "Use a port from 1024 on, with a proxy in front; or start as root, and name the app's account with --user; or allow it to "
                f"all that this Python runs: `sudo setcap cap_net_bind_service=+ep {os.path.realpath(sys.executable)}`.",
            )
        case errno.EADDRNOTAVAIL:
            return BindError(
                f"{shown} is not an address of this machine.",
                "Use 127.0.0.1, or '*' for every interface (--bind, --host).",
            )
        case _:
            return BindError(f"Cannot listen on {shown}: {error.strerror or error}.", f"Look into it, or {_CHOOSE}.")
