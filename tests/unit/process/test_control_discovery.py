"""Which running server a command means: names of apps, other folders, runtime directories; and what is listed otherwise."""

from __future__ import annotations

import contextlib
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlled import controlled
from flask_prodserve.errors import BindError, ProdServeError
from flask_prodserve.process import control
from flask_prodserve.process.control import socket_path


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name, since the path of a Unix socket must be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a machine on which no other servers run."""
    for name in ("run", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(socket_path, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(socket_path, "TEMPORARY", str(tmp_path / "tmp"))
    return {}


@contextlib.contextmanager
def server(
    environ: dict[str, str],
    app: str = "hello",
    folder: str = "/srv",
    pid: int = 1,
    url: str = "http://127.0.0.1:8000",
    **variables: str,
) -> Iterator[str]:
    """A control socket that answers as the server of *app* in *folder* does."""
    path = control.automatic_path(control.key_of(app, folder), folder, pid, {**environ, **variables})
    assert path is not None
    answer = {"pid": pid, "app": app, "folder": folder, "listen": [url]}
    with controlled(Path(path), lambda request, respond: respond(answer)):
        yield path


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (["slow", "slow.py", "./slow.py", "slow:app", "slow.py:app", "slow:application", "slow/__init__.py"], "slow"),
        (["slow:create_app", "slow:create_app()", "slow:make_app"], "slow"),
        (["slow:other", "slow.py:other", "slow:other()"], "slow:other"),
        (["slow:create_app('x')"], "slow:create_app('x')"),
        (["package.inner", "package/inner.py", "package/inner"], "package.inner"),
    ],
)
def test_spellings_of_an_app(tmp_path: Path, names: list[str], key: str) -> None:
    """All ways to name an app are one, and other apps are others."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    assert {control.key_of(name, str(tmp_path)) for name in names} == {key}
    assert control.key_of(None, str(tmp_path)) == ""


def test_another_spelling_and_another_folder(environ: dict[str, str]) -> None:
    """The only server of an app is found by any spelling and from any folder; a note says which one it is, if it is elsewhere."""
    notes: list[str] = []
    with server(environ, "slow.py") as path:
        for app in ("slow", "slow.py", "slow:app"):
            assert control.locate("auto", app, "/srv", environ, notes.append) == path
        assert not notes
        for app in ("slow:app", None):
            assert control.locate("auto", app, "/elsewhere", environ, notes.append, changes=app is not None) == path
            assert (
                notes.pop()
                == f"Using the server with pid 1: app slow.py, folder /srv, http://127.0.0.1:8000, socket {path}"
            )


@pytest.mark.parametrize("parent", ["hello", "apps/hello"])
def test_runtime_directory(tmp_path: Path, environ: dict[str, str], parent: str) -> None:
    """A server that systemd has given a runtime directory is found by a login shell, which does not know it."""
    (tmp_path / "run" / parent).mkdir(parents=True)
    with server(environ, RUNTIME_DIRECTORY=str(tmp_path / "run" / parent)) as path:
        assert path.startswith(str(tmp_path / "run" / parent))
        assert control.locate("auto", "hello", "/srv", environ) == path
        assert control.locate("auto", None, "/root", environ, changes=False) == path


def fails(app: str | None, folder: str, environ: dict[str, str], *, changes: bool = True) -> list[str]:
    with pytest.raises(ProdServeError) as caught:
        control.locate("auto", app, folder, environ, changes=changes)
    return str(caught.value).splitlines()


def test_several_servers(environ: dict[str, str]) -> None:
    """Of several servers none is guessed; they are listed with what tells them apart. One in this very folder is meant."""
    with server(environ, "one") as one, server(environ, "two", "/two", 2, "unix:/two.sock") as two:
        first, *listed, hint = fails(None, "/", environ, changes=False)
        assert first == "2 servers are running:"
        assert sorted(listed) == [
            f"  - pid 1: app one, folder /srv, http://127.0.0.1:8000, socket {one}",
            f"  - pid 2: app two, folder /two, unix:/two.sock, socket {two}",
        ]
        assert "flask --app" in hint
        assert control.locate("auto", "two", "/", environ) == two
        with server(environ, "two", "/three", 3):
            assert fails("two", "/", environ)[0] == "2 servers of this app are running:"
            assert control.locate("auto", "two", "/two", environ) == two


