"""Where the control socket is: the automatic place, safe folders, sockets of the dead and of the living; and what a client says then."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlled import controlled
from flask_prodserve.errors import ExitCode, ProdServeError
from flask_prodserve.process import control
from flask_prodserve.process.control import socket_path
from serving import PATIENCE

PID = 4711


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name, since the path of a Unix socket must be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """What $XDG_RUNTIME_DIR may be."""
    folder = tmp_path / "run"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def environ(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a machine on which no other servers run."""
    monkeypatch.setattr(socket_path, "RUN", str(tmp_path / "none"))
    monkeypatch.setattr(socket_path, "TEMPORARY", str(tmp_path / "none"))
    return {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(tmp_path)}


@contextlib.contextmanager
def listening(path: str | Path) -> Iterator[socket.socket]:
    """A control socket on which somebody listens, and which is left behind."""
    with control.open_control_socket(str(path)) as sock:
        yield sock


def leave_behind(path: str | Path) -> None:
    with listening(path):
        pass


def automatic(environ: dict[str, str], app: str = "hello", folder: str = "/srv", pid: int = PID) -> Path:
    path = control.automatic_path(app, folder, pid, environ)
    assert path is not None
    return Path(path)


def test_the_order_of_places(tmp_path: Path, runtime: Path, environ: dict[str, str]) -> None:
    """systemd's runtime directory comes first, then the user's, then one for temporary files; what cannot be had is passed over."""
    first = tmp_path / "service"
    first.mkdir()
    environ["RUNTIME_DIRECTORY"] = f"{first}:{tmp_path / 'other'}"
    assert automatic(environ).parent == first / "flask-prodserve"
    environ["RUNTIME_DIRECTORY"] = str(tmp_path / "missing")
    assert automatic(environ).parent == runtime / "flask-prodserve"
    environ["XDG_RUNTIME_DIR"] = "relative"
    assert automatic(environ).parent == tmp_path / f"flask-prodserve-{os.geteuid()}"
    environ["TMPDIR"] = str(tmp_path / "missing")
    assert control.automatic_path("hello", "/srv", PID, environ) is None
    assert not (tmp_path / "missing").exists()


def test_the_folder_is_private(environ: dict[str, str]) -> None:
    """The folder is made with 0700, and a second server uses the same one."""
    path = automatic(environ)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.name.endswith(f"-{PID}.sock")
    assert automatic(environ, pid=PID + 1).parent == path.parent


def _link(place: Path) -> None:
    place.with_name("elsewhere").mkdir(0o700)
    place.symlink_to(place.with_name("elsewhere"))


def _open_to_all(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def _of_somebody_else(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give something away")
    place.mkdir(0o700)
    os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)


@pytest.mark.parametrize("prepare", [_link, _open_to_all, _of_somebody_else, Path.touch])
def test_a_folder_that_somebody_else_may_have_made(
    tmp_path: Path, environ: dict[str, str], prepare: Callable[[Path], object]
) -> None:
    """A folder that is a link, is open to others or belongs to them is not used, by servers or by clients."""
    del environ["XDG_RUNTIME_DIR"]
    path = automatic(environ)
    with listening(path):
        assert control.find("hello", "/srv", environ) == [str(path)]
        path.parent.rename(tmp_path / "moved")
        prepare(path.parent)
        with contextlib.suppress(OSError):
            (tmp_path / "moved" / path.name).rename(path)
        assert control.automatic_path("hello", "/srv", PID, environ) is None
        assert control.find("hello", "/srv", environ) == []


def test_a_path_that_is_too_long(tmp_path: Path, environ: dict[str, str]) -> None:
    """A place whose path no Unix socket can have is passed over."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    environ["XDG_RUNTIME_DIR"] = str(deep)
    assert automatic(environ).parent.parent == tmp_path
    environ["TMPDIR"] = str(deep)
    assert control.automatic_path("hello", "/srv", PID, environ) is None
    assert list(deep.iterdir()) == []


def test_servers_are_found_by_app_and_folder(tmp_path: Path, environ: dict[str, str]) -> None:
    """A client finds the living servers of its app, wherever they are; sockets of dead ones are removed, others are not touched."""
    mine = automatic(environ)
    dead = automatic(environ, pid=1)
    elsewhere = automatic({"TMPDIR": environ["TMPDIR"]}, pid=2)
    others = [automatic(environ, app="other"), automatic(environ, folder="/srv/x"), automatic(environ, app="")]
    leave_behind(dead)
    for path in others:
        leave_behind(path)
    with listening(mine), listening(elsewhere):
        assert control.find("hello", "/srv", environ) == [str(mine), str(elsewhere)]
    assert not dead.exists()
    assert all(path.exists() for path in others)
    assert control.find("hello", "/srv", environ) == []
    assert not mine.exists()


def test_a_folder_with_two_names(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is found from a folder that leads to its own, and, where its own name leads elsewhere now, by that name."""
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "1")
    with listening(automatic(environ, folder=str(tmp_path / "1"))) as sock:
        assert control.find("hello", str(current), environ) == [sock.getsockname()]
    monkeypatch.chdir(current)
    name = control.working_folder({"PWD": str(current)})
    assert name == str(current)
    with listening(automatic(environ, folder=name)) as sock:
        current.unlink()
        current.symlink_to(tmp_path / "2")
        assert control.find("hello", str(current), environ) == [sock.getsockname()]
    for wrong in ({"PWD": str(current)}, {"PWD": "."}, {"PWD": str(tmp_path / "missing")}, {}):
        assert control.working_folder(wrong) == str(tmp_path / "1")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_this_account_can_reach_it(tmp_path: Path, umask: int) -> None:
    """The socket has mode 0600 whatever the umask is, which is the same afterwards, and is not passed on to other programs."""
    before = os.umask(umask)
    try:
        sock = control.open_control_socket(str(tmp_path / "c"))
    finally:
        after = os.umask(before)
    with sock:
        assert after == umask
        assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600
        assert not sock.get_inheritable()


