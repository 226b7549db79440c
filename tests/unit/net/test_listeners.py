"""Listeners: what is opened, what is refused and with which words, and what is left behind."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_prodserve.errors import BindError
from flask_prodserve.net.listeners import Listener, exchange_listeners, from_descriptor, open_listeners
from flask_prodserve.net.socket_owner import Owner
from flask_prodserve.net.systemd import Inherited
from flask_prodserve.units import Address, SystemdAddress, TCPAddress, UnixAddress, parse_address
from programs import free_ports
from serving import environment


@contextmanager
def opened(
    *addresses: Address,
    mode: int = 0o660,
    inherited: Sequence[Inherited] = (),
    owner: Owner | None = None,
) -> Iterator[list[Listener]]:
    listeners = open_listeners(addresses, backlog=16, unix_socket_mode=mode, inherited=inherited, owner=owner)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def refusal(
    *addresses: Address,
    current: Sequence[Listener] = (),
    inherited: Sequence[Inherited] = (),
    owner: Owner | None = None,
) -> BindError:
    with pytest.raises(BindError) as caught:
        exchange_listeners(current, addresses, backlog=16, unix_socket_mode=0o660, inherited=inherited, owner=owner)
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
        [free] = free_ports(1)
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
    assert "root" in done.stdout
    assert "--user" in done.stdout
    # As far as nobody may look for where it leads.
    assert re.search(r"`sudo setcap cap_net_bind_service=\+ep /\S+`", done.stdout)


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


@pytest.mark.parametrize(
    ("first", "second"),
    [("127.0.0.1", "localhost"), ("localhost", "127.0.0.1"), ("", "127.0.0.1"), ("[::1]", ""), ("0.0.0.0", "")],
)
def test_same_address_twice(first: str, second: str) -> None:
    """Two names for one address, or for a part of it, cannot both be had, and nobody is told of another program."""
    [port] = free_ports(1)
    error = refusal(*addresses_of([f"{first}:{port}", f"{second}:{port}"]))
    assert (
        error.what
        == f"{first}:{port} and {second}:{port} overlap: they are the same address, or one includes the other."
    )
    assert "BIND" in error.hint


def test_taken_beside_another_address() -> None:
    """An address that somebody else has is in use, also where we have another one on the same port."""
    [port] = free_ports(1)
    with socket.create_server(("::1", port), family=socket.AF_INET6):
        assert refusal(*addresses_of([f"127.0.0.1:{port}", f"[::1]:{port}"])).what == f"[::1]:{port} is already in use."


NOBODY = Owner(65534, 65534, (65534,))
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give files away"
)


@needs_root
@pytest.mark.parametrize("folder_owner", [0, NOBODY.uid], ids=["folder of root", "folder of the owner"])
def test_owner(path: Path, tmp_path: Path, folder_owner: int) -> None:
    """A Unix socket belongs to the user and group that are asked for, with its mode, and replaces a stale one; this process stays root."""
    os.chown(tmp_path, folder_owner, folder_owner)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        os.chown(path, NOBODY.uid, NOBODY.gid)
    before = (os.geteuid(), os.getegid(), os.getgroups(), os.umask(0o022))
    with opened(UnixAddress(str(path)), mode=0o662, owner=NOBODY):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (NOBODY.uid, NOBODY.gid)
        assert stat.S_IMODE(status.st_mode) == 0o662
        assert (os.geteuid(), os.getegid(), os.getgroups(), os.umask(0o022)) == (*before[:3], 0o022)
    assert not path.exists()
    os.umask(before[3])


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder that other accounts can reach, with a short name."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@needs_root
def test_folder_of_the_owner_gives_root_nothing_to_do(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that the owner can write to, root changes nothing by path: the owner could put a file of root's there meanwhile."""
    os.chown(tmp_path, NOBODY.uid, NOBODY.gid)
    for call in ("chown", "lchown", "chmod"):
        monkeypatch.setattr(os, call, lambda *arguments, **options: pytest.fail(f"root changed {arguments}"))
    with opened(UnixAddress(str(path)), owner=NOBODY):
        assert path.stat().st_uid == NOBODY.uid


