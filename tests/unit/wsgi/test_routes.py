"""Which requests are of one kind."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from flask_prodserve.wsgi.routes import Routes


def test_kind() -> None:
    """Requests of one rule and method are of one kind, whatever the path; those without a rule are kinds of their own."""
    app = Flask("routes")
    app.add_url_rule("/items/<int:number>", view_func=str, methods=["GET", "POST"])
    app.add_url_rule("/folder/", view_func=int)
    kind = Routes(app.url_map).kind
    assert kind("GET", "/items/1") == kind("GET", "/items/22") != kind("POST", "/items/1")
    assert kind("GET", "/items/1") != kind("GET", "/items/x") != kind("GET", "/items/y")
    assert kind("GET", "/folder") != kind("GET", "/folder/")  # a redirect
    assert kind("DELETE", "/items/1") != kind("GET", "/items/1")
    assert kind("GET", "/\xff\xc3\xa4") is not None
    app.add_url_rule("/later/<name>", view_func=bool)
    assert kind("GET", "/later/a") == kind("GET", "/later/b")


def test_converters_are_not_called() -> None:
    """The app's own converters, which could look something up in a database, are not called to know a request's kind."""

    class Record(BaseConverter):
        def to_python(self, value: str) -> str:
            raise AssertionError("called")

    app = Flask("routes")
    app.url_map.converters["record"] = Record
    app.add_url_rule("/<record:record>", view_func=str)
    kind = Routes(app.url_map).kind
    assert kind("GET", "/1") != kind("GET", "/2")
