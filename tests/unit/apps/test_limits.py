"""Where an app says limits of its endpoints, and which of several hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView, View

from flask_prodserve import ProdServe
from flask_prodserve.apps.limits import limited_endpoints, limits
from flask_prodserve.apps.main_app import MainApp
from flask_prodserve.errors import ExitCode
from flask_prodserve.extension import resolve_for
from flask_prodserve.service import engine_for
from flask_prodserve.settings import SettingsError, arguments
from flask_prodserve.settings.endpoint_limits import EndpointLimits, parse_endpoint_limits


def view() -> str:
    return ""


def bounded_view(**said: object) -> Callable[[], str]:
    def own() -> str:
        return ""

    return limits(**said)(own)  # type: ignore[arg-type]  # each test says what it gives


def found(app: Flask, configured: object = None) -> dict[str, EndpointLimits]:
    limits_by_name = limited_endpoints(app.view_functions, app.blueprints, parse_endpoint_limits(configured or {}))
    assert {name: endpoint.name for name, endpoint in limits_by_name.items()} == {name: name for name in limits_by_name}
    return {name: endpoint.limits for name, endpoint in limits_by_name.items()}


@pytest.fixture
def app() -> Flask:
    app = Flask("limits")
    app.add_url_rule("/free", "free", view)
    return app


def test_nothing_said(app: Flask) -> None:
    """An app in which nobody says anything has no endpoint with limits, not even one without any."""
    app.add_url_rule("/empty", "empty", bounded_view())
    assert found(app) == {}
    assert found(app, {"free": {}}) == {}


def test_view_function(app: Flask) -> None:
    """On a view function, written like the settings; the function is the same object, and works as before."""
    own = bounded_view(timeout="5m", max_body="1MiB", max_concurrency=2, queue_timeout="30s")
    app.add_url_rule("/own", "own", own)
    assert found(app) == {"own": EndpointLimits(300.0, 2**20, 2, 30.0)}
    assert own() == ""
    assert limits(timeout=1)(own) is own


def test_above_and_below_the_route(app: Flask) -> None:
    """The order of the two decorators makes no difference."""

    @app.get("/below")
    @limits(timeout=1)
    def below() -> str:
        return ""

    @limits(timeout=2)
    @app.get("/above")
    def above() -> str:
        return ""

    assert found(app) == {"below": EndpointLimits(timeout=1.0), "above": EndpointLimits(timeout=2.0)}


def test_through_other_decorators(app: Flask) -> None:
    """A decorator that says whose it is (functools.wraps) hands the limits on."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return function(*arguments)

        return wrapper

    app.add_url_rule("/one", "one", logged(bounded_view(timeout=1)))
    app.add_url_rule("/two", "two", limits(max_body=2)(logged(bounded_view(timeout=1))))
    assert found(app) == {"one": EndpointLimits(timeout=1.0), "two": EndpointLimits(timeout=1.0, max_body=2)}


def test_decorated_twice(app: Flask) -> None:
    """The outer decorator is stronger, and adds to the inner one."""
    app.add_url_rule("/twice", "twice", limits(timeout=2, max_body=3)(bounded_view(timeout=1, max_concurrency=4)))
    assert found(app) == {"twice": EndpointLimits(timeout=2.0, max_body=3, max_concurrency=4)}


def test_one_view_of_two_endpoints(app: Flask) -> None:
    """A function that is two endpoints bounds each of them."""
    own = bounded_view(max_concurrency=1)
    app.add_url_rule("/one", "one", own)
    app.add_url_rule("/two", "two", own)
    assert set(found(app)) == {"one", "two"}


def test_view_classes(app: Flask) -> None:
    """On a view class for all its methods, on those that inherit from it, in `decorators`, and on what as_view() returns."""

    @limits(timeout=1)
    class Base(MethodView):
        def get(self) -> str:
            return ""

    class Child(Base):
        pass

    @limits(timeout=3)
    class Other(Base):
        pass

    class Decorated(View):
        decorators = [limits(max_body=4)]  # noqa: RUF012  # as Flask's documentation writes it

        def dispatch_request(self) -> str:
            return ""

    app.add_url_rule("/base", view_func=Base.as_view("base"))
    app.add_url_rule("/child", view_func=Child.as_view("child"))
    app.add_url_rule("/other", view_func=Other.as_view("other"))
    app.add_url_rule("/decorated", view_func=Decorated.as_view("decorated"))
    app.add_url_rule("/returned", view_func=limits(timeout=5)(Child.as_view("returned")))
    assert found(app) == {
        "base": EndpointLimits(timeout=1.0),
        "child": EndpointLimits(timeout=1.0),
        "other": EndpointLimits(timeout=3.0),
        "decorated": EndpointLimits(max_body=4),
        "returned": EndpointLimits(timeout=5.0),
    }


def test_returned_view_of_a_class(app: Flask) -> None:
    """What is said of one view of a class adds to what the class says, as with any other decorator."""

    @limits(timeout=1, max_body=2)
    class Item(MethodView):
        pass

    app.add_url_rule("/item", view_func=limits(timeout=3)(Item.as_view("item")))
    assert found(app) == {"item": EndpointLimits(timeout=3.0, max_body=2)}


def test_blueprint(app: Flask) -> None:
    """A blueprint's limits hold for its views, each by itself, where they do not say otherwise; before or after registration."""
    shop, late = Blueprint("shop", "shop"), Blueprint("late", "late")
    limits(timeout=1, max_body=10)(shop)
    shop.add_url_rule("/a", "a", view)
    shop.add_url_rule("/b", "b", bounded_view(timeout=2))
    late.add_url_rule("/c", "c", view)
    app.register_blueprint(shop)
    app.register_blueprint(late)
    limits(timeout=3)(late)
    assert found(app) == {
        "shop.a": EndpointLimits(timeout=1.0, max_body=10),
        "shop.b": EndpointLimits(timeout=2.0, max_body=10),
        "late.c": EndpointLimits(timeout=3.0),
    }


