"""Nobody gets a file that is not below a static folder, whatever the path looks like, on any kind of listener."""

from __future__ import annotations

import functools
import os
import select
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask

import proxy_header
from certificates import Pair
from serving import in_thread
from wire import Response, Wire

SECRET = b"the secret"
PUBLIC = b"public"

DOTS = [
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "..%00",
    "..;",
    "%c0%ae%c0%ae",
    "%uff0e%uff0e",
    "\u2025",
    "...",
    ". .",
]
SLASHES = ["/", "//", "%2f", "%2F", "%5c", "\\", "/./", "%252f", "%c0%af", "/%00/"]

PATHS = [
    *(f"/static{slash}{dots}{slash}secret.txt" for dots in DOTS for slash in SLASHES),
    *(f"/static/sub{slash}{dots}{slash}{dots}{slash}secret.txt" for dots in DOTS for slash in SLASHES),
    *(f"/bp/files/{dots}{slash}secret.txt" for dots in DOTS for slash in SLASHES),
    "/static/{secret}",
    "/static//{secret}",
    "/static/%2f{secret}",
    "/static/file:{secret}",
    "//static/../secret.txt",
    "/static/../static/../secret.txt",
    "/../secret.txt",
    "/secret.txt",
    "http://test/static/../secret.txt",
    "/static/C:/secret.txt",
    "/static/C:%5csecret.txt",
    "/static/a.css/../../secret.txt",
    "/static/a.css%00/../../secret.txt",
    "/static/..%00/secret.txt%00.css",
    "/static/loop/loop/../../secret.txt",
    "/static_secret/secret.txt",
    "/static%00/../secret.txt",
]
"""``{secret}``: the whole path of the file, as the system has it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    for name, content in {
        "secret.txt": SECRET,
        "static_secret/secret.txt": SECRET,
        "static/a.css": PUBLIC,
        "static/sub/b.css": PUBLIC,
        "files/c.css": PUBLIC,
        "elsewhere/linked.css": PUBLIC,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "static/loop").symlink_to(folder / "static")
    (folder / "static/elsewhere").symlink_to(folder / "elsewhere")
    (folder / "static/dangling.css").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "static/fifo")
    return folder


def make_app(folder: Path) -> Flask:
    app = Flask("statics", root_path=str(folder))
    app.register_blueprint(Blueprint("bp", "bp", root_path=str(folder), url_prefix="/bp", static_folder="files"))
    return app


Ask = Callable[[str], Response]

LISTENERS = {
    "tcp": {},
    "unix": {"bind": "unix:{folder}/app.sock"},
    "tls": {},
    "tls on unix": {"bind": "unix:{folder}/tls.sock"},
    "proxy protocol": {"trusted_proxies": "127.0.0.1", "proxy_protocol": "on"},
    "forwarded prefix": {"trusted_proxies": "127.0.0.1"},
    "own prefix": {"url_prefix": "/place"},
    "mount": {},
    "portable": {},
}
"""The settings of a server that is asked in each of these ways."""


@pytest.fixture(scope="module", params=list(LISTENERS))
def ask(
    request: pytest.FixtureRequest, folder: Path, localhost: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ask]:
    """Asks the app for a path, below its place, in a request that names an X-Forwarded-Prefix, too, whether that is trusted or not."""
    kind: str = request.param
    own = tmp_path_factory.mktemp("listener")
    settings: dict[str, Any] = {name: value.format(folder=own) for name, value in LISTENERS[kind].items()}
    if "tls" in kind:
        settings |= localhost.settings
    app = make_app(folder)
    if kind == "mount":
        settings["mounts"] = {"/place": app}
        app = Flask("main", static_folder=None)
    place = "/place" if kind in ("own prefix", "mount") else ""
    announced = proxy_header.line("192.0.2.1") if kind == "proxy protocol" else b""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "portable":
            patch.delattr(select, "epoll", raising=False)
        with in_thread(app, keepalive_timeout=100, **settings) as served:
            client = ssl.create_default_context(cafile=localhost.cert) if "tls" in kind else None
            yield functools.partial(_ask, served.address, place=place, announced=announced, client=client)


def _ask(
    address: tuple[str, int] | str,
    path: str,
    *,
    place: str = "",
    announced: bytes = b"",
    client: ssl.SSLContext | None = None,
) -> Response:
    scheme, slashes, rest = path.partition("http://test")
    lines = [f"GET {scheme}{slashes}{place}{rest} HTTP/1.1" if slashes else f"GET {place}{path} HTTP/1.1", "Host: test"]
    lines += ["X-Forwarded-Prefix: /outer", "Connection: close", "", ""]
    with Wire(address) as wire:
        if client is not None:
            wire.socket = client.wrap_socket(wire.socket, server_hostname="localhost")
        wire.send(announced + "\r\n".join(lines).encode())
        return wire.response()


@pytest.mark.parametrize(
    "path",
    [
        "/static/a.css",
        "/static/sub/b.css",
        "/static/sub%2fb.css",
        "/static/%61.css",
        "/bp/files/c.css",
        "/static/elsewhere/linked.css",
    ],
)
def test_public_files(ask: Ask, path: str) -> None:
    """What is below the folder is served, also where a link leads, and by the server: Flask names the file in a field of its own."""
    response = ask(path)
    assert (response.status, response.body) == (200, PUBLIC)
    assert response.get("content-disposition") is None


def test_no_path_leads_out(ask: Ask, folder: Path) -> None:
    """No spelling of a way out gets the secret, or an error of the server's own making."""
    for path in PATHS:
        response = ask(path.replace("{secret}", str(folder / "secret.txt")))
        assert SECRET not in response.body, path
        assert response.status in (308, 400, 404), path


def test_redirects_lead_nowhere(folder: Path, localhost: Pair) -> None:
    """Where http is redirected to https nobody gets a file, public or not."""
    settings = {"bind": "127.0.0.1:0", "tls_redirect_bind": "localhost:0", **localhost.settings}
    with in_thread(make_app(folder), **settings) as served:
        for path in ["/static/a.css", *PATHS]:
            response = _ask(served.addresses[-1], path.replace("{secret}", str(folder / "secret.txt")))
            assert response.status in (308, 400), path
            assert not {SECRET, PUBLIC} & set(response.body.split()), path


def test_names_that_are_none(ask: Ask) -> None:
    """Other cases, links that lead nowhere or in a circle, folders and pipes are not found, and nothing waits for them."""
    for path in (
        "/static/A.CSS",
        "/static/dangling.css",
        "/static/fifo",
        "/static/",
        "/static",
        "/static/sub",
        "/static/sub/",
    ):
        assert ask(path).status in (404, 308), path
