"""USER, GROUP and UMASK: who a worker is.

Rules:

- Accounts are looked up once, before anything is started, so that a wrong name is an error of the settings and not of a worker.
- Rights are given up for good: groups first, since afterwards there is no right to change them; then it is tried to get them back, which
  must fail.
- Called while the process has one thread: another would run with half of it done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import PrivilegeError
from ..net.socket_owner import Owner

_LARGEST = 2**32 - 2
"""Of the numbers of users and groups; the next one means "no change" to the system."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group to become, by number. *name* and *home* are None for a user of whom the system has only heard the number."""

    uid: int
    gid: int
    name: str | None
    home: str | None
    groups: tuple[int, ...]
    """All groups that the user is in."""

    @property
    def owner(self) -> Owner:
        """As the owner of sockets."""
        return Owner(self.uid, self.gid, self.groups)


@dataclass(frozen=True, slots=True)
class _Account:
    uid: int
    gid: int | None
    name: str | None
    home: str | None


def identity(user: str | None, group: str | None) -> Identity | None:
    """Who *user* and *group* (names or numbers, a name first) are; None where this process is that already.

    Without *group* the user's own is meant, without *user* the one that this process has. Raises PrivilegeError where there is no such
    account, and where this process may not become it.
    """
    if user is None and group is None:
        return None
    if not hasattr(os, "setgroups"):
        given = f"USER is {user!r}" if user is not None else f"GROUP is {group!r}"
        raise PrivilegeError(f"{given}, and this system has no accounts to change to.", "Drop it.")
    account = _current_user() if user is None else _user(user)
    gid = account.gid if group is None else _group(group)
    if account.uid == os.geteuid() and (group is None or gid == os.getegid()):
        return None
    if os.geteuid() != 0:
        name, wanted = ("GROUP", group) if account.uid == os.geteuid() else ("USER", user)
        raise PrivilegeError(
            f"{name} is {wanted!r}, and this process runs as {_current_user().name or os.geteuid()}: only root may change that.",
            f"Drop {name}, or start the server as root.",
        )
    if gid is None:
        raise PrivilegeError(
            f"USER is {user!r}, a number without an account, so that its group is not known.",
            "Set GROUP as well, by name or number.",
        )
    groups = (gid,) if account.name is None else tuple(os.getgrouplist(account.name, gid))
    return Identity(account.uid, gid, account.name, account.home, groups)


def assume(identity: Identity | None, umask: int | None) -> None:
    """Become *identity* for good, where it is one, with the environment that a login would give it, and take *umask* where it is not None.

    Raises PrivilegeError; the process must not go on then, as it may have done half of it.
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
        # In a container root may be without the capability, or the number outside of what its user namespace has.
        raise PrivilegeError(
            f"This process may not become {shown}: {error.strerror}.",
            "Start it as root with the capabilities SETUID and SETGID, or drop USER and GROUP.",
        ) from error
    if identity.uid == former_uid:
        return  # still root, in another group
    if _allowed(os.setuid, former_uid) or (former_gid != identity.gid and _allowed(os.setgid, former_gid)):
        raise PrivilegeError(
            f"This process became {shown}, and could take back what it had been.",
            "It keeps its capabilities (securebits, ambient capabilities): start it without, or drop USER and GROUP.",
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
        f"{name} is {text!r}, and this system has no {what} of that name.",
        f"Give the name or number of a {what} that is there: `getent {'passwd' if what == 'user' else 'group'}` lists them.",
    )