def test_static_files_of_a_blueprint(app: Flask) -> None:
    """The static files of a blueprint are an endpoint of it like the others."""
    shop = Blueprint("shop", "shop", static_folder=".")
    limits(timeout=1)(shop)
    app.register_blueprint(shop)
    assert found(app) == {"shop.static": EndpointLimits(timeout=1.0)}


def test_blueprint_under_two_names(app: Flask) -> None:
    """A blueprint that is registered twice bounds the views of both."""
    shop = Blueprint("shop", "shop")
    limits(timeout=1)(shop)
    shop.add_url_rule("/a", "a", view)
    app.register_blueprint(shop, url_prefix="/one")
    app.register_blueprint(shop, url_prefix="/two", name="other")
    assert set(found(app)) == {"shop.a", "other.a"}
    assert found(app, {"other.*": {"timeout": 2}})["other.a"].timeout == 2.0


def nested(app: Flask) -> None:
    outer, inner = Blueprint("outer", "outer"), Blueprint("inner", "inner")
    limits(timeout=1, max_body=1, max_concurrency=1, queue_timeout=1)(outer)
    limits(timeout=2, max_body=2)(inner)
    inner.add_url_rule("/view", "view", bounded_view(timeout=3))
    outer.add_url_rule("/other", "other", view)
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")


def test_nested_blueprints(app: Flask) -> None:
    """The view is stronger than its blueprint, and an inner blueprint than the one around it, limit by limit."""
    nested(app)
    assert found(app) == {
        "outer.inner.view": EndpointLimits(3.0, 2, 1, 1.0),
        "outer.other": EndpointLimits(1.0, 1, 1, 1.0),
    }


def test_config_is_stronger_than_code(app: Flask) -> None:
    """Config overrules code, in the order: endpoint, inner blueprint, outer blueprint; what it leaves open is what the code says."""
    nested(app)
    configured = {
        "outer.*": {"timeout": 10, "max_body": 10, "max_concurrency": 10},
        "outer.inner.*": {"timeout": 20, "max_body": 20},
        "outer.inner.view": {"timeout": 30},
        "free": {"max_body": 40},
    }
    assert found(app, configured) == {
        "outer.inner.view": EndpointLimits(30.0, 20, 10, 1.0),
        "outer.other": EndpointLimits(10.0, 10, 10, 1.0),
        "free": EndpointLimits(max_body=40),
    }
    assert found(app, {"outer.*": {"timeout": 10}})["outer.inner.view"].timeout == 10.0


def test_config_can_lift_a_limit(app: Flask) -> None:
    """0 in the config overrules what the code says, and is not taken for nothing."""
    app.add_url_rule("/own", "own", bounded_view(timeout=5, max_body=5))
    assert found(app, {"own": {"timeout": 0}}) == {"own": EndpointLimits(timeout=0.0, max_body=5)}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fre", "Did you mean 'free'?"),
        ("outer.inner.vew", "Did you mean 'outer.inner.view'?"),
        ("oter.*", "Did you mean 'outer.*'?"),
        ("inner.view", "Did you mean 'outer.inner.view'?"),
        ("something entirely different", "flask routes"),
        ("*", "flask routes"),
    ],
)
def test_endpoints_that_are_not_there(app: Flask, name: str, hint: str) -> None:
    """A name that is no endpoint is refused, with the one that was probably meant."""
    nested(app)
    with pytest.raises(SettingsError) as refused:
        found(app, {name: {"timeout": 1}})
    assert f"ENDPOINT_LIMITS names {name!r}" in str(refused.value)
    assert hint in str(refused.value)
    assert refused.value.exit_code == ExitCode.USAGE


def test_all_mistakes_at_once(app: Flask) -> None:
    """Several names that are not there are all named."""
    with pytest.raises(SettingsError) as refused:
        found(app, {"one": {}, "two": {"timeout": 1}, "free": {}})
    assert "'one'" in str(refused.value)
    assert "'two'" in str(refused.value)
    assert "names 'free'" not in str(refused.value)


def test_a_server_with_such_a_mistake_does_not_start(app: Flask) -> None:
    """What makes the engine refuses it, before anything is served."""
    settings = resolve_for(app, [arguments({"endpoint_limits": {"fre": {"timeout": 1}}}, "test")]).settings
    with pytest.raises(SettingsError, match="Did you mean 'free'"):
        engine_for(MainApp.of(app), settings, [])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"timeout": "soon"}, "limits() takes for timeout a duration such as 30s, 500ms or 5m, and not 'soon'"),
        ({"max_concurrency": 0}, "limits() takes for max_concurrency at least 1, and not 0"),
    ],
)
def test_a_bad_value_fails_where_it_is_written(said: dict[str, Any], words: str) -> None:
    """A mistake in a decorator is an error at import, in that line."""
    with pytest.raises(ValueError, match="limits") as refused:
        ProdServe.limits(**said)
    assert str(refused.value) == words


def test_only_by_keyword() -> None:
    """@limits without a call, or with a bare number, is a mistake and not a limit of something."""
    with pytest.raises(TypeError):
        ProdServe.limits(5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        ProdServe.limits(max_boby=5)  # type: ignore[call-arg]


def test_from_an_instance(app: Flask) -> None:
    """The decorator is the same on the class and on a ProdServe that is made before any app."""
    prodserve = ProdServe()
    app.add_url_rule("/own", "own", prodserve.limits(timeout=1)(bounded_view()))
    assert found(app) == {"own": EndpointLimits(timeout=1.0)}
