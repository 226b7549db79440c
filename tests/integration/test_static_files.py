"""Static files that are served without the app: which ones, with which fields, and what is left to the app."""

from __future__ import annotations

import functools
import gzip
import logging
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Blueprint, Flask, Request, send_file

from flask_prodserve.apps.static_choice import static_files
from flask_prodserve.errors import MissingExtraError
from flask_prodserve.settings import arguments, resolve
from flask_prodserve.wsgi.static_file import FileAnswer, StaticFile
from serving import PATIENCE, ManualClock, in_thread, wait_until
from wire import Response, Wire, get

pytestmark = pytest.mark.usefixtures("way")

OLD = 1_600_000_000
"""When the files of the tests were changed last, in seconds since the epoch."""
SIZE = 300_000
"""More than is kept in memory of a file."""


def write(path: Path, content: bytes | str, modified: int = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (modified, modified))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "static/style.css", "body {}")
    write(tmp_path / "static/large.bin", random.Random(1).randbytes(SIZE))
    return tmp_path


def make_app(folder: Path) -> Flask:
    return Flask("statics", root_path=str(folder))


def by_app(response: Response) -> bool:
    """Flask's own view names the file in this field; nobody else does."""
    return response.get("content-disposition") is not None


@pytest.mark.every_way
@pytest.mark.parametrize(("name", "size"), [("style.css", 7), ("large.bin", SIZE)])
def test_same_as_flask(folder: Path, name: str, size: int) -> None:
    """A small and a large file have the same content, type, length and time as from Flask, and answer HEAD with the same fields."""
    with in_thread(make_app(folder)) as served, in_thread(make_app(folder), static="off") as plain:
        ours, flasks = get(served.address, f"/static/{name}"), get(plain.address, f"/static/{name}")
        head = get(served.address, f"/static/{name}", method="HEAD")
    assert (by_app(ours), by_app(flasks)) == (False, True)
    assert ours.body == flasks.body == (folder / "static" / name).read_bytes()
    for field in ("content-type", "content-length", "last-modified", "accept-ranges"):
        assert ours.get(field) == flasks.get(field) == head.get(field), field
    assert head.get("etag") == ours.get("etag")
    assert (head.status, head.body, ours.get("content-length")) == (200, b"", str(size))


def test_types_of_the_app(folder: Path) -> None:
    """A type is Python's, to which an app may add, else WhiteNoise's; a file that is compressed by itself says so, as Flask has it."""
    write(folder / "static/x.tar.gz", "x")
    write(folder / "static/apple-app-site-association", "x")
    with in_thread(make_app(folder)) as served, in_thread(make_app(folder), static="off") as plain:
        ours, flasks = get(served.address, "/static/x.tar.gz"), get(plain.address, "/static/x.tar.gz")
        other = get(served.address, "/static/apple-app-site-association")
    assert not by_app(ours)
    assert ours.get("content-type") == flasks.get("content-type")
    assert ours.get("content-encoding") == flasks.get("content-encoding") == "gzip"
    assert other.get("content-type") == "application/pkc7-mime"


def test_blueprints(folder: Path) -> None:
    """The folders of blueprints are served at their URLs: with a prefix, nested, registered twice, with a URL path of their own."""
    outer = Blueprint("outer", "outer", root_path=str(folder), url_prefix="/outer", static_folder="of_outer")
    inner = Blueprint(
        "inner", "inner", root_path=str(folder), url_prefix="/in", static_folder="of_inner", static_url_path="/ünder"
    )
    hidden = Blueprint("hidden", "hidden", root_path=str(folder), static_folder="of_hidden", static_url_path="/static")
    write(folder / "of_outer/a.txt", "outer")
    write(folder / "of_inner/sub/ä b.txt", "inner")
    write(folder / "of_hidden/b.txt", "hidden")
    outer.register_blueprint(inner)
    app = make_app(folder)
    for blueprint, options in ((outer, {}), (outer, {"url_prefix": "/again", "name": "again"}), (hidden, {})):
        app.register_blueprint(blueprint, **options)  # type: ignore[arg-type]  # a dict of any options
    with in_thread(app) as served:
        for target, body in [
            ("/outer/of_outer/a.txt", b"outer"),
            ("/outer/in/%C3%BCnder/sub/%c3%a4%20b.txt", b"inner"),
            ("/again/of_outer/a.txt", b"outer"),
        ]:
            response = get(served.address, target)
            assert (response.status, response.body, by_app(response)) == (200, body, False), target
        assert get(served.address, "/static/b.txt").status == 404  # the app's own rule comes first


