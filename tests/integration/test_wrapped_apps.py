"""WSGI middleware around a Flask app, and WSGI apps of other kinds, as the app that the server is started for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import django_project
import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_prodserve.apps.main_app import MainApp
from serving import flask, run
from wire import get

WRAPPED = '''
from flask import Flask
from flask_prodserve import ProdServe

site = Flask(__name__)
prodserve = ProdServe(site, threads=3)


@prodserve.worker_started
def started(app):
    print(f"{app.name} has started", flush=True)


@site.get("/")
def index():
    return "flask"


class Tracing:
    """As opentelemetry-instrumentation-wsgi has it."""

    def __init__(self, wsgi):
        self.wsgi = wsgi

    def __call__(self, environ, start_response):
        def start(status, headers, *more):
            return start_response(status, [*headers, ("Traced", "yes")], *more)

        return self.wsgi(environ, start)


app = Tracing(site)


def create_traced(flag=True):
    return Tracing(site.wsgi_app)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"plain"]


def two_arguments(one, two, three):
    pass


async def asgi(scope, receive, send):
    pass


number = 5
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["wrapped:app", "wrapped.py:app", "wrapped:create_traced", "wrapped:create_traced(flag=False)"]
)
@pytest.mark.parametrize("options", [("--workers", "0"), ("--workers", "1"), ("--preload",)], ids=" ".join)
def test_middleware_is_served(folder: Path, name: str, options: tuple[str, ...]) -> None:
    """The middleware runs for every request, and the Flask app inside of it has its settings, hooks and limits."""
    with run(flask("--app", name, "serve", "--port", "0", *options), cwd=folder) as command:
        response = get(command.address)
        assert (response.body, response.get("traced")) == (b"flask", "yes")
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    assert "threads=3 threads_from=ProdServe" in command.output
    assert command.output.count("wrapped has started") == 1


def test_config_of_middleware(folder: Path) -> None:
    """`config` tells the settings of the Flask app inside; FLASK_APP names the middleware as --app does."""
    with run(flask("serve", "config"), cwd=folder, env={"FLASK_APP": "wrapped:app"}) as command:
        assert command.exit_code() == 0, command.output
    assert "ProdServe(threads=...)" in command.output


def test_middleware_that_is_passed_by(folder: Path) -> None:
    """Where only the module is named, the Flask app is served as `flask run` does, and one line names the middleware around it."""
    with run(flask("--app", "wrapped", "serve", "--port", "0"), cwd=folder) as command:
        assert get(command.address).get("traced") is None
    assert "To serve it with the middleware, name that: flask --app wrapped:app serve." in command.output


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_plain_wsgi_app(folder: Path, workers: str) -> None:
    """A WSGI app without a Flask app in it is served, and one line says what is missing."""
    with run(flask("--app", "wrapped:plain", "serve", "--port", "0", "--workers", workers), cwd=folder) as command:
        assert get(command.address).body == b"plain"
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    assert command.output.count("'wrapped:plain' is a WSGI app, and no Flask app was found in it.") == 1


def test_a_django_project(tmp_path: Path) -> None:
    """A Django project is found by its module alone, and served with its own pages."""
    django_project.build(tmp_path)
    with run(flask("--app", "project.wsgi", "serve", "--port", "0"), cwd=tmp_path) as command:
        response = get(command.address, "/staff/login/")
        assert response.status == 200
        assert b"Django" in response.body
    assert command.output.count("'project.wsgi' is a WSGI app, and no Flask app was found in it.") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrapped:nothing", "Failed to find attribute 'nothing' in 'wrapped'."),
        ("wrapped:number", "It is of type int, not a WSGI app."),
        ("wrapped:two_arguments", "It is a function, and does not take the two arguments of a WSGI app."),
        ("wrapped:asgi", "It is an ASGI app, and this is a WSGI server."),
        ("wrapped:Tracing", "It is the class Tracing, not an app."),
        ("wrapped:create_traced(1, 2)", "could not be called with the specified arguments."),
        ("wrapped:site.name", "Failed to parse 'site.name' as an attribute name or function call."),
    ],
)
def test_what_is_no_app(folder: Path, name: str, words: str) -> None:
    """What is not there, or no WSGI app, is refused in two lines."""
    with run(flask("--app", name, "serve", "--port", "0"), cwd=folder) as command:
        assert command.exit_code() == 4
    first, second = command.output.splitlines()
    assert words in first
    assert second == "Name the app with 'flask --app MODULE[:NAME] serve' or FLASK_APP."


# The Flask app inside.

Wsgi = Callable[..., Iterable[bytes]]


class Holding:
    """Middleware that keeps the app under *name*."""

    def __init__(self, name: str, app: object) -> None:
        setattr(self, name, app)


class Circle:
    def __init__(self) -> None:
        self.app = Holding("app", self)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise NotImplementedError

    @property
    def wsgi_app(self) -> Any:
        raise RuntimeError("not to be asked")


def callable_holding(name: str, app: object) -> Any:
    return type("Middleware", (Holding,), {"__call__": lambda self, environ, start_response: []})(name, app)


def closure(app: Wsgi) -> Wsgi:
    def middleware(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return app(environ, start_response)

    return middleware


WRAPPERS: dict[str, Callable[[Flask], Any]] = {
    **{
        name: (lambda app, name=name: callable_holding(name, app))
        for name in ("app", "wsgi_app", "application", "wsgi")
    },
    "method": lambda app: callable_holding("app", app.wsgi_app),
    "closure": closure,
    "closure of a method": lambda app: closure(app.wsgi_app),
    "ProxyFix": ProxyFix,
    "dispatcher": lambda app: DispatcherMiddleware(app, {"/other": Flask("other")}),
    "several": lambda app: ProxyFix(DispatcherMiddleware(closure(callable_holding("application", app)), {})),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_the_flask_app_is_found(wrap: Callable[[Flask], Any]) -> None:
    """The Flask app is found inside of every usual kind of middleware, and the outermost one is what is called."""
    app = Flask("inside")
    wrapped = wrap(app)
    main = MainApp.of(wrapped)
    assert main.flask is app
    assert main.wsgi is wrapped
    assert not main.remarks


def test_circles_and_endless_layers() -> None:
    """Middleware that refers to itself, or to ever more, hides no Flask app and costs nothing."""

    class Endless:
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            raise NotImplementedError

        @property
        def app(self) -> Endless:
            return Endless()

    for wrapped in (Circle(), Endless()):
        assert MainApp.of(wrapped).remarks


def test_serve_takes_middleware(tmp_path: Path) -> None:
    """`serve()` in a script serves middleware, with the settings of the Flask app inside."""
    script = WRAPPED + "from flask_prodserve import serve\nserve(app, port=0)\n"
    (tmp_path / "script.py").write_text(script)
    with run([sys.executable, "script.py"], cwd=tmp_path) as command:
        assert get(command.address).get("traced") == "yes"
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
    assert "threads=3 " in command.output
