"""Which of several apps a request is for, and what each sees of the path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import create_environ, run_wsgi_app

from flask_prodserve.settings.mounts import parse_mount
from flask_prodserve.wsgi.mounts import Mounts, MountTable
from flask_prodserve.wsgi.prefix import Prefix, path_below


class App:
    """Says who it is, and which part of the path it is given as what."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [f"{self._name}|{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode("latin-1")]


def answer(app: Any, path: str, host: str = "test", script: str = "") -> str:
    environ = create_environ()
    environ.update(PATH_INFO=path, SCRIPT_NAME=script, HTTP_HOST=host)
    chunks, _, _ = run_wsgi_app(app, environ)
    return b"".join(chunks).decode("latin-1")


def mounts(*keys: str) -> Mounts:
    return Mounts(MountTable(App("main"), [(parse_mount(key, "x"), App(key)) for key in keys]))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "main||/"),
        ("", "main||"),
        ("/api", "/api|/api|"),
        ("/api/", "/api|/api|/"),
        ("/api/x", "/api|/api|/x"),
        ("/apiary", "main||/apiary"),
        ("/api.", "main||/api."),
        ("/api;x", "main||/api;x"),
        ("/API/x", "main||/API/x"),
        ("/api/v2", "/api/v2|/api/v2|"),
        ("/api/v2/x", "/api/v2|/api/v2|/x"),
        ("/api/v22", "/api|/api|/v22"),
        ("/x/api", "main||/x/api"),
        ("/api/../x", "/api|/api|/../x"),
        ("/api/%2e", "/api|/api|/%2e"),
        ("/api//evil.test/x", "/api|/api|/evil.test/x"),
        ("/api///", "/api|/api|/"),
        ("/api/v2//x//y", "/api/v2|/api/v2|/x//y"),
        ("//api", "main||//api"),
        ("/\xc3\xa9", "main||/\xc3\xa9"),
    ],
)
def test_by_path(path: str, expected: str) -> None:
    """A mount has its path and what is below it, the longest first; of the slashes after it one remains; nothing is normalized."""
    assert answer(mounts("/api", "/api/v2"), path) == expected
    assert answer(mounts("/api/v2", "/api"), path) == expected


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("admin.test", "/", "admin.test||/"),
        ("ADMIN.Test:8000", "/y", "admin.test||/y"),
        ("admin.test", "/api/x", "admin.test||/api/x"),
        ("admin.test", "/x/y", "admin.test/x|/x|/y"),
        ("b.test", "/api/x", "/api|/api|/x"),
        ("b.test", "/x/y", "b.test/x|/x|/y"),
        ("b.test", "/y", "main||/y"),
        ("notadmin.test", "/", "main||/"),
        ("x.admin.test", "/", "main||/"),
        ("admin.test.evil", "/", "main||/"),
        ("admin.test.", "/", "main||/"),
        ("[::1]:80", "/", "main||/"),
        ("", "/api", "/api|/api|"),
    ],
)
def test_by_host(host: str, path: str, expected: str) -> None:
    """The host counts exactly, without its port and in any case, and before the path."""
    app = mounts("/api", "admin.test", "admin.test/x", "b.test/x")
    assert answer(app, path, host) == expected


def test_behind_a_prefix_of_the_proxy() -> None:
    """What is in SCRIPT_NAME already comes first."""
    assert answer(mounts("/api"), "/api/x", script="/shop") == "/api|/shop/api|/x"
    assert answer(Prefix(mounts("/api"), "/v1"), "/v1/api/x", script="/shop") == "/api|/shop/v1/api|/x"


SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", ".", "..", "\xc3\xa9", "%2f"]), max_size=5)
KEYS = ["/a", "/a/b", "/ab", "/b/a/ab"]


@given(SEGMENTS, st.booleans())
def test_as_werkzeug_does_it(segments: list[str], slash: bool) -> None:
    """Without hosts, it is what Werkzeug's DispatcherMiddleware does with the same mounts."""
    path = "".join(f"/{segment}" for segment in segments) + "/" * slash
    werkzeug = DispatcherMiddleware(App("main"), {key: App(key) for key in KEYS})
    assert answer(mounts(*KEYS), path) == answer(werkzeug, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/shop", ""),
        ("/shop/", "/"),
        ("/shop/x", "/x"),
        ("/shop//evil.test", "/evil.test"),
        ("/shopping", None),
        ("/", None),
        ("", None),
        ("/x/shop", None),
        ("//shop", None),
        ("/Shop", None),
    ],
)
def test_prefix(path: str, expected: str | None) -> None:
    """What is below a prefix is what follows it and a slash; all else is answered with 404 and does not reach the app."""
    assert path_below("/shop", path) == expected
    if expected is None:
        assert answer(Prefix(App("app"), "/shop"), path).startswith("This path is outside")
    else:
        assert answer(Prefix(App("app"), "/shop"), path) == f"app|/shop|{expected}"
