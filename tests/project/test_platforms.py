"""What Windows does not have is not needed there: everything imports, and one process serves. Shown on a Python that has lost it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from serving import run, wait_until
from wire import get

ROOT = Path(__file__).parents[2]

IMPOVERISH = """
import os, select, signal, socket, sys
import asyncio, faulthandler, flask.cli, subprocess, ssl, tempfile, waitress.server  # as they are

def socketpair(*arguments, pair=socket.socketpair, family=socket.AF_UNIX):
    return pair(family, socket.SOCK_STREAM)  # Python makes one out of TCP there


socket.socketpair = socketpair
sys.platform = "win32"
for name in ("pwd", "grp", "resource", "fcntl", "termios"):
    sys.modules[name] = None  # an import raises ImportError
for module, names in {
    os: "fork geteuid getuid setgroups setuid setgid initgroups getgrouplist waitpid WNOHANG sysconf chown memfd_create "
        "sched_getaffinity process_cpu_count pwrite O_CLOEXEC sendfile",
    select: "epoll poll " + " ".join(name for name in vars(select) if name.startswith(("EPOLL", "POLL"))),
    signal: "SIGHUP SIGQUIT SIGKILL SIGUSR1 SIGUSR2 SIGTTIN SIGTTOU SIGCHLD pthread_sigmask pthread_kill",
    socket: "AF_UNIX SCM_RIGHTS MSG_DONTWAIT SO_PEERCRED SO_REUSEPORT TCP_NOTSENT_LOWAT CMSG_SPACE CMSG_LEN",
}.items():
    for name in names.split():
        vars(module).pop(name, None)
"""

IMPORT_ALL = """
import importlib, pkgutil
import flask_prodserve

for module in pkgutil.walk_packages(flask_prodserve.__path__, "flask_prodserve."):
    importlib.import_module(module.name)
print("all imported")
"""

SERVE = """
from flask import Flask
from flask.cli import main

sys.argv[1:] = ["--app", "hello", "serve", "--port", "0"]
main()
"""


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", IMPOVERISH + code]


def test_everything_imports() -> None:
    """Every module can be imported."""
    with run(_python(IMPORT_ALL), cwd=ROOT) as command:
        assert command.exit_code() == 0, command.output
        assert "all imported" in command.output


def test_one_process_serves(tmp_path: Path) -> None:
    """`flask serve` serves from one process, and stops."""
    (tmp_path / "hello.py").write_text(
        "from flask import Flask\napp = Flask(__name__)\napp.get('/')(lambda: 'hello')\n"
    )
    with run(_python(SERVE), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        assert not _children(command.process.pid)
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0, command.output


def _children(pid: int) -> str:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return children.read_text() if children.exists() else ""


@pytest.mark.parametrize("verb", ["status", "stop"])
def test_verbs_say_what_is_missing(tmp_path: Path, verb: str) -> None:
    """The verbs that need a control socket say that there is none."""
    with run(_python(SERVE.replace('"--port", "0"', f'"{verb}"')), cwd=tmp_path) as command:
        wait_until(lambda: command.process.poll() is not None, "the end")
        assert command.exit_code() == 1
        assert "This system has no Unix sockets" in command.output


def test_no_accounts_there(tmp_path: Path) -> None:
    """What needs a supervisor is refused, or named, there, too."""
    (tmp_path / "hello.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    with run(_python(SERVE.replace('"0"]', '"0", "--user", "x"]')), cwd=tmp_path) as command:
        assert command.exit_code() == 2
        assert "USER (--user) is 'x', but a server of one process cannot change its account." in command.output
    with run(_python(SERVE.replace('"0"]', '"0", "--workers", "2", "--pidfile", "pid"]')), cwd=tmp_path) as command:
        assert command.url
        assert (tmp_path / "pid").read_text() == f"{command.process.pid}\n"
        assert "WORKERS (--workers) has no effect in a server of one process." in command.output