def test_file_of_another_size_with_the_same_time(folder: Path) -> None:
    """A file that was replaced by one of another size is not served as it was, although a deployment sets all times alike."""
    with in_thread(make_app(folder)) as served:
        for name in ("style.css", "large.bin"):
            assert not by_app(get(served.address, f"/static/{name}"))
            write(folder / "static" / name, "body {color: red}")
            response = get(served.address, f"/static/{name}")
            assert (response.status, response.body, by_app(response)) == (200, b"body {color: red}", True)


def test_left_to_the_app(folder: Path) -> None:
    """Later and changed files, deleted ones, dotfiles, other methods, and paths that another rule answers are the app's."""
    write(folder / "static/made.js", "static")
    write(folder / "static/gone.css", "gone")
    write(folder / "static/.hidden", "hidden")
    app = make_app(folder)
    app.add_url_rule("/static/made.js", "made", lambda: "made by a view")
    with in_thread(app) as served:
        assert get(served.address, "/static/made.js").body == b"made by a view"
        assert by_app(get(served.address, "/static/.hidden"))
        assert get(served.address, "/static/style.css", method="POST").status == 405
        assert get(served.address, "/static/style.css").body == b"body {}"
        write(folder / "static/later.css", "later")
        write(folder / "static/style.css", "changed {}", OLD - 5)
        write(folder / "static/large.bin", "short", OLD - 5)
        (folder / "static/gone.css").unlink()
        for name, body in [("later.css", b"later"), ("style.css", b"changed {}"), ("large.bin", b"short")]:
            response = get(served.address, f"/static/{name}", 'If-None-Match: "x"')
            assert (response.status, response.body, by_app(response)) == (200, body, True), name
        assert get(served.address, "/static/gone.css").status == 404
        assert get(served.address, "/static/gone.css", method="HEAD").status == 404


def test_conditional_requests(folder: Path) -> None:
    """304 for a tag or time that is current, as Flask has it; with the fields that renew what a cache has."""
    with in_thread(make_app(folder)) as served:
        first = get(served.address, "/static/style.css")
        tag, time = first.get("etag"), first.get("last-modified")
        for fields, status in [
            ([f"If-None-Match: {tag}"], 304),
            ([f'If-None-Match: "other", W/{tag}'], 304),
            (["If-None-Match: *"], 304),
            (['If-None-Match: "other"', f"If-Modified-Since: {time}"], 200),
            ([f"If-Modified-Since: {time}"], 304),
            (["If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT"], 200),
            (["If-Modified-Since: nonsense"], 200),
            ([f"If-Match: {tag}"], 200),
            ([f'If-Match: "other", {tag}'], 200),
            (["If-Match: *"], 200),
            (['If-Match: "other"'], 412),
            ([f"If-Match: W/{tag}"], 412),
            ([f"If-Match: {tag}", f"If-None-Match: {tag}"], 304),
            (['If-Match: "other"', f"If-None-Match: {tag}"], 412),
            ([f"If-Match: {tag}", "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT"], 200),
            (["If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT"], 412),
            ([f"If-Unmodified-Since: {time}"], 200),
            ([f"If-Unmodified-Since: {time}", f"If-Modified-Since: {time}"], 304),
            (["If-Unmodified-Since: nonsense"], 200),
            ([f"If-None-Match: {tag}", "Range: bytes=0-1"], 304),
            ([f"If-None-Match: {tag}", "Range: bytes=1000-"], 304),
            (['If-Match: "other"', "Range: bytes=0-1"], 412),
            ([f"If-Unmodified-Since: {time}", "Range: bytes=0-1"], 206),
        ]:
            for method in ("GET", "HEAD"):
                response = get(served.address, "/static/style.css", *fields, method=method)
                expected = 200 if method == "HEAD" and status == 206 else status
                assert response.status == expected, (method, fields)
                assert (response.get("etag"), response.get("cache-control")) == (tag, "max-age=60, public")
                assert not by_app(response)


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", f"Mon, 01 Jan 2030 00:00:00 +{9**30}"]
)
def test_dates_that_are_none(folder: Path, date: str) -> None:
    """A date with a year or zone of many digits is as if it were not there, and that in If-Range is not the file's."""
    with in_thread(make_app(folder)) as served:
        for fields in (
            [f"If-Modified-Since: {date}"],
            [f"If-Unmodified-Since: {date}"],
            ["Range: bytes=0-1", f"If-Range: {date}"],
        ):
            response = get(served.address, "/static/style.css", *fields)
            assert (response.status, response.body) == (200, b"body {}"), fields


