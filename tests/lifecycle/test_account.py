"""A server that is started as root and gives its rights up: USER, GROUP and UMASK in force."""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from server import Server, serving, supervised

from certificates import make
from serving import PATIENCE, environment, wait_until
from wire import get

pytestmark = [
    supervised,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else"),
]

NOBODY = pwd.getpwnam("nobody")

WHO = """
IMPORTED_BY = f"{os.geteuid()} {os.getegid()} {','.join(map(str, os.getgroups()))}"


@app.get("/who")
def who():
    descriptor = os.open("uploads/one", os.O_CREAT | os.O_WRONLY, 0o666)
    os.close(descriptor)
    return f"{IMPORTED_BY} {os.getresuid()} {os.environ['HOME']}"
"""


def _uids(server: Server) -> set[str]:
    """Real, effective, saved and file system user of the workers."""
    return {
        line.partition("\t")[2]
        for pid in server.workers
        for line in Path("/proc", str(pid), "status").read_text().splitlines()
        if line.startswith("Uid:")
    }


def _privileged_port() -> int:
    # At random, since several test runs may look for one at the same time.
    for port in secrets.SystemRandom().sample(range(600, 1024), 424):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("all privileged ports are taken")


def test_rights_are_given_up_before_the_app(folder: Path, everybodys: dict[str, str]) -> None:
    """The app is imported and served by USER, with its groups only, for good, with UMASK, on a port that only root may open."""
    port = _privileged_port()
    with serving(folder, "--port", str(port), "--user", "nobody", "--umask", "027", more=WHO, **everybodys) as server:
        server.wait_for_workers(2)
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        groups = ",".join(map(str, os.getgrouplist("nobody", gid)))
        expected = f"{uid} {gid} {groups} ({uid}, {uid}, {uid}) {NOBODY.pw_dir}"
        assert get(("127.0.0.1", port), "/who").body.decode() == expected
        assert (folder / "uploads/one").stat().st_mode & 0o777 == 0o640
        # A worker that has just been forked is still root.
        wait_until(lambda: _uids(server) == {"\t".join([str(uid)] * 4)}, "all workers to be that user")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_reload_with_user(folder: Path, everybodys: dict[str, str], number: int) -> None:
    """New code is imported by USER as well, and the privileged port is kept, without a failed request."""
    with serving(folder, "--port", str(_privileged_port()), "--user", "nobody", **everybodys) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2", WHO)
            server.signal(number)
            server.wait_renewed(load, old)
            assert {answer.version for answer in load.last.values()} == {"2"}
            assert _uids(server) == {"\t".join([str(NOBODY.pw_uid)] * 4)}


def test_workers_of_another_user_end(folder: Path, everybodys: dict[str, str]) -> None:
    """Workers of another user end with their supervisor, too, although giving up rights clears the parent-death signal."""
    with serving(folder, "--user", "nobody", "--group", str(NOBODY.pw_gid), **everybodys) as server:
        server.wait_for_workers(2)
        server.deploy("2", "open('uploads/loading', 'w').close()\ntime.sleep(1000)")
        server.signal(signal.SIGHUP)
        wait_until((folder / "uploads/loading").exists, "a third worker to load the app")
        workers = server.workers
        server.signal(signal.SIGKILL)
        wait_until(lambda: not any(Path("/proc", str(pid), "exe").exists() for pid in workers), "the workers to end")


def test_unix_socket_belongs_to_user(folder: Path, everybodys: dict[str, str]) -> None:
    """A Unix socket that the server creates belongs to USER and GROUP, and is removed in the end."""
    path = folder / "socket"
    with serving(folder, "--bind", f"unix:{path}", "--user", "nobody", **everybodys) as server:
        server.wait_for_workers(2)
        assert get(str(path), "/echo/1").status == 200
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        assert not path.exists()


def test_key_that_only_root_can_read(folder: Path, everybodys: dict[str, str]) -> None:
    """A TLS key that only root can read is read before rights are given up: at the start, at a reload, and when the supervisor sees a
    new one, which it reloads for.
    """
    pair = make(folder, "it", names="DNS:localhost")
    os.chmod(pair.key, 0o600)
    options = ["--tls-cert", pair.cert, "--tls-key", pair.key, "--user", "nobody"]
    with serving(folder, *options, **everybodys) as server:
        server.wait_for_workers(2)
        address = server.command.address
        assert isinstance(address, tuple)
        first = Path(pair.cert).read_text().split()
        assert ssl.get_server_certificate(address).split() == first
        old = server.workers
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers) == 2 and not server.workers & old, "new workers")
        assert ssl.get_server_certificate(address).split() == first
        old = server.workers
        fresh = make(folder / "fresh", "it", names="DNS:localhost")
        os.chmod(fresh.key, 0o600)
        os.replace(fresh.cert, pair.cert)
        os.replace(fresh.key, pair.key)
        server.command.wait_for("TLS_CLIENT_CA have changed; reloading")
        wait_until(lambda: len(server.workers) == 2 and not server.workers & old, "new workers")
        assert ssl.get_server_certificate(address).split() == Path(pair.cert).read_text().split() != first
        assert server.command.output.count("reload requested") == 2


AS_NOBODY = """
import os, pwd, sys
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_started_as_an_ordinary_account(folder: Path, everybodys: dict[str, str]) -> None:
    """A server that an ordinary account starts serves, reloads and stops as any other, and warns of no rights."""
    prefix = (sys.executable, "-c", AS_NOBODY)
    with serving(folder, prefix=prefix, XDG_RUNTIME_DIR="", **everybodys) as server:
        server.wait_for_workers(2)
        with server.under_load() as load:
            old = server.workers
            server.deploy("2")
            server.signal(signal.SIGHUP)
            server.wait_renewed(load, old)
            assert {answer.version for answer in load.last.values()} == {"2"}
        assert _uids(server) == {"\t".join([str(NOBODY.pw_uid)] * 4)}
        server.signal(signal.SIGTERM)
        assert server.command.exit_code() == 0
        assert "WARNING" not in server.command.output
        assert "runs as root" not in server.command.output


def test_app_is_not_loaded_as_root(folder: Path, everybodys: dict[str, str]) -> None:
    """Not even to say that PRELOAD would do that."""
    (folder / "app.py").write_text(
        "import os\nfrom flask import Flask\nopen('uploads/by', 'w').write(str(os.geteuid()))\napp = Flask(__name__)\n"
    )
    python = everybodys["python"]
    refused = subprocess.run(
        [python, "-m", "flask", "serve", "--preload", "--user", "nobody", "--port", "0"],
        cwd=folder,
        env={**environment(), **everybodys},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert refused.returncode == 2
    assert "PRELOAD (--preload) would load the app in the supervisor" in refused.stderr
    assert (folder / "uploads/by").read_text() == str(NOBODY.pw_uid)
