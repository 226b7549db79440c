"""Opens listeners, all together or none, and closes them without touching what belongs to others.

Rules: an address that cannot be opened raises :class:`~flask_prodserve.errors.BindError`, which
names the address as written and what to do. Files are never removed; a Unix socket only if nothing
answers on it, or if it is still our own. Sockets from systemd keep their backlog, permissions and
paths. A listener has a duplicate of them, so that a reload may drop and take them again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from ..errors import BindError
from ..units import Address, SystemdAddress, TCPAddress, UnixAddress, format_address, format_host
from .socket_owner import Owner
from .systemd import Inherited
from .unix_sockets import open_unix

logger = logging.getLogger("flask_prodserve.listeners")

_CHOOSE = "choose another address with --bind or PRODSERVE_BIND (or --port)"
_MISSING_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_EVERY = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared, not listened on
_SHARED_PORT_TRIES = 10


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound, listening, non-blocking socket, and the address that was asked for.

    *file* is the device and inode of a Unix socket's path, to recognize it before it is removed;
    None if closing the listener must not remove it.
    """

    socket: socket.socket
    address: Address
    file: tuple[int, int] | None = None

    def url(self, scheme: str) -> str:
        """Return the real address: ``http://127.0.0.1:8000`` or ``unix:/run/app.sock``."""
        if isinstance(self.address, UnixAddress):
            return format_address(self.address)
        name = self.socket.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        if isinstance(name, bytes):  # an abstract socket, which only systemd can pass
            return f"unix:@{os.fsdecode(name[1:])}"
        return f"{scheme}://{format_host(name[0])}:{name[1]}"

    def close(self) -> None:
        """Close it, and remove a Unix socket's path unless it was replaced. Closing again does
        nothing.
        """
        if self.socket.fileno() == -1:
            return
        self.socket.close()
        self.remove_path()

    def remove_path(self) -> None:
        """Remove a Unix socket's path, unless it was replaced."""
        if isinstance(self.address, UnixAddress):
            folder, name = os.path.split(os.path.abspath(self.address.path))
            with contextlib.suppress(OSError):
                # Compare and remove through one descriptor: the directory's path may change in
                # between.
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
    """Listen on all of *addresses*. One host name may give several listeners, one for each of its
    IP addresses.

    *backlog* is the number of connections that may wait; *unix_socket_mode* the permissions of Unix
    sockets, and *owner* their user and group, None for those of this process. *inherited* are the
    sockets from systemd. Raises BindError, and then leaves nothing open.
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
    """Listen on all of *addresses*, and keep the sockets of *current*, with the connections waiting
    there.

    Returns the listeners in the order of *addresses*, and those of *current* that are not among
    them, which are still open. An address is the same if it is written the same: port 0 keeps the
    port that the system chose. *unix_socket_mode* and *owner* are for new sockets. Raises
    BindError, and then changes nothing.
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
                    opened = [Listener(*open_unix(address, backlog, unix_socket_mode, owner, _CHOOSE))]
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
    """Make the listener that another process had on *address*, from a *descriptor* of its socket,
    which it then owns.

    *file* is :attr:`Listener.file`, None if the other process will remove the path.
    """
    listening = socket.socket(fileno=descriptor)
    listening.set_inheritable(False)
    listening.setblocking(False)
    return Listener(listening, address, file)


def _called(name: str, inherited: Sequence[Inherited]) -> list[Inherited]:
    return [given for given in inherited if name in ("", given.name)]


def _check_systemd(addresses: Sequence[Address], inherited: Sequence[Inherited], there: Set[Address]) -> None:
    """Check that systemd passed the sockets in *addresses*, except those already *there*. Log
    sockets that are not used.
    """
    wanted = [address for address in addresses if isinstance(address, SystemdAddress)]
    used: set[str] = set()
    for address in wanted:
        names = {given.name for given in _called(address.name, inherited)}
        if address in there:
            used |= names
            continue
        if not inherited:
            raise BindError(
                f"BIND is '{format_address(address)}', but systemd passed no sockets to this process.",
                f"Start it from a .service unit with a .socket unit that has ListenStream=, not through a shell; or {_CHOOSE}.",
            )
        if not names:
            raise BindError(
                f"BIND is '{format_address(address)}', but systemd passed other sockets: {_listed(inherited)}.",
                f"Set FileDescriptorName={address.name} in the .socket unit, or use one of the names above.",
            )
        if names & used:
            raise BindError(
                "BIND has 'systemd', which is all of its sockets, and also some of them by name.",
                "Keep one: systemd for all, or systemd:NAME for each (--bind or PRODSERVE_BIND).",
            )
        used |= names
    if unused := [given for given in inherited if given.name not in used]:
        logger.warning(
            "ignoring sockets that systemd passed: %s. Add systemd to BIND, or remove the .socket unit",
            _listed(unused),
        )


def _listed(inherited: Sequence[Inherited]) -> str:
    return ", ".join(sorted({given.name for given in inherited}))


def _open_tcp(
    address: TCPAddress, backlog: int, staying: Sequence[Listener], leaving: Sequence[Listener]
) -> list[Listener]:
    """Listen on *address* beside our own listeners: those *staying*, and those *leaving* once all
    are open.
    """
    targets = list(_resolve(address))
    for attempt in range(_SHARED_PORT_TRIES):
        try:
            return _open_targets(address, targets, backlog)
        except OSError as error:
            # Port 0: the port chosen for one family may be taken in the other. Let the system
            # choose again.
            if address.port == 0 and error.errno == errno.EADDRINUSE and attempt < _SHARED_PORT_TRIES - 1:
                continue
            if error.errno == errno.EADDRINUSE and (own := _in_place_of(targets, staying)):
                raise BindError(
                    f"{own} and {format_address(address)} overlap: they are the same address, or one includes the other.",
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
    """Return the address of the listener that occupies one of *targets*, as written."""
    for listener in listeners:
        name = listener.socket.getsockname()
        for family, (host, port) in targets:
            if family == listener.socket.family and port == name[1] and (host == name[0] or {host, name[0]} & _EVERY):
                return format_address(listener.address)
    return None


def _on_port(port: int, listeners: Sequence[Listener]) -> str | None:
    """Return the address of the listener that has the TCP *port*, as written."""
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
                # A name may have an address of a family that this machine lacks; the others count.
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
    """Yield the families and numeric addresses of a host, each once."""
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
            # On Windows, SO_REUSEADDR would let another program take over the port.
            listening.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE"), 1)  # noqa: B009  # only there
        else:
            # Allows a port with connections in TIME_WAIT.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One family per listener: "::" never includes IPv4, whatever the system's default is.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(target)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def _explained(address: TCPAddress, error: OSError) -> BindError:
    shown = format_address(address)
    match error.errno:
        case errno.EADDRINUSE:
            return BindError(
                f"{shown} is already in use.", f"Stop the program that listens there, or {_CHOOSE}.", in_use=shown
            )
        case errno.EACCES | errno.EPERM:
            return BindError(
                f"This user may not listen on {shown}; ports below 1024 are reserved.",
                "Use a port from 1024 on, with a proxy in front; or start as root, and name the app's account with --user; or "
                "allow it for everything this Python runs: "
                f"`sudo setcap cap_net_bind_service=+ep {os.path.realpath(sys.executable)}`.",
            )
        case errno.EADDRNOTAVAIL:
            return BindError(
                f"{shown} is not an address of this machine.",
                "Use 127.0.0.1, or '*' for every interface (--bind, --host).",
            )
        case _:
            return BindError(f"Cannot listen on {shown}: {error.strerror or error}.", f"Look into it, or {_CHOOSE}.")