@pytest.mark.every_way
@pytest.mark.parametrize("name", ["style.css", "large.bin"])
def test_ranges(folder: Path, name: str) -> None:
    """One range is sent, at the beginning, in the middle, at the end, of one byte; what is not a range of this file is all or 416."""
    content = (folder / "static" / name).read_bytes()
    size = len(content)
    with in_thread(make_app(folder)) as served:
        target = f"/static/{name}"
        whole = get(served.address, target)
        for said, part in [
            ("0-0", slice(0, 1)),
            ("2-4", slice(2, 5)),
            (f"{size - 1}-", slice(size - 1, size)),
            ("-3", slice(size - 3, size)),
            (f"1-{size + 1000}", slice(1, size)),
            (f"-{10 * size}", slice(0, size)),
        ]:
            response = get(served.address, target, f"Range: bytes={said}")
            assert (response.status, response.body) == (206, content[part]), said
            start, stop, _ = part.indices(size)
            assert response.get("content-range") == f"bytes {start}-{stop - 1}/{size}"
        for said in (f"{size}-", f"{size + 5}-{size + 6}"):
            response = get(served.address, target, f"Range: bytes={said}")
            assert (response.status, response.get("content-range")) == (416, f"bytes */{size}")
        for said in ("bytes=0-1,3-4", "bytes=4-2", "pages=1-2", "bytes=x", "bytes=" + "9" * 5000 + "-"):
            assert get(served.address, target, f"Range: {said}").body == content, said[:20]
        assert get(served.address, target, "Range: bytes=0-1", method="HEAD").status == 200
        tag, time = whole.get("etag"), whole.get("last-modified")
        for said, status in (
            (tag, 206),
            (time, 206),
            ('"other"', 200),
            (f"W/{tag}", 200),
            ("Fri, 01 Jan 2038 00:00:00 GMT", 200),
            ("Sat, 01 Jan 2000 00:00:00 GMT", 200),
            ("", 200),
        ):
            assert get(served.address, target, "Range: bytes=0-1", f"If-Range: {said}").status == status, said


