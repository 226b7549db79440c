"""How mounts and prefixes are written, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.settings import SettingsError, app_config, command_line, environment, resolve
from flask_prodserve.settings.kinds import URL_PREFIX
from flask_prodserve.settings.mounts import Mount, format_mounts, parse_mount, parse_mounts


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/api=other:app", ["/api=other:app"]),
        (" /a=x , /b=y:z\n/c=p.q:r ", ["/a=x", "/b=y:z", "/c=p.q:r"]),
        (("/a=x,/b=y", "/c=z"), ["/a=x", "/b=y", "/c=z"]),
        ({"/a": "x", "b.test": "y"}, ["/a=x", "b.test=y"]),
        ("/a=x:f('1, 2', k=\")\"),/b=y", ["/a=x:f('1, 2', k=\")\")", "/b=y"]),
        (r"/a=x:f('it\'s, (so)'),/b=y", [r"/a=x:f('it\'s, (so)')", "/b=y"]),
        ("/a=x:f((1, 2), [3, {4: 5}]) /b=y", ["/a=x:f((1, 2), [3, {4: 5}])", "/b=y"]),
        ("Admin.Example.COM=x,Admin.example.com/Path=y", ["admin.example.com=x", "admin.example.com/Path=y"]),
        ("localhost/a=x", ["localhost/a=x"]),
        ("/a/b-c_d.e~f@g:h+i=x", ["/a/b-c_d.e~f@g:h+i=x"]),
        ("/a=x?b=c", ["/a=x?b=c"]),
        ({}, []),
    ],
)
def test_written(value: object, expected: list[str]) -> None:
    """A mapping, a list with commas or blanks, or several; commas, blanks and brackets in a factory's arguments are its own."""
    mounts = parse_mounts(value)
    assert [str(mount) for mount in mounts] == expected
    assert parse_mounts(format_mounts(mounts)) == mounts


def test_parts() -> None:
    """A key has a host in lower case, a path as it is, or both."""
    assert parse_mount("B.test/C", "x") == Mount("b.test", "/C", "x")
    assert parse_mount("/C", "x") == Mount("", "/C", "x")
    assert parse_mount("b.test", "x") == Mount("b.test", "", "x")


@pytest.mark.parametrize("target", [application, Flask("flask_app"), lambda environ, start_response: [], Mount])
def test_callables(target: Any) -> None:
    """A callable is kept, and has a name that can be written and read where the callable is not, as in the supervisor."""
    [mount] = parse_mounts({"/a": target})
    assert mount.application is target
    [written] = parse_mounts(format_mounts((mount,)))
    assert (written.key, written.source, written.application) == ("/a", mount.source, None)


@pytest.mark.parametrize(
    "key",
    [
        *(
            "",
            "/",
            "api",
            "api/v1",
            "/api/",
            "//api",
            "/api//v1",
            "/api/../x",
            "/api/.",
            "/..",
            "/./a",
            "/%61pi",
            "/a b",
        ),
        *(
            "/api?x",
            "/api#x",
            "/é",
            "/a\\b",
            "/a;b",
            "b.test/",
            "b.test:80",
            "b.test:80/a",
            "b.test//a",
            ".test",
            "b.test.",
        ),
        *("b..test", "-b.test", "b-.test", "bücher.test", "[::1]", "http://b.test", "*", "*.test", 5, None),
    ],
)
def test_keys_that_are_refused(key: object) -> None:
    """What is no path or host, or could be read in two ways, is refused, with an example."""
    with pytest.raises(ValueError, match=r"such as /api") as refused:
        parse_mounts({key: "x"})
    assert repr(key if not isinstance(key, str) else key.strip())[:-1] in str(refused.value)


@pytest.mark.parametrize("target", ["", " ", "a b", "a,b", 5, None, "a\0b", "x\n:y"])
def test_apps_that_are_refused(target: object) -> None:
    """What is neither an import string nor callable is refused, with the mount's key."""
    with pytest.raises(ValueError, match="for /a an app such as other:app"):
        parse_mounts({"/a": target})


@pytest.mark.parametrize("value", ["/a", "/a=x,/b", 5, ["/a=x", 5], [("/a", "x")]])
def test_no_mounts_at_all(value: object) -> None:
    """What has no places and apps is refused."""
    with pytest.raises(ValueError, match="paths"):
        parse_mounts(value)


@pytest.mark.parametrize("value", ["/a=x,/a=y", {"b.test": "x", "B.TEST": "y"}, ("/a=x", "/a=x")])
def test_one_place_twice(value: object) -> None:
    """A place can be taken once, however it is written."""
    with pytest.raises(ValueError, match="is there twice"):
        parse_mounts(value)


@given(st.text(alphabet="/ab.:=,'\"() %\\", max_size=20))
def test_any_text(text: str) -> None:
    """Any text is refused with a reason, or read to mounts that are written and read to the same."""
    try:
        mounts = parse_mounts(text)
    except ValueError:
        return
    assert parse_mounts(format_mounts(mounts)) == mounts


def test_where_from() -> None:
    """One place overrides another as a whole, as with every setting."""
    layers = [command_line({"MOUNTS": ("/a=x",)}), environment({"PRODSERVE_MOUNTS": "/b=y"})]
    resolved = resolve([*layers, app_config({"PRODSERVE_MOUNTS": {"/c": application}})])
    assert format_mounts(resolved.settings.wsgi.mounts or ()) == "/a=x"
    assert resolved.origins["MOUNTS"] == "--mount"


@pytest.mark.parametrize("name", ["LIVENESS_PATH", "READINESS_PATH"])
def test_health_paths(name: str) -> None:
    """A mount cannot be where a health path is, on whatever host, unless URL_PREFIX makes it another place."""
    taken = command_line({name: "/health", "MOUNTS": "/health=x"})
    with pytest.raises(SettingsError, match=f"has /health, but /health is {name}"):
        resolve([taken])
    with pytest.raises(SettingsError, match=f"has b.test/health, but /health is {name}"):
        resolve([command_line({name: "/health", "MOUNTS": "b.test/health=x"})])
    resolve([taken, command_line({"URL_PREFIX": "/shop"})])
    resolve([command_line({name: "/health", "MOUNTS": "b.test=x,/healthy=x"})])
    resolve([command_line({name: "off", "MOUNTS": "/off=x,/health=x"})])
    resolve([command_line({name: "/health/live", "MOUNTS": "/health=x"})])


@pytest.mark.parametrize("prefix", ["/a", "/a/b.c", "/.well-known", "/...", " /a "])
def test_prefixes(prefix: str) -> None:
    """A prefix is a path of plain segments."""
    assert URL_PREFIX.parse(prefix) == prefix.strip()


@pytest.mark.parametrize(
    "prefix", ["", "/", "a", "/a/", "//a", "/a/../b", "/.", "/a/..", "/%61", "/a b", "/a?b", "/é", None, 5]
)
def test_prefixes_that_are_refused(prefix: object) -> None:
    """A prefix that is none, or that could be read in two ways, is refused."""
    with pytest.raises(ValueError, match="a path such as /api"):
        URL_PREFIX.parse(prefix)