@needs_root
def test_folder_of_a_third_account(path: Path, tmp_path: Path) -> None:
    """In a folder that neither root alone nor the owner can write to, nothing is created or removed, and the error says why."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        os.chown(path, NOBODY.uid, NOBODY.gid)
    os.chown(tmp_path, 1, 1)
    error = refusal(UnixAddress(str(path)), owner=NOBODY)
    assert "nobody (USER) may not write to" in error.what
    assert f"chown nobody {tmp_path}" in error.hint
    assert path.is_socket()


@pytest.fixture
def passed(tmp_path: Path) -> Iterator[list[Inherited]]:
    """Sockets as systemd passes them: two on TCP that have one name, and one on a path."""
    with (
        socket.create_server(("127.0.0.1", 0)) as ipv4,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as ipv6,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(tmp_path / "passed.sock"))
        unix.listen()
        yield [Inherited("web", ipv4.fileno()), Inherited("web", ipv6.fileno()), Inherited("local", unix.fileno())]


def test_all_from_systemd(passed: list[Inherited], tmp_path: Path) -> None:
    """All sockets that systemd has passed are listeners whose URLs tell where they are."""
    with opened(SystemdAddress(), inherited=passed) as listeners:
        ports = [listener.socket.getsockname()[1] for listener in listeners[:2]]
        assert [listener.url("https") for listener in listeners] == [
            f"https://127.0.0.1:{ports[0]}",
            f"https://[::1]:{ports[1]}",
            f"unix:{tmp_path}/passed.sock",
        ]
        for listener in listeners:
            assert not listener.socket.getblocking()
            assert not listener.socket.get_inheritable()


def test_some_from_systemd(passed: list[Inherited]) -> None:
    """A name is all sockets of that name, beside other addresses in their order."""
    wanted = (SystemdAddress("local"), TCPAddress("127.0.0.1", 0), SystemdAddress("web"))
    with opened(*wanted, inherited=passed) as listeners:
        assert [listener.address for listener in listeners] == [*wanted, wanted[2]]


def test_systemd_keeps_its_own(passed: list[Inherited], tmp_path: Path) -> None:
    """Closing leaves systemd's path and its socket, on which the next listener finds who came meanwhile."""
    path = tmp_path / "passed.sock"
    mode = path.stat().st_mode
    with opened(SystemdAddress("local"), mode=0o600, inherited=passed):
        assert path.stat().st_mode == mode
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with opened(SystemdAddress("local"), inherited=passed) as [listener]:
            listener.socket.accept()[0].close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_abstract_socket_from_systemd() -> None:
    """An abstract socket, which systemd may give, is shown as systemd writes it."""
    name = f"prodserve-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        sock.listen()
        with opened(SystemdAddress(), inherited=[Inherited("web", sock.fileno())]) as [listener]:
            assert listener.url("http") == f"unix:@{name}"


def test_nothing_from_systemd(passed: list[Inherited]) -> None:
    """Where systemd has passed nothing, or nothing of that name, the refusal says what it has passed and what to write."""
    nothing = refusal(SystemdAddress())
    assert "no sockets" in nothing.what
    assert "ListenStream=" in nothing.hint
    other = refusal(SystemdAddress("wbe"), inherited=passed)
    assert other.what.endswith("other sockets: local, web.")
    assert "FileDescriptorName=wbe" in other.hint
    assert "Keep one" in refusal(SystemdAddress(), SystemdAddress("web"), inherited=passed).hint


def test_forgotten_systemd(passed: list[Inherited], caplog: pytest.LogCaptureFixture) -> None:
    """Sockets from systemd that no address is for are worth a warning, since clients wait there in vain."""
    with opened(SystemdAddress("web"), inherited=passed):
        [record] = caplog.records
        assert "ignoring sockets that systemd passed: local." in record.getMessage()
    caplog.clear()
    with opened(SystemdAddress(), inherited=passed), opened(TCPAddress("127.0.0.1", 0)):
        assert not caplog.records


def exchanged(
    current: Sequence[Listener], *addresses: Address, backlog: int = 16, inherited: Sequence[Inherited] = ()
) -> tuple[list[Listener], list[Listener]]:
    return exchange_listeners(current, addresses, backlog=backlog, unix_socket_mode=0o660, inherited=inherited)


