"""What the server does for apps that are mounted, and below a prefix: limits, health, proxies, hosts, names for requests."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.request import HTTPCookieProcessor

import pytest
from flask import Flask, redirect, request, session, url_for

import internals
from flask_prodserve import ProdServe
from flask_prodserve.apps.hooks import AppsHooks
from flask_prodserve.apps.main_app import MainApp, served_apps
from flask_prodserve.apps.routing import router_for
from flask_prodserve.errors import AppLoadError
from flask_prodserve.extension import resolve_for
from flask_prodserve.protocol.request_head import RequestHead
from flask_prodserve.service import engine_for
from flask_prodserve.settings import SettingsError, arguments
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get, opener

pytestmark = pytest.mark.usefixtures("way")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def make_app(name: str) -> Flask:
    app = Flask(name)

    @app.get("/")
    def index() -> str:
        return f"{name} {url_for('index', _external=True)}"

    @app.get("/old/<int:number>")
    def old(number: int) -> Any:
        return redirect(url_for("index"))

    @app.post("/upload")
    def upload() -> str:
        return str(len(request.get_data()))

    return app


@pytest.fixture
def app() -> Flask:
    return make_app("main")


class Gate:
    """A WSGI app whose requests stay inside until they are let go."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.open = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.open.wait(PATIENCE)
        with self._lock:
            self.inside -= 1
        start_response("200 OK", [])
        return [b"through"]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def head(path: str, host: str = "test") -> RequestHead:
    return RequestHead("GET", path, "1.1", path, "", host, {"HTTP_HOST": host}, None, False, True, False)


def upload(served: Served, path: str, size: int, *fields: str) -> int:
    return get(served.address, path, *fields, method="POST", body=b"x" * size).status