def test_variants(folder: Path) -> None:
    """Of the variants beside a file the client gets the one it likes best, the smallest of equals, each with a tag of its own."""
    write(folder / "static/app.js", "x" * 1000)
    for suffix, size in ((".gz", 50), (".zst", 40), (".br", 30)):
        write(folder / f"static/app.js{suffix}", suffix * (size // len(suffix)))
    tags = set()
    with in_thread(make_app(folder)) as served:
        for accepted, coding in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, deflate", "gzip"),
            ("GZIP", "gzip"),
            ("zstd", "zstd"),
            ("br;q=0, gzip", "gzip"),
            ("br;q=0.1, gzip;q=0.5", "gzip"),
            ("identity, br;q=0.5", None),
            ("identity;q=0.5, br;q=0.5", "br"),
            ("*", None),
            ("", None),
            ("brr, xgzip", None),
        ]:
            response = get(served.address, "/static/app.js", f"Accept-Encoding: {accepted}")
            assert response.get("content-encoding") == coding, accepted
            assert response.get("vary") == "Accept-Encoding"
            assert response.get("content-type") == "text/javascript; charset=utf-8"
            tag = response.get("etag")
            tags.add(tag)
            fields = (f"Accept-Encoding: {accepted}", f"If-None-Match: {tag}")
            assert get(served.address, "/static/app.js", *fields).status == 304
        assert len(tags) == 4
        assert get(served.address, "/static/style.css").get("vary") is None
        assert by_app(get(served.address, "/static/app.js.gz"))
        part = get(served.address, "/static/app.js", "Accept-Encoding: gzip", "Range: bytes=1-2")
        assert (part.status, part.body, part.get("content-encoding")) == (206, b"gz", "gzip")


def test_stale_variants(folder: Path) -> None:
    """A variant that is older than its file is not sent, whether it was so at the start or the file has changed since."""
    write(folder / "static/a.js", "new a")
    write(folder / "static/a.js.gz", "old a", OLD - 1)
    write(folder / "static/b.js", "old b" * 1000)
    write(folder / "static/b.js.gz", gzip.compress(b"old b" * 1000))
    accepted = "Accept-Encoding: gzip"
    with in_thread(make_app(folder)) as served:
        assert get(served.address, "/static/a.js", accepted).body == b"new a"
        assert get(served.address, "/static/b.js", accepted).get("content-encoding") == "gzip"
        write(folder / "static/b.js", "new b", OLD + 5)
        for _ in range(2):
            response = get(served.address, "/static/b.js", accepted)
            assert (response.body, response.get("content-encoding")) == (b"new b", None)


@pytest.mark.parametrize(
    ("name", "immutable"),
    [
        ("app.3f2a9c81.js", True),
        ("app-0123456789abcdef0123.chunk.css", True),
        ("3f2a9c81.js.map", True),
        ("logo_3f2a9c81.min.svg", True),
        ("app.js", False),
        ("report.20240115.pdf", False),
        ("jquery-3.6.0.min.js", False),
        ("deadbeef.js", False),
        ("3f2a9c8.js", False),
        ("3F2A9C81.js", False),
        ("3f2a9c81", False),
        ("book-Chapter1.html", False),
    ],
)
def test_hashed_names(folder: Path, name: str, immutable: bool) -> None:
    """Files with a hash in their name may be kept for ever, and no others."""
    write(folder / "static" / name, "x")
    with in_thread(make_app(folder)) as served:
        said = get(served.address, f"/static/{name}").get("cache-control")
    assert said == ("max-age=315360000, public, immutable" if immutable else "max-age=60, public")


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        ({}, {}, "max-age=60, public"),
        ({"SEND_FILE_MAX_AGE_DEFAULT": 7}, {}, "max-age=7, public"),
        ({"SEND_FILE_MAX_AGE_DEFAULT": 0}, {}, "no-cache"),
        ({"SEND_FILE_MAX_AGE_DEFAULT": 7}, {"static_max_age": "1h"}, "max-age=3600, public"),
    ],
)
def test_max_age(folder: Path, config: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    """STATIC_MAX_AGE says how long a file may be kept; where it is not set, the app's own key does."""
    app = make_app(folder)
    app.config.update(config)
    with in_thread(app, **settings) as served:
        assert get(served.address, "/static/style.css").get("cache-control") == said


@pytest.mark.parametrize(
    ("of_main", "of_other", "given", "said"),
    [
        (7, 3, {}, "max-age=3, public"),
        (7, 0, {}, "no-cache"),
        (7, None, {}, "max-age=7, public"),
        (None, 3, {}, "max-age=3, public"),
        (7, 3, {"static_max_age": "1h"}, "max-age=3600, public"),
    ],
)
def test_max_age_in_a_mount(
    folder: Path, of_main: int | None, of_other: int | None, given: dict[str, Any], said: str
) -> None:
    """A mounted app's own key holds of its own files, or else the main app's; what the server was started with is stronger than both."""
    main, other = make_app(folder), make_app(folder)
    main.config["SEND_FILE_MAX_AGE_DEFAULT"] = of_main
    other.config["SEND_FILE_MAX_AGE_DEFAULT"] = of_other
    with in_thread(main, mounts={"/other": other}, **given) as served:
        assert get(served.address, "/other/static/style.css").get("cache-control") == said
        assert get(served.address, "/static/style.css").get("cache-control") == (
            "max-age=3600, public" if given else f"max-age={of_main or 60}, public"
        )


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(view)
    def guarded(**arguments: Any) -> Any:
        return "denied", 401

    return guarded


def _before_request(app: Flask | Blueprint) -> None:
    app.before_request(lambda: ("denied", 401))


def _after_request(app: Flask) -> None:
    app.after_request(lambda response: response)


def _url_value_preprocessor(app: Flask | Blueprint) -> None:
    app.url_value_preprocessor(lambda endpoint, values: flask.abort(401))


def _middleware(app: Flask) -> None:
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner(environ, start)  # type: ignore[method-assign]  # as Flask's docs do it


def _trusted_hosts(app: Flask) -> None:
    app.config["TRUSTED_HOSTS"] = ["test"]


def _trusted_hosts_of_requests(app: Flask) -> None:
    app.request_class = type("OwnRequest", (Request,), {"__module__": "flask.own", "trusted_hosts": ["test"]})


def _request_class(app: Flask) -> None:
    app.request_class = type("OwnRequest", (Request,), {"__module__": "own"})


def _response_class(app: Flask) -> None:
    app.response_class = type("OwnResponse", (flask.Response,), {"__module__": "own"})


METHODS = (
    "wsgi_app",
    "request_context",
    "create_url_adapter",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "ensure_sync",
    "finalize_request",
    "make_response",
    "process_response",
)
"""Through which Flask has every request go."""


def _call(app: Flask) -> None:
    """Override the method that Python looks up in the class."""
    inner = Flask.__call__
    app.__class__ = type("OwnFlask", (Flask,), {"__call__": lambda self, *arguments: inner(self, *arguments)})


def _method(name: str) -> Callable[[Flask], None]:
    def around(app: Flask) -> None:
        inner = getattr(app, name)
        setattr(app, name, lambda *arguments, **named: inner(*arguments, **named))

    around.__name__ = name
    return around


@pytest.mark.parametrize(
    "around",
    [
        _before_request,
        _after_request,
        _url_value_preprocessor,
        _middleware,
        _call,
        _trusted_hosts,
        _trusted_hosts_of_requests,
        _request_class,
        _response_class,
        *map(_method, METHODS),
    ],
    ids=lambda around: around.__name__.strip("_"),
)
def test_guards(folder: Path, around: Callable[[Flask], None], caplog: pytest.LogCaptureFixture) -> None:
    """Where something of the app runs around its static files they are left to it, unless STATIC is on."""
    app = make_app(folder)
    around(app)
    with in_thread(app) as served:
        response = get(served.address, "/static/style.css")
        assert response.status == 401 or by_app(response)
    with in_thread(app, static="on") as served:
        assert not by_app(get(served.address, "/static/style.css"))
        assert get(served.address, "/static/style.css").status == 200


@pytest.mark.parametrize(
    "guard", [_before_request, _url_value_preprocessor], ids=lambda guard: guard.__name__.strip("_")
)
def test_guard_of_a_blueprint(folder: Path, guard: Callable[[Flask | Blueprint], None]) -> None:
    """What a blueprint runs before its requests concerns its folder and those of blueprints in it, and no other."""
    for name in ("outer", "inner"):
        write(folder / name / "a.txt", name)
    outer = Blueprint("outer", "outer", root_path=str(folder), url_prefix="/outer", static_folder="outer")
    inner = Blueprint("inner", "inner", root_path=str(folder), url_prefix="/inner", static_folder="inner")
    guard(outer)
    outer.register_blueprint(inner)
    app = make_app(folder)
    app.register_blueprint(outer)
    with in_thread(app) as served:
        assert get(served.address, "/outer/outer/a.txt").status == 401
        assert get(served.address, "/outer/inner/inner/a.txt").status == 401
        assert not by_app(get(served.address, "/static/style.css"))


def test_replaced_views(folder: Path) -> None:
    """A static view that is wrapped or replaced, and overridden methods of the app, are left alone even where STATIC is on."""
    wrapped = make_app(folder)
    wrapped.view_functions["static"] = login_required(wrapped.view_functions["static"])

    class Own(Flask):
        def get_send_file_max_age(self, filename: str | None) -> int | None:
            return 3

    with in_thread(wrapped, static="on") as served:
        assert get(served.address, "/static/style.css").status == 401
    with in_thread(Own("own", root_path=str(folder)), static="on") as served:
        assert get(served.address, "/static/style.css").get("cache-control") == "public, max-age=3"


def test_apps_of_many_hosts(folder: Path) -> None:
    """An app whose rules depend on the host, or that has no static folder, serves its own."""
    app = Flask("hosts", root_path=str(folder), host_matching=True, static_host="test")
    with in_thread(app, static="on") as served:
        assert by_app(get(served.address, "/static/style.css"))
    with in_thread(Flask("none", root_path=str(folder), static_folder=None), static="on") as served:
        assert get(served.address, "/static/style.css").status == 404


def test_mounted_apps(folder: Path) -> None:
    """An app that is mounted beside another one has its own files served, below its place or on its host, and both below a prefix."""
    main, other = make_app(folder / "main"), make_app(folder / "other")
    write(folder / "main/static/main.css", "main")
    write(folder / "other/static/other.css", "other")
    mounts = {"/shop": make_app(folder), "other.test": other}
    with in_thread(main, mounts=mounts, url_prefix="/all") as served:
        for host, target, status, body in [
            ("test", "/all/static/main.css", 200, b"main"),
            ("test", "//all/static/main.css", 200, b"main"),
            ("test", "/all/shop/static/style.css", 200, b"body {}"),
            ("other.test:80", "/all/static/other.css", 200, b"other"),
            ("test", "http://test/all/static/main.css?x=1", 200, b"main"),
            ("test", "/all/static/%6dain.css", 200, b"main"),
            ("test", "/all/static/style.css", 404, None),
            ("other.test", "/all/static/main.css", 404, None),
            ("test", "/static/main.css", 404, None),
            ("test", "/all/shop/static/../static/style.css", 404, None),
        ]:
            with Wire(served.address) as wire:
                wire.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                response = wire.response()
            assert response.status == status, (host, target)
            assert not by_app(response)
            if body is not None:
                assert response.body == body


def test_who_asks_for_a_file(folder: Path) -> None:
    """A request through a trusted proxy is logged with its client's address, and refused where the proxy makes no sense; what others say
    of themselves is nothing.
    """
    said = "X-Forwarded-For: 192.0.2.7"
    for trusted, seen in [("198.51.100.1", "127.0.0.1"), ("127.0.0.1", "192.0.2.7")]:
        with in_thread(make_app(folder), trusted_proxies=trusted) as served:
            wrong = get(served.address, "/static/style.css?wrong", "X-Forwarded-Proto: gopher").status
            assert get(served.address, "/static/style.css", said).status == 200
            wait_until(lambda done=served.done: len(done) == 2)
            [done] = [done for done in served.done if done.target == "/static/style.css"]
        assert wrong == (400 if seen == "192.0.2.7" else 200)
        assert (done.remote_addr, done.status) == (seen, 200)
        assert done.response_bytes == 7
        assert done.app_seconds == 0


@pytest.mark.every_way
def test_an_error_in_front_of_the_app(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong where a file is looked for is answered and logged as where it goes wrong in the app."""
    monkeypatch.setattr(StaticFile, "answer", lambda self, method, fields: 1 / 0)
    with in_thread(make_app(folder)) as served:
        assert get(served.address, "/static/style.css").status == 500
        assert get(served.address, "/nothing").status == 404
    assert "Exception on /static/style.css [GET]" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.every_way
@pytest.mark.parametrize(
    ("target", "size"),
    [("/static/small.bin", 60_000), ("/static/large.bin", SIZE), ("/download", SIZE), ("/page", 60_000)],
)
def test_many_requests_of_a_client_that_does_not_read(folder: Path, target: str, size: int) -> None:
    """Nothing is begun before the client has taken what came before: however much it asks for at once, no more than one response is kept
    for it, and one file open, and nobody waits for it; when it reads, it gets all of them.
    """
    write(folder / "static/small.bin", bytes(60_000))
    app = make_app(folder)
    app.add_url_rule("/", "index", lambda: "hello")
    app.add_url_rule("/page", "page", lambda: bytes(60_000))
    app.add_url_rule("/download", "download", lambda: send_file(folder / "static/large.bin"))
    count = 30_000_000 // size
    with in_thread(app, threads=1, max_streams=0, min_send_rate=0) as served, Wire(served.address) as wire:
        for path, number in ((target, count), ("/livez", 10), (target, 10)):
            wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() * number)
        wait_until(lambda: served.table.connections)
        (channel,) = served.connections
        wait_until(lambda: channel.output.size and not channel.running, "the client to have enough")
        assert get(served.address).body == b"hello"
        assert channel.answered < count  # the two systems take a few more by and by, and not as many
        assert channel.output.size < size + 1000
        for expected in (*[size] * count, *[None] * 10, *[size] * 10):
            response = wire.response()
            assert response.status == 200
            assert expected in (None, len(response.body))


@pytest.mark.every_way
def test_a_folder_that_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer holds up those who ask for its files, until they time out, and nobody else."""
    asked, hangs = threading.Semaphore(0), threading.Event()
    answer = StaticFile.answer

    def hang(self: StaticFile, method: str, fields: Any) -> FileAnswer | None:
        asked.release()
        assert hangs.wait(PATIENCE)
        return answer(self, method, fields)

    monkeypatch.setattr(StaticFile, "answer", hang)
    app = make_app(folder)
    app.add_url_rule("/", "index", lambda: "hello")
    clock = ManualClock()
    with in_thread(app, threads=2, request_timeout=30, clock=clock) as served, Wire(served.address) as wire:
        wire.send(b"GET /static/large.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        assert asked.acquire(timeout=PATIENCE)
        assert get(served.address).body == b"hello"
        clock.advance(31)
        served.look()
        assert wire.response().status == 504
        hangs.set()
        assert get(served.address, "/static/large.bin").body == (folder / "static/large.bin").read_bytes()


def test_what_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once which files are left to the app, why, and what to do."""
    app = make_app(folder)
    for _ in range(4):
        _before_request(app)
    with caplog.at_level(logging.INFO, "flask_prodserve"):
        assert static_files(app, resolve([]).settings.files, "/shop", log_notices=True) is None
    [record] = caplog.records
    assert "/shop/static/" in record.getMessage()
    assert "test_static_files._before_request" in record.getMessage()
    assert "STATIC=on" in record.getMessage()


@pytest.mark.parametrize("static", ["auto", "on"])
def test_many_folders_are_one_line(folder: Path, caplog: pytest.LogCaptureFixture, static: str) -> None:
    """One line names some of many folders, the debug level all of them; those that do not exist are not named."""
    app = make_app(folder)
    _before_request(app)
    for number in range(20):
        if number % 2:
            write(folder / f"part{number}" / "a.txt", "a")
        app.register_blueprint(
            Blueprint(
                f"b{number}",
                f"b{number}",
                root_path=str(folder),
                url_prefix=f"/b{number}",
                static_folder=f"part{number}",
            )
        )
    with caplog.at_level(logging.DEBUG, "flask_prodserve"):
        static_files(app, resolve([arguments({"static": static}, "test")]).settings.files, log_notices=True)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert "/static/, /b1/part1/, /b3/part3/ and 8 more" in line
    details = " ".join(record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG)
    assert all(f"/b{number}/part{number}/" in details for number in range(1, 20, 2))
    assert not any(f"/b{number}/" in caplog.text for number in range(0, 20, 2))


def test_what_is_said_of_what_is_sent(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says how many files are sent without the app, and where; of an app that has none it says nothing."""
    with caplog.at_level(logging.INFO, "flask_prodserve"):
        files = resolve([]).settings.files
        assert static_files(make_app(folder), files, log_notices=True) is not None
        static_files(make_app(folder / "nowhere"), files, log_notices=True)
    assert caplog.messages == ["serving static files without the app: 2 at /static/"]


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without whitenoise the app serves its files, and the log says what to install; STATIC=on is refused, with the same words."""
    monkeypatch.setitem(sys.modules, "whitenoise", None)
    with caplog.at_level(logging.INFO, "flask_prodserve"):
        for root in (folder, folder / "nowhere"):
            assert static_files(make_app(root), resolve([]).settings.files, log_notices=True) is None
    [record] = caplog.records
    assert "pip install 'flask-prodserve[static]'" in record.getMessage()
    with in_thread(make_app(folder)) as served:
        assert by_app(get(served.address, "/static/style.css"))
    on = resolve([arguments({"static": "on"}, "test")]).settings.files
    with pytest.raises(MissingExtraError, match=r"flask-prodserve\[static\]"):
        static_files(make_app(folder), on)


def slow_clients(served: Any, target: str, *fields: str) -> Iterator[Wire]:
    for _ in range(8):
        wire = Wire(served.address)
        wire.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *fields, "", ""]).encode())
        yield wire


@pytest.mark.every_way
@pytest.mark.parametrize("target", ["/static/huge.bin", "/download"])
@pytest.mark.parametrize("fields", [[], ["Range: bytes=1-99999999"]], ids=["whole", "range"])
def test_slow_clients_hold_no_thread(folder: Path, target: str, fields: list[str]) -> None:
    """Clients that do not read a large file, or a range of it, leave the only thread to others, be it a static file or send_file."""
    path = folder / "static/huge.bin"
    write(path, "")
    os.truncate(path, 100_000_000)
    app = make_app(folder)
    app.add_url_rule("/", "index", lambda: threading.current_thread().name)
    app.add_url_rule("/download", "download", lambda: send_file(path))
    with in_thread(app, threads=1, max_streams=0) as served:
        slow = list(slow_clients(served, target, *fields))
        try:
            assert get(served.address).status == 200
            wait_until(lambda: len(served.done) == len(slow) + 1, "all requests to be done")
        finally:
            for wire in slow:
                wire.socket.close()


@pytest.mark.every_way
@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile(2)")
@pytest.mark.parametrize("target", ["/static/large.bin", "/download"])
@pytest.mark.parametrize(
    ("fields", "status", "size"),
    [([], 200, SIZE), (["Range: bytes=1000-200999"], 206, 200_000)],
    ids=["whole", "range"],
)
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_large_files_by_sendfile(
    folder: Path,
    way: str,
    target: str,
    fields: list[str],
    status: int,
    size: int,
    unix: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system sends large files and ranges of them past Python, static ones and those of send_file; not over TLS, of course."""
    sent: list[int] = []
    sendfile = os.sendfile

    def counting(*arguments: int) -> int:
        sent.append(sendfile(*arguments))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", counting)
    app = make_app(folder)
    app.add_url_rule("/download", "download", lambda: send_file(folder / "static/large.bin"))
    with in_thread(app, **({"bind": f"unix:{folder}/socket"} if unix else {})) as served:
        response = get(served.address, target, *fields)
    assert (response.status, len(response.body)) == (status, size)
    assert sum(sent) == (0 if way == "tls" else size)
