"""Several apps in one server: a Flask app, a second one beside it, and a real Django project with its admin; as people start it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import django_project
import pytest

from serving import PATIENCE, Command, flask, run, wait_until
from wire import Wire, get

SHOP = """
from flask import Flask, redirect, request, session, url_for

app = Flask(__name__)
app.secret_key = "shop"
app.config["PRODSERVE_MOUNTS"] = {
    "/api": "api:create_app('v2', debug=False)",
    "/office": "project.wsgi:application",
    "hasty.test": "project.wsgi:application",
}
app.config["PRODSERVE_ENDPOINT_LIMITS"] = {"/office": {"max_body": 1000}, "hasty.test": {"timeout": 0.5}}


@app.get("/")
def index():
    return f"shop {url_for('login')} {session.get('user')}"


@app.post("/login")
def login():
    session["user"] = request.form["user"]
    return redirect(url_for("index"))
"""

API = """
from flask import Flask, redirect, request, session, url_for

from flask_prodserve import ProdServe

prodserve = ProdServe()


@prodserve.worker_started
def started(app):
    print(f"{app.name} has started", flush=True)


def create_app(version, debug=None):
    app = Flask(__name__, static_folder="api_static", static_url_path="/static")
    app.secret_key = "api"
    app.config["SESSION_COOKIE_NAME"] = "api"
    app.config["MAX_CONTENT_LENGTH"] = 20
    prodserve.init_app(app)

    @app.get("/")
    def index():
        return f"api {version} {url_for('login')} {request.script_root} {request.path} {session.get('user')}"

    @app.post("/login")
    def login():
        session["user"] = request.form["user"]
        return redirect(url_for("index"))

    @app.get("/folder/")
    def folder():
        return "folder"

    return app
"""


class Browser:
    """Keeps cookies, and follows redirects."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.cookies = CookieJar()
        self._opener: OpenerDirector = build_opener(HTTPCookieProcessor(self.cookies))

    def open(self, path: str, **form: str) -> tuple[int, str, str]:
        """The status, the path of the page that it ends at, and the page."""
        data = urlencode(form).encode() if form else None
        request = Request(self._url + path, data, {"Referer": self._url + path})
        try:
            answer = self._opener.open(request, timeout=PATIENCE)
        except HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.url.removeprefix(self._url), answer.read().decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mounts")
    (folder / "shop.py").write_text(SHOP)
    (folder / "api.py").write_text(API)
    for name, text in {"static": "of the shop", "api_static": "of the api"}.items():
        (folder / name).mkdir()
        (folder / name / "file.txt").write_text(text)
    django_project.build(folder)
    return folder


@pytest.fixture(scope="module", params=["0", "2"], ids=["one-process", "workers"])
def served(folder: Path, request: pytest.FixtureRequest) -> Iterator[Command]:
    command = flask("--app", "shop", "serve", "--port", "0", "--workers", request.param)
    with run(command, cwd=folder) as server:
        assert server.url
        yield server
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.output


@pytest.fixture
def browser(served: Command) -> Browser:
    return Browser(served.url)


def test_each_at_its_place(browser: Browser) -> None:
    """Each app builds its URLs below its own place, and sees its own path."""
    assert browser.open("/") == (200, "/", "shop /login None")
    assert browser.open("/api/") == (200, "/api/", "api v2 /api/login /api / None")
    where = "/office/where/"
    assert browser.open(where) == (200, where, f"{where} /where/ {where} {browser._url}{where}")


def test_redirects_stay_in_the_app(browser: Browser, served: Command) -> None:
    """A slash that is missing is added by the app itself, below its own place; /apiary and /officer are the main app's."""
    for path in ("/api", "/api/folder", "/office/where"):  # 308 is not followed by Python 3.10
        assert get(served.address, path).get("location") in (f"{path}/", f"http://test{path}/")
    assert browser.open("/office/staff/")[:2] == (200, "/office/staff/login/?next=/office/staff/")
    for elsewhere in ("/apiary", "/api.txt", "/officer", "/API/", "/%61pi2"):
        assert browser.open(elsewhere)[0] == 404, elsewhere
    assert browser.open("/%61pi/")[2] == browser.open("/api/")[2]


def test_sessions_side_by_side(browser: Browser) -> None:
    """One browser is somebody else in each of the apps at the same time, Django's admin among them, and nobody loses a session."""
    assert browser.open("/login", user="anne")[2] == "shop /login anne"
    assert browser.open("/api/login", user="bob")[1:] == ("/api/", "api v2 /api/login /api / bob")
    login = "/office/staff/login/?next=/office/staff/"
    _, _, page = browser.open(login)
    [token] = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page))
    status, path, page = browser.open(login, csrfmiddlewaretoken=token, username="ada", password="lovelace")
    assert (status, path) == (200, "/office/staff/")
    assert "<strong>ada</strong>" in page
    for _ in range(3):
        assert browser.open("/")[2].endswith("anne")
        assert browser.open("/api/")[2].endswith("bob")
        assert "<strong>ada</strong>" in browser.open("/office/staff/")[2]
    assert {cookie.name for cookie in browser.cookies} == {"session", "api", "sessionid", "csrftoken"}


def test_static_files(browser: Browser) -> None:
    """Each app serves its own static files, below its own place, and its pages refer to them there."""
    assert browser.open("/static/file.txt")[2] == "of the shop"
    assert browser.open("/api/static/file.txt")[2] == "of the api"
    _, _, page = browser.open("/office/staff/login/")
    [style] = re.findall(r'href="([^"]+/base\.css)"', page)
    assert style.startswith("/office/static/")
    status, _, css = browser.open(style)
    assert status == 200
    assert "--primary" in css


def test_limits_of_a_mount(browser: Browser, served: Command) -> None:
    """The main app's ENDPOINT_LIMITS bound a whole mount of any framework by its key, and a mounted Flask app its own place."""
    assert browser.open("/office/upload/", data="x" * 900)[0] == 200
    assert browser.open("/office/upload/", data="x" * 1100)[0] == 413
    with Wire(served.address) as wire:
        wire.send(b"GET /slow/ HTTP/1.1\r\nHost: hasty.test\r\n\r\n")
        assert wire.response().status == 504
    wait_until(lambda: "/slow/" in served.output, "the log of the slow view")
    assert browser.open("/api/login", user="bob")[0] == 200
    assert browser.open("/api/login", user="x" * 30)[0] == 413
    assert browser.open("/login", user="x" * 1100)[0] == 200


def test_errors_stay_in_the_app(browser: Browser) -> None:
    """A view that fails in one app is a 500 of that app, and the others go on."""
    status, _, page = browser.open("/office/fail/")
    assert status == 500
    assert "Server Error (500)" in page
    assert browser.open("/office/where/")[0] == browser.open("/")[0] == 200


def test_the_log_names_them(served: Command) -> None:
    """The line of the start has the mounts, and the hooks of a mounted Flask app have run, once in each process."""
    served.wait_for("mounts=")
    [line] = [line for line in served.output.splitlines() if "mounts=" in line]
    shown = (
        "/api=api:create_app('v2', debug=False),/office=project.wsgi:application,hasty.test=project.wsgi:application"
    )
    assert f'mounts="{shown}"' in line
    assert served.output.count("api has started") == (2 if "processes=2" in line else 1)
