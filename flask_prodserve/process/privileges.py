"""USER, GROUP and UMASK: the account that a worker runs as.

Rules:

- Accounts are looked up once, before anything starts, so that a wrong name is an error of the
  settings and not of a worker.
- Rights are given up for good. Groups come first, because afterwards there is no right to change
  them. Then the code tries to get the rights back, which must fail.
- The process has one thread: another would run while the change is half done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import PrivilegeError
from ..net.socket_owner import Owner

_LARGEST = 2**32 - 2
"""The largest number of a user or group. The next one means "no change" to the system."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group to become, by number.

    *name* and *home* are None for a number without an account.
    """

    uid: int
    gid: int
    name: str | None
    home: str | None
    groups: tuple[int, ...]
    """All groups of the user."""

    @property
    def owner(self) -> Owner:
        """The same account as the owner of sockets."""
        return Owner(self.uid, self.gid, self.groups)


@dataclass(frozen=True, slots=True)
class _Account:
    uid: int
    gid: int | None
    name: str | None
    home: str | None


def identity(user: str | None, group: str | None) -> Identity | None:
    """Look up *user* and *group*, each a name or a number; a name wins.

    Returns None if this process runs as them already.

    *group* defaults to the user's own, *user* to the one of this process. Raises PrivilegeError if
    there is no such account, or if this process may not become it.
    """
    if user is None and group is None:
        return None
    if not hasattr(os, "setgroups"):
        given = f"USER is {user!r}" if user is not None else f"GROUP is {group!r}"
        raise PrivilegeError(f"{given}, but this system has no accounts to change to.", "Unset it.")
    account = _current_user() if user is None else _user(user)
    gid = account.gid if group is None else _group(group)
    if account.uid == os.geteuid() and (group is None or gid == os.getegid()):
        return None
    if os.geteuid() != 0:
        name, wanted = ("GROUP", group) if account.uid == os.geteuid() else ("USER", user)
        raise PrivilegeError(
            f"{name} is {wanted!r}, but this process runs as {_current_user().name or os.geteuid()}: only root may change accounts.",
            f"Unset {name}, or start the server as root.",
        )
    if gid is None:
        raise PrivilegeError(
            f"USER is {user!r}, a number without an account, so its group is unknown.",
            "Set GROUP as well, by name or number.",
        )
    groups = (gid,) if account.name is None else tuple(os.getgrouplist(account.name, gid))
    return Identity(account.uid, gid, account.name, account.home, groups)


def assume(identity: Identity | None, umask: int | None) -> None:
    """Become *identity* for good, with the environment of a login, and set *umask*.

    Does nothing for what is None.

    Raises PrivilegeError. The process must then exit: the change may be half done.
    """
    if identity is not None:
        _become(identity)
    if umask is not None:
        os.umask(umask)


def _become(identity: Identity) -> None:
    former_uid, former_gid = os.geteuid(), os.getegid()
    shown = identity.name or identity.uid
    try:
        os.setgroups(identity.groups)
        os.setgid(identity.gid)
        os.setuid(identity.uid)
    except OSError as error:
        # In a container, root may lack the capability, or the number may be outside its user
        # namespace.
        raise PrivilegeError(
            f"Cannot become {shown}: {error.strerror}.",
            "Start it as root with the capabilities SETUID and SETGID, or unset USER and GROUP.",
        ) from error
    if identity.uid == former_uid:
        return  # still root, in another group
    if _allowed(os.setuid, former_uid) or (former_gid != identity.gid and _allowed(os.setgid, former_gid)):
        raise PrivilegeError(
            f"This process became {shown}, but can still regain the rights that it had.",
            "It keeps its capabilities (securebits, ambient capabilities). Start it without them, or unset USER and GROUP.",
        )
    os.environ["HOME"] = identity.home or "/"
    for variable in ("USER", "LOGNAME"):
        os.environ.pop(variable, None)
        if identity.name is not None:
            os.environ[variable] = identity.name


def _allowed(call: Callable[[int], None], number: int) -> bool:
    try:
        call(number)
    except OSError:
        return False
    return True


def _current_user() -> _Account:
    return _account_of(os.geteuid())


def _user(user: str) -> _Account:
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return _account_of(_number("USER", user, "user"))
    return _Account(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


def _account_of(uid: int) -> _Account:
    import pwd

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return _Account(uid, None, None, None)
    return _Account(uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


def _group(group: str) -> int:
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return _number("GROUP", group, "group")


def _number(name: str, text: str, what: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= len(str(_LARGEST)) and int(text) <= _LARGEST:
        return int(text)
    raise PrivilegeError(
        f"{name} is {text!r}, but this system has no {what} of that name.",
        f"Use the name or number of an existing {what}; `getent {'passwd' if what == 'user' else 'group'}` lists them.",
    )
