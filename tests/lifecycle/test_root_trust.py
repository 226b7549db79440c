"""A server that is started as root with USER: what USER can write decides nothing that root does."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from server import Server, serving, supervised

from serving import PATIENCE, environment, wait_until
from wire import get

pytestmark = [
    supervised,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"),
]

NOBODY = pwd.getpwnam("nobody")

SITE = """
import os
with open({file!r}, "a") as file:
    file.write(f"{{os.geteuid()}}\\n")
"""
"""Imported by every interpreter that finds it."""

MARK = """
import os


@app.get("/mark")
def mark():
    return os.environ.get("MARK", "none")
"""


def _give(*paths: Path) -> None:
    for path in paths:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)


def _write(path: Path, text: str) -> None:
    """Write a file that nobody can write to, as an app of nobody could."""
    path.write_text(text)
    _give(path)


def _refused(folder: Path, everybodys: dict[str, str], *options: str) -> str:
    """What a server that does not start says, in full."""
    done = subprocess.run(
        [everybodys["python"], "-m", "flask", "serve", *options],
        cwd=folder,
        env=environment(**{"PYTHONDONTWRITEBYTECODE": "1", **everybodys}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def _environment_of(server: Server) -> dict[str, str]:
    entries = Path("/proc", str(server.pid), "environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_upgrade_executes_with_the_original_environment(folder: Path, everybodys: dict[str, str]) -> None:
    """SIGUSR2 executes without the variables of .env, twice in a row, and the app gets those of the current .env."""
    python_folder = subprocess.run(
        [everybodys["python"], "-c", "import sys; print(f'python{sys.version_info[0]}.{sys.version_info[1]}')"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    site = folder / "uploads/lib" / python_folder / "site-packages"
    site.mkdir(parents=True)
    executed = folder / "uploads/executed"
    executed.touch()
    for file in (site / "usercustomize.py", folder / "uploads/sitecustomize.py"):
        file.write_text(SITE.format(file=str(executed)))
    _give(executed, folder / "uploads/sitecustomize.py", site / "usercustomize.py")
    variables = f"PYTHONPATH={folder}/uploads\nPYTHONUSERBASE={folder}/uploads\nTMPDIR={folder}/uploads\n"
    _write(folder / ".env", f"{variables}MARK=1\n")
    with serving(folder, "--user", "nobody", workers=1, more=MARK, **everybodys) as server:
        server.wait_for_workers(1)
        first = _environment_of(server)
        for mark in ("1", "2", "3"):
            if mark != "1":
                old = server.workers
                _write(folder / ".env", f"{variables}MARK={mark}\n")
                server.signal(signal.SIGUSR2)
                wait_until(lambda old=old: server.workers and not server.workers & old, "new workers")  # type: ignore[misc]
                assert "0" not in executed.read_text().split()  # who ran what USER can write
            wait_until(lambda mark=mark: get(server.command.address, "/mark").body.decode() == mark, f"mark {mark}")  # type: ignore[misc]
        now = _environment_of(server)
        now.pop("_FLASK_SERVE_HANDOVER")
        assert now == first


def test_settings_of_root_in_a_file_of_user(folder: Path, everybodys: dict[str, str]) -> None:
    """Settings that decide for root are refused in a .env that USER can write, all at once, each with an option to paste."""
    (folder / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    values = {
        "GROUP": "daemon",
        "UMASK": "0o007",
        "PIDFILE": f"{folder}/pid",
        "CONTROL_SOCKET": f"{folder}/control",
        "BIND": f"unix:{folder}/socket",
        "UNIX_SOCKET_MODE": "0o666",
        "TLS_CERT": "/etc/shadow",
        "TLS_KEY": "/etc/shadow",
        "THREADS": "7",
    }
    _write(folder / ".env", "".join(f"PRODSERVE_{name}={value}\n" for name, value in values.items()))
    said = _refused(folder, everybodys, "--user", "nobody")
    assert "8 settings are wrong" in said
    assert (
        f"PRODSERVE_GROUP in a .env file is refused, because root uses this setting: others than root can change {folder}/.env"
        in said
    )
    assert f"({folder}/.env belongs to nobody)" in said
    for name, value in values.items():
        assert (f"--{name.lower().replace('_', '-')} {value}." in said) == (name != "THREADS")
    (folder / ".env").write_text("PRODSERVE_USER=nobody\nPORT=0\n")
    said = _refused(folder, everybodys)
    assert "--user nobody." in said
    assert "--port 0." in said
    os.chown(folder / ".env", 0, 0)
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)  # who owns the folder can put another file there
    assert f"({folder} belongs to nobody)" in _refused(folder, everybodys)


def test_settings_of_root_in_a_file_of_root(folder: Path, everybodys: dict[str, str]) -> None:
    """A .env that only root can write may decide for root."""
    (folder / ".env").write_text(f"PRODSERVE_USER=nobody\nPRODSERVE_GROUP=daemon\nPRODSERVE_PIDFILE={folder}/pid\n")
    with serving(folder, **everybodys) as server:
        server.wait_for_workers(2)
        assert get(server.command.address, "/echo/1").status == 200
        assert (folder / "pid").read_text() == f"{server.pid}\n"
        gid = grp.getgrnam("daemon").gr_gid
        status = [Path("/proc", str(pid), "status").read_text() for pid in server.workers]
        assert any(f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n" in text for text in status)


def _stale_socket(path: Path) -> int:
    """A socket that nobody listens on, in a folder that only root can enter. Returns its inode."""
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    return path.stat().st_ino


def test_address_of_the_app(folder: Path, everybodys: dict[str, str]) -> None:
    """An app that says where root is to listen is refused with the option to paste, and root touches nothing there."""
    path = folder / "private/socket"
    inode = _stale_socket(path)
    (folder / "app.py").write_text(
        f"from flask import Flask\napp = Flask(__name__)\napp.config['PRODSERVE_BIND'] = 'unix:{path}'\n"
    )
    said = _refused(folder, everybodys, "--user", "nobody")
    assert f'BIND is unix:{path} in the app (app.config["PRODSERVE_BIND"]' in said
    assert f"--bind unix:{path}." in said
    assert path.stat().st_ino == inode


def test_address_of_the_app_at_a_reload(folder: Path, everybodys: dict[str, str]) -> None:
    """New code that says where root is to listen is not served; the workers that are there go on."""
    with serving(folder, "--user", "nobody", workers=1, **everybodys) as server:
        server.wait_for_workers(1)
        assert get(server.command.address, "/echo/1").status == 200
        server.deploy("2", "app.config['PRODSERVE_UNIX_SOCKET_MODE'] = '0o666'")
        server.signal(signal.SIGHUP)
        server.command.wait_for("UNIX_SOCKET_MODE is 0o666 in the app")
        assert "--unix-socket-mode 0o666." in server.command.output
        server.wait_for_workers(1)
        assert get(server.command.address, "/echo/1").body.decode().endswith(" 1")


def test_upgrade_to_settings_that_root_refuses(folder: Path, everybodys: dict[str, str]) -> None:
    """A .env that would keep the next supervisor from starting is found by the preflight check, and the server goes on."""
    with serving(folder, "--user", "nobody", workers=1, **everybodys) as server:
        server.wait_for_workers(1)
        assert get(server.command.address, "/echo/1").status == 200
        old = server.workers
        _write(folder / ".env", "PRODSERVE_GROUP=daemon\n")
        server.signal(signal.SIGUSR2)
        server.command.wait_for("PRODSERVE_GROUP in a .env file is refused")
        wait_until(lambda: server.workers == old, "the preflight check to end")
        assert get(server.command.address, "/echo/1").status == 200


def test_account_that_cannot_read_the_app(folder: Path, everybodys: dict[str, str]) -> None:
    """A USER that cannot read the app is named in one message, with the directory that is closed and what to do."""
    private = folder / "private"
    private.mkdir(0o700)
    (private / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    for options in ((), ("--workers", "3")):
        said = _refused(private, everybodys, "--user", "nobody", "--port", "0", *options)
        first, second = said.splitlines()
        assert first == (
            f"Error: USER: nobody cannot read the app ({private}), because of the permissions of {private} (drwx------, owner root)."
        )
        assert f"`chmod o+rX {private}`" in second
        assert "--user" in second