def test_exchange(path: Path, passed: list[Inherited]) -> None:
    """Addresses that stay keep their sockets, also with port 0, new ones are opened, in their order; the others are handed back open."""
    chosen, name = TCPAddress("127.0.0.1", 0), TCPAddress("localhost", 0)
    stays = (name, UnixAddress(str(path)), SystemdAddress("web"))
    with opened(chosen, *stays, inherited=passed) as current:
        new = TCPAddress("::1", 0)
        listeners, leaving = exchanged(current, *reversed(stays), new, inherited=passed)
        try:
            assert leaving == current[:1]
            assert connects(socket.AF_INET, leaving[0].socket.getsockname())
            assert listeners[:-1] == [
                listener for address in reversed(stays) for listener in current if listener.address == address
            ]
            assert [listener.address for listener in listeners[-1:]] == [new]
            assert connects(socket.AF_INET6, listeners[-1].socket.getsockname())
        finally:
            listeners[-1].close()


def test_exchange_without_systemd(passed: list[Inherited]) -> None:
    """What systemd passed to the process before this one (before an upgrade) is kept, though nothing is passed any more."""
    with opened(SystemdAddress("web"), inherited=passed) as current:
        assert exchanged(current, SystemdAddress("web")) == (current, [])
        assert "no sockets" in refusal(SystemdAddress("local"), current=current).what


def accepted_without_server(listener: Listener) -> int:
    """How many connections the system takes in before the backlog is full."""
    clients = []
    try:
        while True:
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.setblocking(False)
            if client.connect_ex(listener.socket.getsockname()) != 0:
                return len(clients) - 1
    finally:
        for client in clients:
            client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the backlog is a hint")
def test_exchange_applies_the_backlog(path: Path) -> None:
    """A changed backlog holds for sockets that are kept."""
    with opened(UnixAddress(str(path))) as current:
        listeners, _ = exchanged(current, UnixAddress(str(path)), backlog=3)
        assert listeners == current
        assert accepted_without_server(listeners[0]) == 4  # Linux takes one more than it is told


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", ""), ("", "127.0.0.1")])
def test_exchange_on_one_port(before: str, after: str) -> None:
    """Another address on the same port is refused as what needs a restart, and the old one serves on."""
    with opened(TCPAddress(before, 0)) as current:
        port = current[0].socket.getsockname()[1]
        error = refusal(TCPAddress(after, port), current=current)
        assert error.what.endswith(f"while this server listens on {before}:0.")
        assert "restart" in error.hint
        assert connects(socket.AF_INET, ("127.0.0.1", port))


def test_exchange_beside_what_stays() -> None:
    """An address that overlaps with one that stays is refused for that, wherever that one is listed, and no restart would help."""
    with opened(TCPAddress("127.0.0.1", 0)) as current:
        port = current[0].socket.getsockname()[1]
        wanted = (TCPAddress("127.0.0.1", 0), TCPAddress("", port))
        for addresses in (wanted, wanted[::-1]):
            error = refusal(*addresses, current=current)
            assert error.what.startswith(f"127.0.0.1:0 and :{port} overlap")


def test_failed_exchange(path: Path) -> None:
    """Where one address fails, what was opened for the others is closed, and what was there before is not."""
    with opened(TCPAddress("127.0.0.1", 0)) as current:
        refusal(TCPAddress("127.0.0.1", 0), UnixAddress(str(path)), parse_address("203.0.113.1:0"), current=current)
        assert not path.exists()
        assert connects(socket.AF_INET, current[0].socket.getsockname())


def test_from_descriptor(path: Path) -> None:
    """A listener made from a descriptor accepts, and removes the path only where it is told that the path is its own."""
    address = UnixAddress(str(path))
    with opened(address) as [first]:
        for file in (None, first.file):
            descriptor = os.dup(first.socket.fileno())
            os.set_inheritable(descriptor, True)
            os.set_blocking(descriptor, True)
            again = from_descriptor(descriptor, address, file)
            assert (again.address, again.url("http"), again.socket.fileno()) == (address, f"unix:{path}", descriptor)
            assert not again.socket.get_inheritable()
            assert not again.socket.getblocking()
            assert not os.get_blocking(descriptor)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                again.socket.accept()[0].close()
            assert path.exists()
            again.close()
            assert path.exists() == (file is None)
