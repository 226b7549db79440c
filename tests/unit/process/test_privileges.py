"""USER, GROUP and UMASK: who is looked up, what is refused, and, in processes of their own, that rights are gone for good."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from typing import Any

import pytest

from flask_prodserve.errors import ExitCode, PrivilegeError
from flask_prodserve.process.privileges import Identity, identity

NOBODY = pwd.getpwnam("nobody")
NO_ACCOUNT = 54321
"""A number that no user and no group has."""


@pytest.fixture
def _root() -> None:
    if os.geteuid() != 0:
        assert "TESTS_MAY_NOT_SKIP" not in os.environ, "the tests do not run as root"
        pytest.skip("only root can become somebody else")


root = pytest.mark.usefixtures("_root")

# All modules are there before, since an account like nobody need not be able to read Python's.
PREAMBLE = """\
import grp, json, os, pwd
from flask_prodserve.errors import PrivilegeError
from flask_prodserve.process.privileges import Identity, assume, identity

def tell(function, *arguments):
    try:
        return function(*arguments)
    except (OSError, PrivilegeError) as error:
        return str(error)

def state():
    return {"user": os.getresuid(), "group": os.getresgid(), "groups": sorted(os.getgroups()), "umask": os.umask(0),
            "environment": {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")}}
"""
KEEPS_SETGID = """\
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(28, 1 << 2, 0, 0, 0) == 0
become = os.setuid

def setuid(number):
    become(number)
    if number:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        sets = (ctypes.c_uint32 * 6)(1 << 6, 1 << 6, 0, 0, 0, 0)  # effective, permitted, inheritable: of each the lower half first
        assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())

os.setuid = setuid
"""
NOT_ROOT = "os.geteuid() or os.setuid(pwd.getpwnam('nobody').pw_uid)\n"


def told(code: str) -> Any:
    """What a process of its own prints as JSON."""
    done = subprocess.run([sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def refused(user: str | None, group: str | None = None) -> tuple[str, str]:
    with pytest.raises(PrivilegeError) as caught:
        identity(user, group)
    assert caught.value.exit_code is ExitCode.USAGE
    return caught.value.what, caught.value.hint


# Who it is.


def test_nobody_named() -> None:
    """Without USER and GROUP the process stays who it is."""
    assert identity(None, None) is None


def test_the_same_as_now() -> None:
    """Who this process is already, by name or number, is nothing to become."""
    me, mine = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    for user in (me, str(os.geteuid()), None):
        for group in (mine, str(os.getegid()), None):
            assert identity(user, group) is None


@root
def test_name_and_number() -> None:
    """A user is found by name and by number, with the user's own group, home, and all groups that the user is in."""
    expected = Identity(NOBODY.pw_uid, NOBODY.pw_gid, "nobody", NOBODY.pw_dir, (NOBODY.pw_gid,))
    assert identity("nobody", None) == identity(str(NOBODY.pw_uid), None) == expected


@root
def test_groups_of_a_user() -> None:
    """The groups are those that the system's list has the user in, and the one asked for."""
    group, member = next((entry.gr_gid, name) for entry in grp.getgrall() for name in entry.gr_mem)
    found = identity(member, str(NO_ACCOUNT))
    assert found is not None
    assert found.gid == NO_ACCOUNT
    assert {group, NO_ACCOUNT} <= set(found.groups)


@root
def test_group_of_its_own() -> None:
    """GROUP stands in place of the user's own group, by name or number, whether the system knows the number or not."""
    for group, gid in (("daemon", grp.getgrnam("daemon").gr_gid), (str(NO_ACCOUNT), NO_ACCOUNT)):
        found = identity("nobody", group)
        assert found is not None
        assert (found.uid, found.gid, found.groups) == (NOBODY.pw_uid, gid, (gid,))


@root
def test_group_alone() -> None:
    """GROUP alone keeps the user."""
    found = identity(None, "daemon")
    assert found is not None
    assert (found.uid, found.gid) == (os.geteuid(), grp.getgrnam("daemon").gr_gid)


@root
def test_number_without_an_account() -> None:
    """A number that the system does not know is good enough with GROUP; without, its group would be a guess."""
    found = identity(str(NO_ACCOUNT), "daemon")
    gid = grp.getgrnam("daemon").gr_gid
    assert found == Identity(NO_ACCOUNT, gid, None, None, (gid,))
    what, hint = refused(str(NO_ACCOUNT))
    assert f"USER is '{NO_ACCOUNT}', a number without an account" in what
    assert "GROUP" in hint


@pytest.mark.parametrize("name", ["no-such-name", "-1", "4294967295", "9" * 5000, "0x10", "1.5", "\u0663"])
def test_unknown_names(name: str) -> None:
    """A name that is not there is refused with the setting and the command that lists those that are; so is what is no number."""
    what, hint = refused(name)
    assert what == f"USER is {name!r}, but this system has no user of that name."
    assert "getent passwd" in hint
    what, hint = refused(None, name)
    assert what == f"GROUP is {name!r}, but this system has no group of that name."
    assert "getent group" in hint


def test_only_root_may() -> None:
    """Who is not root can be told to be who it is, and nobody else."""
    code = NOT_ROOT + (
        "me = pwd.getpwuid(os.geteuid()).pw_name\n"
        "asked = [(me, None), (me, str(os.getegid())), ('root', None), ('54321', None), (None, '54321'), (me, '54321')]\n"
        "print(json.dumps([me, *(tell(identity, *each) for each in asked)]))"
    )
    me, *answers = told(code)
    assert answers[:2] == [None, None]
    for answer, (name, value) in zip(
        answers[2:], [("USER", "root"), ("USER", "54321"), ("GROUP", "54321"), ("GROUP", "54321")], strict=True
    ):
        assert answer.splitlines() == [
            f"{name} is '{value}', but this process runs as {me}: only root may change accounts.",
            f"Unset {name}, or start the server as root.",
        ]


def test_system_without_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has none of it, which is said of whichever of the two was set."""
    monkeypatch.delattr(os, "setgroups")
    assert identity(None, None) is None
    assert refused("nobody")[0] == "USER is 'nobody', but this system has no accounts to change to."
    assert refused(None, "daemon")[0] == "GROUP is 'daemon', but this system has no accounts to change to."


# Becoming it.


def test_nothing_to_become() -> None:
    """Without an identity nothing changes but the umask, and that only if one is set."""
    before, unchanged, after = told(
        "def told(): return {**state(), 'umask': None}\n"
        "os.umask(0o022); before = told(); os.umask(0o022); assume(None, None); unchanged = os.umask(0o022)\n"
        "assume(None, 0o027); mask = os.umask(0); print(json.dumps([before, unchanged, {**told(), 'umask': mask}]))"
    )
    assert unchanged == 0o022
    assert after == {**before, "umask": 0o027}


@root
def test_rights_are_gone() -> None:
    """The process is that user in every respect, cannot become root again nor join its group, and may not read root's files."""
    now, *answers = told(
        "assume(identity('nobody', None), 0o027)\n"
        "tried = [tell(os.setuid, 0), tell(os.seteuid, 0), tell(os.setgid, 0), tell(os.setgroups, [0]), tell(open, '/etc/shadow')]\n"
        "print(json.dumps([state(), *tried]))"
    )
    assert now == {
        "user": [NOBODY.pw_uid] * 3,
        "group": [NOBODY.pw_gid] * 3,
        "groups": [NOBODY.pw_gid],
        "umask": 0o027,
        "environment": {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"},
    }
    assert len(answers) == 5
    assert all("not permitted" in answer or "denied" in answer for answer in answers), answers


@root
def test_rights_of_a_number() -> None:
    """A number without an account has no name, no other groups, and the root of the file system as its home, as containers do it."""
    now = told(
        "os.environ.update(USER='root', LOGNAME='root', HOME='/root'); os.setgroups([0, 1])\n"
        "assume(identity('54321', '54322'), None); print(json.dumps(state()))"
    )
    assert (now["user"], now["group"], now["groups"]) == ([54321] * 3, [54322] * 3, [54322])
    assert now["environment"] == {"HOME": "/", "USER": None, "LOGNAME": None}


@root
def test_another_group_only() -> None:
    """With GROUP alone root stays root, in that group, with the environment that it had."""
    now = told(
        "os.environ.update(HOME='/a', USER='b', LOGNAME='c')\n"
        "assume(identity(None, '54322'), None); print(json.dumps(state()))"
    )
    assert (now["user"], now["group"]) == ([0] * 3, [54322] * 3)
    assert now["groups"] == sorted(os.getgrouplist("root", 54322))
    assert now["environment"] == {"HOME": "/a", "USER": "b", "LOGNAME": "c"}


@root
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_rights_that_can_be_got_back() -> None:
    """A process whose capabilities outlast the change is refused: here by the secure bit NO_SETUID_FIXUP."""
    (answer,) = told(
        "import ctypes; assert ctypes.CDLL(None).prctl(28, 1 << 2, 0, 0, 0) == 0\n"
        "print(json.dumps([tell(assume, identity('nobody', None), None)]))"
    )
    assert answer.startswith("This process became nobody, but can still regain the rights that it had.\n")
    assert "capabilities" in answer


@root
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_group_that_can_be_got_back() -> None:
    """A process is refused as well if all that it keeps is the capability to change its group."""
    # prctl(2) and capabilities(7): the secure bit NO_SETUID_FIXUP keeps what is there, so SETUID is dropped as the user is changed.
    (answer,) = told(KEEPS_SETGID + "print(json.dumps([tell(assume, identity('nobody', None), None)]))")
    assert answer.startswith("This process became nobody, but can still regain the rights that it had.\n")


@root
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize("capability", [6, 7], ids=["SETGID", "SETUID"])
def test_root_without_the_capability(capability: int) -> None:
    """Root in a container that was started without the capability is told which ones it takes."""
    inner = PREAMBLE + "print(json.dumps([tell(assume, identity('nobody', None), None)]))"
    (answer,) = told(
        f"import ctypes, sys; assert ctypes.CDLL(None).prctl(24, {capability}, 0, 0, 0) == 0\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {inner!r}])"
    )
    assert answer.startswith("Cannot become nobody: Operation not permitted.\n")
    assert "SETUID and SETGID" in answer


def test_umask_is_taken_last() -> None:
    """The umask of this process is not changed where the identity fails."""
    nobody = Identity(NOBODY.pw_uid, NOBODY.pw_gid, "nobody", NOBODY.pw_dir, (NOBODY.pw_gid,))
    code = (
        NOT_ROOT
        + f"os.umask(0o022); answer = tell(assume, {nobody!r}, 0o077); print(json.dumps([answer, os.umask(0)]))"
    )
    answer, umask = told(code)
    assert "Cannot become nobody" in answer
    assert umask == 0o022