@pytest.mark.every_way
def test_whole_mount(app: Flask, gate: Gate) -> None:
    """ENDPOINT_LIMITS bound all of a mount by its key: how many of its requests run at the same time, and how large they may be."""
    limits = {"/gate": {"max_concurrency": 2, "max_body": 10}}
    with in_thread(app, threads=6, mounts={"/gate": gate}, endpoint_limits=limits) as served:
        wires = [Wire(served.address) for _ in range(4)]
        for number, wire in enumerate(wires):
            wire.send(f"GET /gate/{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_until(lambda: gate.inside == 2, "two requests inside")
        served.settle()
        assert get(served.address, "/").status == 200  # the others wait for their own kind only
        assert upload(served, "/gate", 11) == 413
        assert upload(served, "/upload", 11) == 200
        gate.open.set()
        assert {wire.response().body for wire in wires} == {b"through"}
        for wire in wires:
            wire.socket.close()
    assert gate.most == 2


@pytest.mark.every_way
def test_queue_timeout_of_a_mount(app: Flask, gate: Gate) -> None:
    """Who waits for a share of the mount gets 503 after the queue_timeout of the mount, whatever that of others is."""
    limits = {"/gate": {"max_concurrency": 1, "queue_timeout": 5}}
    settings = {"endpoint_limits": limits, "request_timeout": 0, "queue_timeout": 60}
    clock = ManualClock()
    with in_thread(app, clock=clock, mounts={"/gate": gate}, **settings) as served, contextlib.ExitStack() as stack:
        inside, waiting = (stack.enter_context(Wire(served.address)) for _ in range(2))
        for wire in (inside, waiting):
            wire.send(b"GET /gate HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until(lambda: gate.inside, "one request inside")
        served.wait_for_queue(1)
        clock.advance(4)
        served.look()
        assert internals.queued(served.engine) == 1
        clock.advance(2)
        served.look()
        assert waiting.response().status == 503
        gate.open.set()
        assert inside.response().body == b"through"
    assert gate.most == 1


def test_whole_mount_of_a_flask_app(app: Flask) -> None:
    """What is said of a mount as a whole is stronger than what the app in it says in its config, and that than its code."""
    other = make_app("other")
    other.config["PRODSERVE_ENDPOINT_LIMITS"] = {"upload": {"max_body": 20}, "index": {"max_body": 1}}
    ProdServe.limits(max_body=5, timeout=9)(other.view_functions["upload"])
    with in_thread(app, mounts={"/a": other}) as served:
        assert [upload(served, "/a/upload", size) for size in (20, 21)] == [200, 413]
        assert upload(served, "/upload", 21) == 200
    with in_thread(app, mounts={"/a": other, "/b": make_app("b")}, endpoint_limits={"/a": {"max_body": 30}}) as served:
        assert [upload(served, "/a/upload", size) for size in (30, 31)] == [200, 413]
        assert upload(served, "/b/upload", 31) == 200


def test_an_endpoint_that_must_be_alone(app: Flask, gate: Gate) -> None:
    """A view with a max_concurrency of its own keeps it in a mount that has a larger one for all."""
    other = Flask("other")

    @other.get("/alone")
    @ProdServe.limits(max_concurrency=1)
    def alone() -> str:
        gate({}, lambda status, fields: None)
        return "alone"

    limits = {"/a": {"max_concurrency": 3}}
    with in_thread(app, threads=6, mounts={"/a": other}, endpoint_limits=limits) as served:
        wires = [Wire(served.address) for _ in range(3)]
        for wire in wires:
            wire.send(b"GET /a/alone HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: gate.inside, "one request inside")
        served.settle()
        gate.open.set()
        assert {wire.response().body for wire in wires} == {b"alone"}
        for wire in wires:
            wire.socket.close()
    assert gate.most == 1


@pytest.mark.parametrize(
    ("of_main", "of_other", "given", "allowed"),
    [
        (None, 20, {}, 20),
        (10, None, {}, 10),
        (10, 20, {}, 20),
        (20, 10, {}, 10),
        (10, 20, {"endpoint_limits": {"/a": {"max_body": 15}}}, 15),
        (10, 20, {"max_body_size": 15}, 10),
    ],
)
def test_body_sizes(app: Flask, of_main: int | None, of_other: int | None, given: dict[str, Any], allowed: int) -> None:
    """MAX_CONTENT_LENGTH of a mounted Flask app holds in it, else the main app's, but for what is said of the mount; the server's
    MAX_BODY_SIZE is not outdone by an app.
    """
    other = make_app("other")
    app.config["MAX_CONTENT_LENGTH"] = of_main
    other.config["MAX_CONTENT_LENGTH"] = of_other
    allowed = 15 if "max_body_size" in given else allowed
    with in_thread(app, mounts={"/a": other}, **given) as served:
        assert upload(served, "/a/upload", allowed + 1) == 413
        if of_other is None or allowed <= of_other:  # Flask has its say, too
            assert upload(served, "/a/upload", allowed) == 200


def test_names_of_requests(app: Flask, gate: Gate) -> None:
    """A request is called by its method, its mount and the rule in it; of what has no rules, by its path."""
    mounts = {"/a": make_app("a"), "b.test": make_app("b"), "/gate": gate}
    given = arguments({"mounts": mounts, "url_prefix": "/shop"}, "test")
    settings = resolve_for(app, [given]).settings
    route = router_for(app, settings.wsgi, settings.limits, settings.proxy).route
    assert route(head("/shop/old/1")).kind == "GET /old/<int:number>"
    assert route(head("/shop/a/old/1")).kind == "GET /a/old/<int:number>"
    assert route(head("/shop/old/1", "B.test:80")).kind == "GET b.test/old/<int:number>"
    assert route(head("/shop/gate/1")).kind == "GET /shop/gate/1"
    assert route(head("/old/1")).kind == "GET /old/1"


def test_by_host(app: Flask, scheme: str) -> None:
    """A host may have an app of its own, with URLs of its own, and one of its paths another."""
    mounts = {"Admin.test": make_app("admin"), "admin.test/x": make_app("x"), "/x": make_app("everywhere")}
    with in_thread(app, mounts=mounts) as served:

        def body(target: str, host: str) -> bytes:
            with Wire(served.address) as wire:
                wire.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                return wire.response().body

        assert body("/", "admin.test:8000") == f"admin {scheme}://admin.test:8000/".encode()
        assert body("/x/", "ADMIN.test").lower() == f"x {scheme}://admin.test/x/".encode()
        assert body("/x/", "test") == f"everywhere {scheme}://test/x/".encode()
        assert body("/", "test") == f"main {scheme}://test/".encode()
        assert body(f"{scheme}://admin.test/", "admin.test") == f"admin {scheme}://admin.test/".encode()


def test_a_host_that_the_proxy_says(app: Flask, scheme: str) -> None:
    """X-Forwarded-Host chooses the app where the proxy is trusted, and nobody else's does."""
    mounts = {"admin.test": make_app("admin")}
    said = "X-Forwarded-Host: admin.test"
    with in_thread(app, mounts=mounts) as served:
        assert get(served.address, "/", said).body == f"main {scheme}://test/".encode()
    with in_thread(app, mounts=mounts, trusted_proxies="127.0.0.1") as served:
        assert get(served.address, "/", said).body == f"admin {scheme}://admin.test/".encode()


def test_prefixes_in_their_order(app: Flask, scheme: str) -> None:
    """What a trusted proxy has removed comes first, then URL_PREFIX, then the mount."""
    settings = {"mounts": {"/a": make_app("a")}, "url_prefix": "/shop", "trusted_proxies": "127.0.0.1"}
    with in_thread(app, **settings) as served:
        outer = "X-Forwarded-Prefix: /outer"
        assert get(served.address, "/shop/", outer).body == f"main {scheme}://test/outer/shop/".encode()
        assert get(served.address, "/shop/a/", outer).body == f"a {scheme}://test/outer/shop/a/".encode()
        assert get(served.address, "/shop/a/old/1", outer).get("location") == "/outer/shop/a/"
        assert get(served.address, "/a/", outer).status == 404
        assert get(served.address, "/outer/shop/a/", outer).status == 404
    with in_thread(app, **{**settings, "trusted_proxies": None}) as served:
        assert get(served.address, "/shop/a/", outer).body == f"a {scheme}://test/shop/a/".encode()


def test_limits_below_a_prefix(app: Flask) -> None:
    """Limits know the app's own rules below URL_PREFIX, and what is outside is nobody's."""
    limits = {"upload": {"max_body": 10}, "/a": {"max_body": 20}}
    with in_thread(app, mounts={"/a": make_app("a")}, url_prefix="/shop", endpoint_limits=limits) as served:
        assert [upload(served, "/shop/upload", size) for size in (10, 11)] == [200, 413]
        assert [upload(served, "/shop/a/upload", size) for size in (20, 21)] == [200, 413]
        assert [upload(served, "/%73hop/%61//upload", size) for size in (20, 21)] == [200, 413]
        assert upload(served, "/upload", 11) == 404


def test_health(app: Flask) -> None:
    """Health paths are the server's at the root, with and without a prefix, on every host; below a mount they are that app's."""
    own = Flask("own")
    own.add_url_rule("/livez", view_func=lambda: "own")
    app.add_url_rule("/readyz", view_func=lambda: "main")
    mounts = {"/a": own, "a.test": own}
    with in_thread(app, mounts=mounts) as served:
        assert b"alive" in get(served.address, "/livez").body
        assert get(served.address, "/readyz").body == b"main"
        assert get(served.address, "/a/livez").body == b"own"
        with Wire(served.address) as wire:
            wire.send(b"GET /livez HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert b"alive" in wire.response().body
    with in_thread(app, mounts=mounts, url_prefix="/shop") as served:
        assert b"alive" in get(served.address, "/livez").body
        assert b"ready" in get(served.address, "/readyz").body
        assert get(served.address, "/shop/readyz").body == b"main"
        assert get(served.address, "/shop/livez").status == 404
    with in_thread(app, mounts=mounts, liveness_path="/a/livez") as served:
        assert b"alive" in get(served.address, "/a/livez").body


def test_mounted_by_code(app: Flask, gate: Gate, scheme: str) -> None:
    """mount() before and after init_app adds to MOUNTS, which counts where both say the same place."""
    prodserve = ProdServe()
    prodserve.mount("/a", make_app("a"))
    prodserve.init_app(app)
    prodserve.mount("/b", make_app("b"))
    prodserve.mount("/m", "test_mounts_in_force:make_app('imported')")
    app.config["PRODSERVE_MOUNTS"] = {"/c": make_app("c"), "/b": make_app("configured")}
    with in_thread(app) as served:
        for place, name in {"/a": "a", "/b": "configured", "/c": "c", "/m": "imported", "": "main"}.items():
            assert get(served.address, f"{place}/").body == f"{name} {scheme}://test{place}/".encode()
    gate.open.set()
    with in_thread(app, mounts={"/d": gate}) as served:
        assert get(served.address, "/d").body == b"through"
        assert get(served.address, "/b/").body == f"b {scheme}://test/b/".encode()
        assert get(served.address, "/c/").status == 404


def test_what_mount_refuses(app: Flask) -> None:
    """mount() refuses a place that is none or taken, and an app that is none, in that line; a health path when the server starts."""
    prodserve = ProdServe(app)
    prodserve.mount("/a", "x:y")
    for place, target in [("a", "x:y"), ("/a/", "x:y"), ("/", "x:y"), ("/a", "z"), ("/b", None)]:
        with pytest.raises(ValueError, match=r"^mount\(\) takes "):
            prodserve.mount(place, target)  # type: ignore[arg-type]  # the last is no app
    other = ProdServe()
    other.mount("/livez", make_app("a"))
    other.init_app(app)
    with pytest.raises(SettingsError, match=r"MOUNTS \(ProdServe.mount\(\)\) has /livez, but /livez is LIVENESS_PATH"):
        resolve_for(app, [])


def make_session_app(name: str, **config: str) -> Flask:
    app = Flask(name)
    app.config.update(SECRET_KEY=name, **config)

    @app.get("/<user>")
    def enter(user: str) -> Any:
        session["user"] = user
        return redirect(url_for("index"))

    @app.get("/")
    def index() -> str:
        return str(session.get("user"))

    return app


@pytest.mark.parametrize(
    ("config", "first", "warned"),
    [
        ({}, "None", True),
        ({"SESSION_COOKIE_NAME": "other"}, "anne", False),
        ({"SESSION_COOKIE_PATH": "/a"}, "anne", False),
        ({"APPLICATION_ROOT": "/a"}, "anne", False),
        ({"SECRET_KEY": "main"}, "bob", False),
    ],
)
def test_session_cookies(config: dict[str, str], first: str, warned: bool, scheme: str) -> None:
    """Two Flask apps with one cookie end each other's sessions, of which the server warns; with another name or path each keeps its
    own, and with one key they share it.
    """
    main, other = make_session_app("main"), make_session_app("other")
    other.config.update(config)
    resolved = resolve_for(main, [arguments({"mounts": {"/a": other}}, "test")])
    said = [problem for problem in resolved.warnings if "each destroys the other's sessions" in problem.what]
    assert bool(said) == warned
    with in_thread(main, mounts={"/a": other}) as served:
        browser = opener(HTTPCookieProcessor(CookieJar()))

        def page(path: str) -> str:
            assert not isinstance(served.address, str)
            with browser.open(f"{scheme}://127.0.0.1:{served.address[1]}{path}", timeout=PATIENCE) as answer:
                text: str = answer.read().decode()
                return text

        assert page("/anne") == "anne"
        assert page("/a/bob") == "bob"
        assert page("/") == first
        assert page("/a/") == "bob"


def test_settings_of_a_mounted_app(app: Flask) -> None:
    """Of settings in a mounted app's config that do not count it is said that they do not, unless they are the environment's anyway."""
    other = make_app("other")
    other.config.update(PRODSERVE_THREADS=3, PRODSERVE_ENDPOINT_LIMITS={}, PRODSERVE_REPLACE_RUN=False)
    ProdServe(other, port=5)
    mounted = {"mounts": {"/a": other}}
    resolved = resolve_for(app, [arguments(mounted, "test")])
    said = [problem.what for problem in resolved.warnings]
    assert len(said) == 2
    assert 'app.config["PRODSERVE_THREADS"] of the app at /a has no effect' in "\n".join(said)
    assert "ProdServe(port=...) of the app at /a has no effect" in "\n".join(said)
    assert resolved.settings.workers.threads == 16
    assert resolve_for(app, [arguments({**mounted, "threads": 3, "port": 1}, "test")]).warnings == ()


def test_the_environment_repeated(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits from the environment are the main app's, also where a mounted app has taken the environment into its config."""
    monkeypatch.setenv("FLASK_PRODSERVE_ENDPOINT_LIMITS", '{"only_main": {"max_body": 1}}')
    app.add_url_rule("/only", "only_main", methods=["POST"], view_func=lambda: "")
    other, free = make_app("other"), make_app("free")
    other.config.from_prefixed_env()
    free.config["PRODSERVE_ENDPOINT_LIMITS"] = {"upload": {"max_body": 2}}
    with in_thread(app, mounts={"/a": other, "/b": free}) as served:
        assert upload(served, "/only", 2) == 413
        assert upload(served, "/a/upload", 3) == 200
        assert upload(served, "/b/upload", 3) == 413


def test_hooks(app: Flask) -> None:
    """The hooks of mounted Flask apps run with their own app, after the main one's, and stop before it; with two places, once."""
    told: list[str] = []
    prodserve = ProdServe(app)
    prodserve.worker_started(lambda app: told.append(f"started {app.name}"))
    prodserve.worker_stopping(lambda app: told.append(f"stopping {app.name}"))
    prodserve.before_fork(lambda app: told.append(f"forking {app.name}"))
    other, plain = make_app("other"), make_app("plain")
    prodserve.init_app(other)
    once = threading.Event()
    ProdServe(plain).once(lambda app: once.set())
    mounts = {"/a": other, "/b": other, "/c": plain, "/d": app}
    apps = served_apps(app, resolve_for(app, [arguments({"mounts": mounts}, "test")]).settings.wsgi.mounts)
    assert apps == [app, other, plain]
    hooks = AppsHooks(apps)
    hooks.run_before_fork()
    hooks.run_worker_started()
    hooks.run_worker_stopping()
    assert told == [
        *("forking main", "forking other", "started main", "started other", "stopping other", "stopping main"),
    ]
    assert hooks.has_once
    hooks.start_once()
    assert once.wait(PATIENCE)
    assert not AppsHooks([app]).has_once


def test_functions(app: Flask) -> None:
    """A function that cannot be called as a WSGI app is refused, and one that only looks like it, for its decorator, is not."""

    def inner(version: str) -> Any:
        return None

    @functools.wraps(inner)
    def wrapped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"wrapped"]

    for function in (inner, lambda: make_app("made")):
        with pytest.raises(
            AppLoadError, match=r"The app at /a, .*, could not be loaded: It is a function, and does not"
        ):
            resolve_for(app, [arguments({"mounts": {"/a": function}}, "test")])
    with in_thread(app, mounts={"/a": wrapped}) as served:
        assert get(served.address, "/a").body == b"wrapped"


def test_unknown_endpoints(app: Flask) -> None:
    """A mount that is misspelled in ENDPOINT_LIMITS is refused, with the one that was meant."""
    given = {"mounts": {"/office": make_app("a")}, "endpoint_limits": {"/ofice": {"timeout": 1}}}
    with pytest.raises(SettingsError, match="Did you mean '/office'"):
        engine_for(MainApp.of(app), resolve_for(app, [arguments(given, "test")]).settings, [])