def test_a_relative_path_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may change its folder afterwards."""
    monkeypatch.chdir(tmp_path)
    with listening("c") as sock:
        assert sock.getsockname() == str(tmp_path / "c")


def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    """What nobody listens on makes room for what somebody does."""
    leave_behind(tmp_path / "c")
    with listening(tmp_path / "c"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "c"))


def refused(path: Path) -> str:
    with pytest.raises(control.ControlSocketError) as caught:
        control.open_control_socket(str(path))
    assert "CONTROL_SOCKET" in caught.value.what
    assert "--control-socket" in caught.value.hint
    return caught.value.what


def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    """A living server's socket, also one that is too busy to accept, and what is no socket are neither replaced nor removed."""
    with listening(tmp_path / "c"):
        assert "another server listens there" in refused(tmp_path / "c")
        assert not control.remove(str(tmp_path / "c"))
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        client.connect(str(tmp_path / "busy"))
        assert "another server listens there" in refused(tmp_path / "busy")
    (tmp_path / "file").write_text("precious")
    assert "not a socket" in refused(tmp_path / "file")
    assert not control.remove(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


def test_remove(tmp_path: Path) -> None:
    """A closed server's socket is removed; where nothing is, nothing has to be."""
    leave_behind(tmp_path / "c")
    assert control.remove(str(tmp_path / "c"))
    assert not (tmp_path / "c").exists()
    assert control.remove(str(tmp_path / "c"))


def test_paths_that_cannot_be_had(tmp_path: Path) -> None:
    """A folder that is missing or open to others, and a path that is too long, are refused with the setting's name."""
    assert "No such file or directory" in refused(tmp_path / "missing" / "c")
    assert "too long" in refused(tmp_path / ("x" * 120))
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "but others than the server's user can replace it" in refused(shared / "c")
    shared.chmod(0o1777)
    with listening(shared / "c"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something away")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """Root does not put its socket where another account could exchange it."""
    os.chown(tmp_path, pwd.getpwnam("nobody").pw_uid, -1)
    assert "but others than the server's user can replace it" in refused(tmp_path / "c")


def fails(function: Callable[[], object]) -> str:
    with pytest.raises(ProdServeError) as caught:
        function()
    assert caught.value.exit_code is ExitCode.FAILURE
    return str(caught.value)


def test_locating_the_server(environ: dict[str, str]) -> None:
    """A path is taken as it is; auto means the one server that is found; none, several and off are errors that say what to do."""
    assert control.locate("/x", "hello", "/srv", environ) == "/x"
    text = fails(lambda: control.locate("auto", "hello", "/srv", environ))
    assert "No server of this app seems to be running." in text
    assert "CONTROL_SOCKET" in text
    assert "CONTROL_SOCKET is off" in fails(lambda: control.locate("off", "hello", "/srv", environ))
    with listening(automatic(environ)) as first:
        assert control.locate("auto", "hello", "/srv", environ) == first.getsockname()
        with listening(automatic(environ, pid=PID + 1)) as second:
            text = fails(lambda: control.locate("auto", "hello", "/srv", environ))
            assert f"pid {PID}: socket {first.getsockname()}" in text
            assert f"pid {PID + 1}: socket {second.getsockname()}" in text
            assert "--control-socket PATH" in text


def test_asking_nobody(tmp_path: Path) -> None:
    """Where nobody answers, the path and the reason are told."""
    leave_behind(tmp_path / "dead")
    for path, reason in [
        (tmp_path / "dead", "Connection refused"),
        (tmp_path / "missing", "No such file"),
        (tmp_path / ("x" * 120), "too long"),
    ]:
        text = fails(lambda path=path: control.ask(str(path), control.Status(), PATIENCE))  # type: ignore[misc]  # a default binds it
        assert str(path) in text
        assert reason in text


def test_asking_a_server_that_does_not_answer(tmp_path: Path) -> None:
    """There is an end to waiting, and a server that goes away, refuses or talks nonsense is told from one that is silent."""
    with listening(tmp_path / "c"):
        assert "within 0.05 seconds" in fails(lambda: control.ask(str(tmp_path / "c"), control.Status(), 0.05))
    with controlled(tmp_path / "c", lambda request, respond: running.server.close()) as running:
        running.closed = True
        with pytest.raises(control.ServerGoneError):
            control.ask(running.path, control.Status(), PATIENCE)
    with (
        controlled(tmp_path / "c", lambda request, respond: respond({"error": "Not today."})) as running,
        pytest.raises(control.RefusedError, match=r"^Not today\.$"),
    ):
        control.ask(running.path, control.Status(), PATIENCE)
    with listening(tmp_path / "c") as sock, control.Connection(str(tmp_path / "c")) as connection:
        accepted, _ = sock.accept()
        with accepted:
            accepted.sendall(b"220 mail ready\n[]\n")
            for _ in range(2):
                assert "is not from flask-prodserve" in fails(lambda: connection.ask(control.Status(), PATIENCE))


def test_waiting_for_the_end(tmp_path: Path) -> None:
    """A client sees that the server has closed, as the last thing that it does."""
    with (
        controlled(tmp_path / "c", lambda request, respond: respond({"stopping": True})) as running,
        control.Connection(running.path) as connection,
    ):
        assert connection.ask(control.Stop(), PATIENCE) == {"stopping": True}
        assert not connection.ends_within(0.01)
        running.close()
        assert connection.ends_within(PATIENCE)
        with pytest.raises(control.ServerGoneError):
            connection.ask(control.Status(), PATIENCE)


@pytest.mark.skipif(
    os.geteuid() != 0 or not hasattr(socket, "SO_PEERCRED"), reason="only root can become somebody else"
)
@pytest.mark.parametrize("given_away", [False, True])
def test_server_of_another_account(tmp_path: Path, given_away: bool) -> None:
    """A socket on which another account listens is not asked, whoever its file belongs to; root's own is."""
    nobody = pwd.getpwnam("nobody").pw_uid
    path = tmp_path / "c"
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(path))
        if not given_away:
            os.chown(path, nobody, -1)
        os.seteuid(nobody)
        try:
            planted.listen()
        finally:
            os.seteuid(0)
        text = fails(lambda: control.ask(str(path), control.Status(), PATIENCE))
        assert f"The server at {path} (CONTROL_SOCKET) was started by nobody" in text
        assert "sudo -u nobody" in text
        planted.setblocking(False)
        accepted, _ = planted.accept()
        with accepted:
            assert accepted.recv(100) == b""  # nothing was asked


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something away")
def test_a_folder_in_one_of_somebody_else(tmp_path: Path) -> None:
    """Root does not put its socket into a folder that another account could exchange as a whole."""
    (tmp_path / "own").mkdir(0o700)
    os.chown(tmp_path, pwd.getpwnam("nobody").pw_uid, -1)
    assert "but others than the server's user can replace it" in refused(tmp_path / "own/c")
