"""The example app over TLS, as it is used by programs that are not ours: curl, openssl, requests and a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from certificates import Pair, openssl
from programs import program
from serving import PATIENCE, Command, flask, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(localhost: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    options = ["--port", "0", "--static", "on", "--tls-cert", localhost.cert, "--tls-key", localhost.key]
    instance = str(tmp_path_factory.mktemp("instance"))
    with run(
        flask("--app", "example_app", "serve", *options), cwd=ROOT, env={"EXAMPLE_APP_INSTANCE_PATH": instance}
    ) as command:
        yield command


@pytest.fixture
def url(example: Command) -> str:
    """With the name that the certificate is for."""
    return f"https://localhost:{example.address[1]}"


def said(name: str, *arguments: str) -> str:
    """What a program prints."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(url: str, localhost: Pair) -> None:
    """curl trusts the certificate, gets two pages over one connection, a part of a file, and events."""
    curl = ("--silent", "--show-error", "--cacert", localhost.cert)
    shown = ("--write-out", "%{http_code} %{num_connects}\n", "--output", "/dev/null")
    assert said("curl", *curl, *shown, f"{url}/", *shown, f"{url}/login") == "200 1\n200 0\n"
    style = (ROOT / "example_app/static/style.css").read_text()
    assert said("curl", *curl, "--range", "10-19", f"{url}/static/style.css") == style[10:20]
    assert said("curl", *curl, f"{url}/clock/stream?count=2").count("data:") == 2


def test_openssl(url: str, localhost: Pair) -> None:
    """openssl's client verifies the certificate for the name, and is answered."""
    asked = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    options = ("-CAfile", localhost.cert, "-verify_hostname", "localhost", "-verify_return_error", "-ign_eof")
    seen = openssl("s_client", "-connect", url.removeprefix("https://"), *options, given=asked).stdout
    assert b"Verify return code: 0 (ok)" in seen
    assert b"ALPN protocol" not in seen or b"http/1.1" in seen
    assert b"HTTP/1.1 200 OK" in seen


def test_requests(url: str, localhost: Pair) -> None:
    """Python's requests keeps its session: it makes an account, and gets a large file up and down again."""
    content = bytes(range(256)) * 8000
    with requests.Session() as session:
        session.verify = localhost.cert
        session.trust_env = False  # or else REQUESTS_CA_BUNDLE would say whom to trust

        def token(path: str) -> str:
            found = re.search(r'name="csrf_token" value="([^"]+)"', session.get(url + path, timeout=PATIENCE).text)
            assert found is not None
            return found[1]

        form = {"csrf_token": token("/register"), "name": "ada", "password": "long enough"}
        assert session.post(f"{url}/register", data=form, timeout=PATIENCE).status_code == 200
        form = {"csrf_token": token("/uploads/")}
        session.post(f"{url}/uploads/", data=form, files={"file": ("large.bin", content)}, timeout=PATIENCE)
        assert session.get(f"{url}/uploads/1", timeout=PATIENCE).content == content


def test_browser(example: Command, url: str, localhost: Pair, tmp_path: Path) -> None:
    """Chromium, which accepts this one key as if an authority had signed it, shows a page with its style."""
    public = subprocess.run(
        [program("openssl"), "pkey", "-in", localhost.key, "-pubout", "-outform", "der"],
        capture_output=True,
        check=True,
    ).stdout
    accepted = base64.b64encode(hashlib.sha256(public).digest()).decode()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path}"]
    page = said(
        "chromium", *options, f"--ignore-certificate-errors-spki-list={accepted}", "--dump-dom", f"{url}/whoami"
    )
    assert "<code>https</code>" in page
    example.wait_for('"GET /static/style.css HTTP/1.1" 200')
