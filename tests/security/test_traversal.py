"""Nobody gets a file that is not below a static folder, whatever the path looks like, on any kind of listener."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Blueprint, Flask

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


@pytest.fixture(scope="module", params=["tcp", "unix", "tls", "prefix"])
def connect(
    request: pytest.FixtureRequest, folder: Path, localhost: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Wire]]:
    """Opens a connection to a server of one kind, which trusts the prefix that requests with X-Forwarded-Prefix name."""
    files = tmp_path_factory.mktemp("listener")
    settings: dict[str, object] = {}
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    if request.param == "unix":
        settings = {"bind": f"unix:{files / 'app.sock'}"}
    elif request.param == "tls":
        settings = {**localhost.settings}
    elif request.param == "prefix":
        settings = {"trusted_proxies": "127.0.0.1"}
    with in_thread(make_app(folder), keepalive_timeout=100, **settings) as served:

        def connected() -> Wire:
            wire = Wire(served.address)
            if request.param == "tls":
                wire.socket = client.wrap_socket(wire.socket)
            return wire

        yield connected


def ask(connect: Callable[[], Wire], path: str) -> Response:
    with connect() as wire:
        lines = [f"GET {path} HTTP/1.1", "Host: test", "X-Forwarded-Prefix: /outer", "Connection: close", "", ""]
        wire.send("\r\n".join(lines).encode())
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
def test_public_files(connect: Callable[[], Wire], path: str) -> None:
    """What is below the folder is served, also where a link leads, as Flask serves it."""
    response = ask(connect, path)
    assert (response.status, response.body) == (200, PUBLIC)


def test_no_path_leads_out(connect: Callable[[], Wire], folder: Path) -> None:
    """No spelling of a way out gets the secret, or an error of the server's own making."""
    for path in PATHS:
        response = ask(connect, path.replace("{secret}", str(folder / "secret.txt")))
        assert SECRET not in response.body, path
        assert response.status in (308, 400, 404), path


def test_names_that_are_none(connect: Callable[[], Wire]) -> None:
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
        assert ask(connect, path).status in (404, 308), path
