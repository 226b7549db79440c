"""Downloads that real proxies send: USE_X_SENDFILE behind nginx, with X_ACCEL_MAPPING, and behind Apache's mod_xsendfile."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask, request, send_file

from programs import free_ports, missing, program
from serving import PATIENCE, in_thread, run, wait_until
from wire import get

NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
user root;
events {{ }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location /internal/ {{ internal; alias {files}/; }}
    }}
}}
"""

APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile apache.pid
ErrorLog /dev/stderr
DefaultRuntimeDir {folder}
Mutex file:{folder}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule xsendfile_module /usr/lib/apache2/modules/mod_xsendfile.so
XSendFile on
XSendFilePath {files}
ProxyPass / http://127.0.0.1:{upstream}/
"""

NAMES = ["a b.pdf", "grüße & 100%25 #1?.pdf", "sub/€.txt", "large.bin"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(random.Random(name).randbytes(2_000_000 if name == "large.bin" else 1000))
    return folder


def make_app(files: Path) -> Flask:
    app = Flask("downloads", static_folder=None)
    app.config["USE_X_SENDFILE"] = True

    @app.get("/download/<path:name>")
    def download(name: str) -> object:
        return send_file(files / name, mimetype="application/x-test", max_age=7)

    @app.get("/else")
    def elsewhere() -> object:
        return send_file(request.args["path"])

    @app.get("/")
    def index() -> str:
        return "index"

    return app


@pytest.fixture(scope="module", params=["nginx", "apache"])
def proxy(
    request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp(request.param)
    [port] = free_ports(1)
    nginx = request.param == "nginx"
    text, settings = (NGINX, {"x_accel_mapping": [f"{files}=/internal"]}) if nginx else (APACHE, {})
    if not nginx and not Path("/usr/lib/apache2/modules/mod_xsendfile.so").exists():
        missing("libapache2-mod-xsendfile")
    with in_thread(make_app(files), trusted_proxies="127.0.0.1", **settings) as served:
        configured = text.format(port=port, upstream=served.address[1], files=files, folder=folder)
        (folder / "proxy.conf").write_text(configured)
        words = (
            [program("nginx"), "-p", str(folder), "-c", "proxy.conf"]
            if nginx
            else [program("apache2"), "-d", str(folder), "-f", "proxy.conf", "-DFOREGROUND"]
        )
        with run(words, cwd=folder) as command:

            def listening() -> bool:
                assert command.process.poll() is None, command.output
                with socket.socket() as probe:
                    probe.settimeout(PATIENCE)
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_until(listening, request.param)
            yield "127.0.0.1", port
            command.signal(signal.SIGTERM)  # its workers would outlive a kill
            assert command.exit_code() == 0


@pytest.mark.parametrize("name", NAMES)
def test_download(proxy: tuple[str, int], files: Path, name: str) -> None:
    """The proxy sends the file, whatever its name, with the app's type and caching, to HEAD and in ranges as well."""
    content = (files / name).read_bytes()
    target = "/download/" + quote(name)
    whole = get(proxy, target)
    assert (whole.status, whole.body, whole.get("content-type")) == (200, content, "application/x-test")
    assert whole.get("cache-control") == "public, max-age=7"
    assert whole.get("x-sendfile") is whole.get("x-accel-redirect") is None
    head = get(proxy, target, method="HEAD")
    assert (head.status, head.body, head.get("content-length")) == (200, b"", str(len(content)))
    part = get(proxy, target, "Range: bytes=10-19")
    assert (part.status, part.body) == (206, content[10:20])
    assert part.get("content-range") == f"bytes 10-19/{len(content)}"


def test_other_responses(proxy: tuple[str, int]) -> None:
    """Responses without a file, conditional ones among them, pass unchanged."""
    assert get(proxy, "/").body == b"index"
    tag = get(proxy, "/download/large.bin").get("etag")
    assert get(proxy, "/download/large.bin", f"If-None-Match: {tag}").status == 304


def test_files_elsewhere(proxy: tuple[str, int], files: Path) -> None:
    """A file that the proxy has no way to is an error, and no empty success."""
    for path in ("/etc/hostname", f"{files}/../{files.name}x", f"{files}/../../../../../etc/hostname"):
        response = get(proxy, "/else?path=" + quote(path))
        assert response.status >= 400, path


def test_internal_location(proxy: tuple[str, int]) -> None:
    """Nobody from outside gets a file by the URL that is nginx's own."""
    assert get(proxy, "/internal/large.bin").status == 404