def test_servers_of_other_apps_are_listed(environ: dict[str, str]) -> None:
    """Where an app is named that is not served, the servers that run are listed."""
    with server(environ, "one") as path:
        first, listed, _ = fails("two", "/srv", environ)
    assert first == "No server of this app seems to be running. Running servers:"
    assert listed == f"  - pid 1: app one, folder /srv, http://127.0.0.1:8000, socket {path}"
    assert fails("two", "/srv", environ)[0] == "No server of this app seems to be running."


def test_nothing_is_changed_by_a_guess(environ: dict[str, str]) -> None:
    """A command that changes a server does not take the only one that runs elsewhere unless its app is named."""
    with server(environ, "one") as path:
        assert control.locate("auto", None, "/", environ, changes=False) == path
        assert fails(None, "/", environ)[0] == "No server of this app seems to be running. Running servers:"
        assert control.locate("auto", "one", "/", environ) == path
        assert control.locate("auto", None, "/srv", environ) == path


def test_namesakes(tmp_path: Path, environ: dict[str, str]) -> None:
    """An app that is in this folder is not that of the same name in another one, whether it is named or not."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").touch()
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with server(environ, "app", a) as path:
        for app in ("app", "app:app", "app.py", None):
            assert (
                fails(app, b, environ, changes=False)[0]
                == "No server of this app seems to be running. Running servers:"
            )
            assert control.locate("auto", app, a, environ) == path
        assert control.locate("auto", f"{a}/app.py", b, environ) == path
        assert control.locate("auto", "app", str(tmp_path), environ) == path


def test_two_apps_in_one_file(tmp_path: Path, environ: dict[str, str]) -> None:
    """A server of another app in the same file is not meant, and one is meant if only the file is named."""
    (tmp_path / "two.py").touch()
    folder = str(tmp_path)
    with server(environ, "two:api", folder) as path:
        assert fails("two:admin", folder, environ)[0] == "No server of this app seems to be running. Running servers:"
        for app in ("two:api", "two.py:api", "two"):
            assert control.locate("auto", app, folder, environ) == path


def test_text_of_a_server_does_not_reach_the_terminal_raw(environ: dict[str, str]) -> None:
    """Control characters in what a server answers are escaped."""
    with server(environ, "one", url="http://\x1b[2J"):
        assert r"http://\x1b[2J" in fails("two", "/srv", environ)[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees them")
def test_sockets_of_other_accounts(tmp_path: Path, environ: dict[str, str]) -> None:
    """Root is told of another account's server, and neither asks nor uses what that account may have put there."""
    (tmp_path / "run" / "hello").mkdir()
    with server(environ, RUNTIME_DIRECTORY=str(tmp_path / "run" / "hello")) as path:
        os.chown(Path(path).parent, pwd.getpwnam("nobody").pw_uid, -1)
        _, listed, hint = fails("hello", "/srv", environ)
    assert listed == f"  - pid 1: account nobody, socket {path}"
    assert "as the account of the server" in hint


@pytest.mark.parametrize(
    ("wanted", "url", "same"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("*:8000", "http://127.0.0.1:8000", True),
        (":8000", "https://10.0.0.1:8000", True),
        ("localhost:8000", "http://127.0.0.1:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("127.0.0.1:8000", "http://0.0.0.0:8000", True),
        ("127.0.0.1:8000", "http://10.0.0.1:8000", False),
        ("127.0.0.1:8000", "http://127.0.0.1:8001", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a:8000", "http://127.0.0.1:8000", False),
    ],
)
def test_who_has_an_address(environ: dict[str, str], wanted: str, url: str, same: bool) -> None:
    """An address in use is explained with the server that has it, and the command that stops that one; others are not accused."""
    error = BindError("in use", "hint", in_use=wanted)
    with server(environ, url=url) as path:
        named = control.name_holder(error, environ)
    assert (named is not error) == same
    if same:
        assert named.what.startswith(f"{wanted} is already in use by the server with pid 1: app hello")
        assert f"flask serve --control-socket {path} stop" in named.hint
    assert control.name_holder(BindError("other"), environ).what == "other"
