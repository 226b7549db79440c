"""The alarm that the steward sleeps by."""

from __future__ import annotations

import errno
import os
import platform
import resource
import signal
import subprocess
import sys
import threading

import pytest
from flask import Flask

from flask_prodserve.engine.dispatch import alarm as module
from flask_prodserve.engine.dispatch.alarm import Alarm
from flask_prodserve.engine.dispatch.portable import PortableLoop
from serving import PATIENCE, in_thread, wait_until
from wire import get

pytestmark = pytest.mark.skipif(not Alarm.available(), reason="the steward has no alarm here")

TIMERFD_CREATE = {"x86_64": 283, "aarch64": 85}
"""Its number by machine."""

# A filter for prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER), see seccomp(2): load the number of the call; if it is this one, answer with this
# error; or else allow it.
IN_SANDBOX = """
import ctypes, struct, sys
call, error = map(int, sys.argv[1:])
code = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)]
)
kept = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(kept)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
from flask_prodserve.engine.dispatch.alarm import Alarm
print(Alarm.available())
"""

SOON = 0.001
LATER = 1000 * PATIENCE


def test_it_rings_once() -> None:
    alarm = Alarm()
    assert not alarm.wait(0), "it rings before it is set"
    alarm.set(SOON)
    assert alarm.wait(PATIENCE)
    assert not alarm.wait(2 * SOON)


def test_it_is_put_off() -> None:
    """Also when it has rung, and nobody has heard that yet."""
    alarm = Alarm()
    alarm.set(SOON)
    assert alarm._poll.poll(PATIENCE * 1000)
    alarm.set(LATER)
    assert not alarm.wait(2 * SOON)
    alarm.set(SOON)
    assert alarm.wait(PATIENCE)


def test_another_thread_sets_it() -> None:
    alarm = Alarm()
    alarm.set(LATER)
    threading.Timer(SOON, alarm.set, [SOON]).start()
    assert alarm.wait(PATIENCE)


def test_a_signal_handler_sets_it() -> None:
    alarm = Alarm()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: alarm.set(SOON))
    try:
        threading.Timer(SOON, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        # In short waits: a signal that arrives just before one begins is handled after it.
        wait_until(lambda: alarm.wait(SOON), "the alarm")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_its_descriptor() -> None:
    """Programs that the app starts do not get it. It is closed with the alarm, which can be set all the same: signals come at any time."""
    alarm = Alarm()
    descriptor = alarm._descriptor
    assert not os.get_inheritable(descriptor)
    alarm.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    alarm.set(SOON)


def test_no_more_files() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Alarm()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.skipif(
    platform.machine() not in TIMERFD_CREATE, reason="the number of timerfd_create(2) is not known here"
)
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_sandbox(error: int) -> None:
    """One in which timerfd_create(2) is forbidden, or not there."""
    asked = [sys.executable, "-c", IN_SANDBOX, str(TIMERFD_CREATE[platform.machine()]), str(error)]
    assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout == "False\n"


def test_python_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs, with the loop that needs no alarm."""
    app = Flask("alarm")
    app.get("/")(lambda: "hello")
    monkeypatch.setitem(sys.modules, "ctypes", None)
    module._library.cache_clear()
    with in_thread(app) as served:
        assert isinstance(served.loop, PortableLoop)
        assert get(served.address).body == b"hello"
