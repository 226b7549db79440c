"""Which rule requests belong to."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from flask_prodserve.apps.url_rules import UrlRules


def rule(routes: UrlRules, method: str, path: str, host: str = "") -> str | None:
    found = routes.find(method, path, host)
    return None if found is None else found.endpoint


def test_find() -> None:
    """Requests of one rule are found to be that, whatever the path; nothing is found for those that the app answers by itself."""
    app = Flask("routes")
    app.add_url_rule("/items/<int:number>", "items", view_func=str, methods=["GET", "POST"])
    app.add_url_rule("/folder/", "folder", view_func=int)
    routes = UrlRules(app.url_map)
    assert (
        rule(routes, "GET", "/items/1")
        == rule(routes, "HEAD", "/items/22")
        == rule(routes, "POST", "/items/1")
        == "items"
    )
    assert rule(routes, "GET", "/items/x") is None
    assert rule(routes, "GET", "/folder") is None  # a redirect
    assert rule(routes, "GET", "/folder/") == "folder"
    assert rule(routes, "DELETE", "/items/1") is None
    assert rule(routes, "GET", "/\xff\xc3\xa4") is None


def test_converters_are_not_called() -> None:
    """The app's own converters, which could look something up in a database, are not called, and their patterns hold."""

    class Record(BaseConverter):
        def __init__(self, url_map: object, pattern: str = "[0-9]+") -> None:
            super().__init__(url_map)  # type: ignore[arg-type]
            self.regex = pattern

        def to_python(self, value: str) -> str:
            raise AssertionError("called")

    app = Flask("routes")
    app.url_map.converters["record"] = Record
    app.add_url_rule("/<record:one>", "number", view_func=str)
    app.add_url_rule("/<record('[a-z]+'):one>", "word", view_func=str)
    routes = UrlRules(app.url_map)
    assert rule(routes, "GET", "/1") == "number"
    assert rule(routes, "GET", "/a") == "word"
    assert rule(routes, "GET", "/A") is None


def test_hosts() -> None:
    """Where rules are for hosts or subdomains, those of the request decide."""
    by_host = Flask("routes", host_matching=True, static_host="static.test")
    by_host.add_url_rule("/", "one", view_func=str, host="one.test")
    by_host.add_url_rule("/", "two", view_func=str, host="two.test")
    routes = UrlRules(by_host.url_map)
    assert [rule(routes, "GET", "/", host) for host in ("one.test", "two.test", "three.test")] == ["one", "two", None]
    by_subdomain = Flask("routes", subdomain_matching=True)
    by_subdomain.add_url_rule("/", "bare", view_func=str)
    by_subdomain.add_url_rule("/", "api", view_func=str, subdomain="api")
    routes = UrlRules(by_subdomain.url_map, "shop.test:8000")
    hosts = ("shop.test:8000", "api.shop.test:8000", "www.shop.test")
    assert [rule(routes, "GET", "/", host) for host in hosts] == ["bare", "api", None]


def test_literal() -> None:
    """Rules without arguments are known by their path."""
    app = Flask("routes", static_folder=None)
    app.add_url_rule("/livez", view_func=str)
    app.add_url_rule("/<path:anything>", view_func=int)
    assert UrlRules(app.url_map).literal == {"/livez"}
