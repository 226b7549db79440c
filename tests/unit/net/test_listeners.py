"""Listeners: what is opened, what is refused and with which words, and what is left behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_prodserve.errors import BindError
from flask_prodserve.net.listeners import Listener, open_listeners
from flask_prodserve.units import Address, TCPAddress, UnixAddress, parse_address
from serving import environment


@contextmanager
def opened(*addresses: Address, mode: int = 0o660) -> Iterator[list[Listener]]:
    listeners = open_listeners(addresses, backlog=16, unix_socket_mode=mode)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def refusal(*addresses: Address) -> BindError:
    with pytest.raises(BindError) as caught:
        open_listeners(addresses, backlog=16, unix_socket_mode=0o660)
    assert caught.value.hint.endswith(".")
    assert "\n" not in caught.value.what + caught.value.hint
    return caught.value


def connects(family: int, address: object) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0  # type: ignore[arg-type]  # of that family


@pytest.mark.parametrize(
    ("host", "family", "shown"), [("127.0.0.1", socket.AF_INET, "127.0.0.1"), ("::1", socket.AF_INET6, "[::1]")]
)
def test_tcp(host: str, family: int, shown: str) -> None:
    """An address listens, non-blocking and not inherited, on a port that its URL tells."""
    with opened(TCPAddress(host, 0)) as [listener]:
        port = listener.socket.getsockname()[1]
        assert listener.url("http") == f"http://{shown}:{port}"
        assert not listener.socket.getblocking()
        assert not listener.socket.get_inheritable()
        assert connects(family, (host, port))
    assert not connects(family, (host, port))


def test_every_interface() -> None:
    """No host is every interface of IPv4 and of IPv6, each a listener of its own, on one port."""
    with opened(TCPAddress("", 0)) as listeners:
        names = [listener.socket.getsockname()[:2] for listener in listeners]
        assert [name[0] for name in names] == ["0.0.0.0", "::"]
        assert len({name[1] for name in names}) == 1
        assert listeners[1].socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_name() -> None:
    """A name listens on each of its addresses, on one port."""
    with opened(TCPAddress("localhost", 0)) as listeners:
        expected = {info[4][0] for info in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)}
        assert {listener.socket.getsockname()[0] for listener in listeners} == expected
        assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1


def test_in_use() -> None:
    """An address in use is refused, and what was opened before it is closed again."""
    with opened(TCPAddress("127.0.0.1", 0)) as [first]:
        taken = TCPAddress("127.0.0.1", first.socket.getsockname()[1])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        error = refusal(TCPAddress("127.0.0.1", free), taken)
        assert error.what == f"127.0.0.1:{taken.port} is already in use."
        assert "--bind or PRODSERVE_BIND" in error.hint
        assert not connects(socket.AF_INET, ("127.0.0.1", free))


def test_no_time_wait() -> None:
    """A port whose last connection has just been closed by the server can be used again at once."""
    with opened(TCPAddress("127.0.0.1", 0)) as [listener]:
        address = listener.socket.getsockname()
        with socket.create_connection(address) as client:
            listener.socket.setblocking(True)
            accepted, _ = listener.socket.accept()
            accepted.close()
            assert client.recv(1) == b""
    with opened(TCPAddress(*address)):
        assert connects(socket.AF_INET, address)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("203.0.113.1:0", "not an address of this machine"),
        ("no-such-host.invalid:80", "cannot be resolved"),
        (f"{'a' * 64}.x:80", "resolved"),
    ],
)
def test_bad_address(address: str, word: str) -> None:
    """An address of another machine and a name that nobody knows are refused as such."""
    error = refusal(parse_address(address))
    assert word in error.what
    assert address in error.what


@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_no_permission(tmp_path: Path) -> None:
    """A port below 1024 without the right to it is refused with the ways out."""
    code = (
        "import os; os.setuid(65534)\n"
        "from flask_prodserve.net.listeners import open_listeners\n"
        "from flask_prodserve.units import TCPAddress\n"
        "from flask_prodserve.errors import BindError\n"
        "try: open_listeners([TCPAddress('127.0.0.1', 81)], backlog=1, unix_socket_mode=0o600)\n"
        "except BindError as error: print(error)\n"
    )
    # What other users may not read is imported before the user changes.
    preload = "import flask_prodserve.net.listeners, flask_prodserve.units, flask_prodserve.errors, encodings.idna\n"
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 81:
        pytest.skip("on this machine everybody may use port 81")
    done = subprocess.run(
        [sys.executable, "-c", preload + code], env=environment(), capture_output=True, text=True, check=True
    )
    assert "may not listen on 127.0.0.1:81" in done.stdout
    assert "setcap" in done.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.sock"


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_unix(path: Path, mode: int) -> None:
    """A Unix socket has its mode, whatever the umask is, says where it is, and leaves no file behind."""
    before = os.umask(0o077)
    try:
        with opened(UnixAddress(str(path)), mode=mode) as [listener]:
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert listener.url("http") == f"unix:{path}"
            assert connects(socket.AF_UNIX, str(path))
    finally:
        os.umask(before)
    assert not path.exists()


def test_stale_unix_socket(path: Path) -> None:
    """A socket that nobody listens on is replaced."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    with opened(UnixAddress(str(path))):
        assert connects(socket.AF_UNIX, str(path))


def test_live_unix_socket(path: Path) -> None:
    """A socket on which somebody answers is refused and left alone, also when its backlog is full."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(0)
        for _ in range(2):
            assert "Another server is listening" in refusal(UnixAddress(str(path))).what
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    """A file, a folder or a link at the path is refused, and still there."""
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent / "elsewhere")
    assert "is not a socket" in refusal(UnixAddress(str(path))).what
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [("missing/app.sock", "No such file"), ("a" * 200, "too long"), ("", "Cannot create")],
    ids=["folder", "long", "empty"],
)
def test_bad_path(tmp_path: Path, name: str, word: str) -> None:
    """A folder that is missing, a path that is too long and one that is a folder are refused as such."""
    error = refusal(UnixAddress(str(tmp_path / name) if name else "x" * 10 + "/"))
    assert word in error.what


def test_abstract_socket() -> None:
    """Abstract sockets, which everybody may connect to, are refused with the reason."""
    assert "no permissions" in refusal(UnixAddress("@app")).what


def test_others_file_is_not_removed(path: Path) -> None:
    """Closing removes the path only while it is still the listener's own socket; closing again does nothing."""
    with opened(UnixAddress(str(path))) as [listener]:
        path.unlink()
        path.write_text("somebody else's")
        listener.close()
        listener.close()
        assert path.read_text() == "somebody else's"


def test_failure_removes_unix_sockets(path: Path) -> None:
    """When a later address fails, a Unix socket that was made before it is removed."""
    refusal(UnixAddress(str(path)), parse_address("203.0.113.1:0"))
    assert not path.exists()


def addresses_of(texts: Sequence[str]) -> list[Address]:
    return [parse_address(text) for text in texts]


def test_same_address_twice() -> None:
    """Two names for one address cannot both be had."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "already in use" in refusal(*addresses_of([f"127.0.0.1:{port}", f"localhost:{port}"])).what
