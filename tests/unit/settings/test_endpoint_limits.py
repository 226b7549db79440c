"""Limits of single endpoints as values: how they are written, what is refused, and how they are laid over one another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.extension import resolve_for
from flask_prodserve.settings import SettingsError, arguments, environment, resolve
from flask_prodserve.settings.endpoint_limits import (
    EndpointLimits,
    format_endpoint_limits,
    parse_endpoint_limits,
    parse_limits,
)


@pytest.mark.parametrize(
    ("given_limits", "expected"),
    [
        ({}, EndpointLimits()),
        ({"timeout": "5m"}, EndpointLimits(timeout=300.0)),
        ({"timeout": 1.5}, EndpointLimits(timeout=1.5)),
        ({"timeout": 0}, EndpointLimits(timeout=0.0)),
        ({"max_body": "10MiB"}, EndpointLimits(max_body=10 * 2**20)),
        ({"max_body": 0}, EndpointLimits(max_body=0)),
        ({"max_concurrency": 2}, EndpointLimits(max_concurrency=2)),
        ({"max_concurrency": "2"}, EndpointLimits(max_concurrency=2)),
        ({"queue_timeout": "500ms"}, EndpointLimits(queue_timeout=0.5)),
        ({"timeout": None, "max_body": 5}, EndpointLimits(max_body=5)),
    ],
)
def test_parse(given_limits: dict[str, object], expected: EndpointLimits) -> None:
    """Each limit is written like the setting that it is used in place of; None says nothing."""
    assert parse_limits(given_limits) == expected


@pytest.mark.parametrize(
    ("given_limits", "words"),
    [
        ({"timeout": "soon"}, ["timeout", "a duration", "'soon'"]),
        ({"timeout": -1}, ["timeout", "a duration", "-1"]),
        ({"timeout": True}, ["timeout", "True"]),
        ({"timeout": float("nan")}, ["timeout", "nan"]),
        ({"timeout": float("inf")}, ["timeout", "inf"]),
        ({"max_body": "big"}, ["max_body", "a size", "'big'"]),
        ({"max_body": 1.5}, ["max_body", "1.5"]),
        ({"max_concurrency": 0}, ["max_concurrency", "at least 1", "0"]),
        ({"max_concurrency": -1}, ["max_concurrency", "-1"]),
        ({"max_concurrency": "1.5"}, ["max_concurrency", "'1.5'"]),
        ({"queue_timeout": []}, ["queue_timeout", "[]"]),
        ({"max_boby": 1}, ["max_boby", "did you mean max_body?"]),
        ({"xyz": 1}, ["xyz", "timeout, max_body, max_concurrency, queue_timeout"]),
        ({1: 1}, ["1", "timeout"]),
    ],
)
def test_refused(given_limits: dict[Any, object], words: list[str]) -> None:
    """What is no limit, or no value of one, is refused with both, what would be valid, and what was probably meant."""
    with pytest.raises(ValueError, match="and not") as refused:
        parse_limits(given_limits)
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize(
    "value", [5, None, [], "", "report", "[]", "{", '"x"', {"report": 5}, {5: {}}, {"report": "5m"}]
)
def test_no_mapping(value: object) -> None:
    """What is no mapping of names to limits is refused with an example of one."""
    with pytest.raises(ValueError, match="a mapping of endpoint names to limits, such as"):
        parse_endpoint_limits(value)


def test_the_endpoint_is_named() -> None:
    """A mistake says in which endpoint it is."""
    with pytest.raises(ValueError, match=r"'soon' \(endpoint 'report'\)"):
        parse_endpoint_limits({"index": {"timeout": 1}, "report": {"timeout": "soon"}})


def test_as_json() -> None:
    """The environment, which has only text, says the same in JSON."""
    text = '{"report": {"timeout": "5m", "max_concurrency": 2}, "shop.*": {}}'
    expected = (("report", EndpointLimits(timeout=300.0, max_concurrency=2)), ("shop.*", EndpointLimits()))
    assert parse_endpoint_limits(text) == expected
    assert parse_endpoint_limits(json.loads(text)) == expected


limits = st.builds(
    EndpointLimits,
    timeout=st.none() | st.floats(min_value=0, max_value=1e6, allow_nan=False),
    max_body=st.none() | st.integers(min_value=0, max_value=10**12),
    max_concurrency=st.none() | st.integers(min_value=1, max_value=1000),
    queue_timeout=st.none() | st.floats(min_value=0, max_value=1e6, allow_nan=False),
)


@given(st.lists(st.tuples(st.text(), limits), max_size=4, unique_by=lambda pair: pair[0]))
def test_what_is_written_can_be_read(pairs: list[tuple[str, EndpointLimits]]) -> None:
    """What is shown of the setting is what it would be set with."""
    assert parse_endpoint_limits(format_endpoint_limits(tuple(pairs))) == tuple(pairs)


@given(limits, limits, limits)
def test_over(one: EndpointLimits, other: EndpointLimits, third: EndpointLimits) -> None:
    """What is said holds, also where it is 0; what is not said is taken from below; the order of laying them does not matter."""
    merged = one.over(other)
    for name in ("timeout", "max_body", "max_concurrency", "queue_timeout"):
        own = getattr(one, name)
        assert getattr(merged, name) == (getattr(other, name) if own is None else own)
    assert one.over(other).over(third) == one.over(other.over(third))
    assert one.over(EndpointLimits()) == EndpointLimits().over(one) == one


def test_in_app_config() -> None:
    """The key in app.config takes a mapping."""
    app = Flask("limits")
    app.config["PRODSERVE_ENDPOINT_LIMITS"] = {"report": {"timeout": "5m"}}
    resolved = resolve_for(app, [])
    assert resolved.settings.limits.endpoint_limits == (("report", EndpointLimits(timeout=300.0)),)
    assert resolved.origins["ENDPOINT_LIMITS"] == 'app.config["PRODSERVE_ENDPOINT_LIMITS"]'


def test_in_the_environment() -> None:
    """The environment's is stronger than app.config's, and replaces it as a whole."""
    app = Flask("limits")
    app.config["PRODSERVE_ENDPOINT_LIMITS"] = {"report": {"timeout": "5m"}}
    layer = environment({"PRODSERVE_ENDPOINT_LIMITS": '{"index": {"max_body": "1K"}}'})
    resolved = resolve_for(app, [layer])
    assert resolved.settings.limits.endpoint_limits == (("index", EndpointLimits(max_body=1024)),)


@pytest.mark.parametrize("value", ['{"report": {"timeout": "soon"}}', '{"report": {"max_boby": 1}}', "report"])
def test_a_bad_value_is_a_settings_error(value: str) -> None:
    """A mistake is refused with the name of the setting and where it came from."""
    with pytest.raises(SettingsError, match="PRODSERVE_ENDPOINT_LIMITS"):
        resolve([environment({"PRODSERVE_ENDPOINT_LIMITS": value})])


def test_as_an_argument() -> None:
    """serve(app, endpoint_limits=...) takes a mapping as well."""
    resolved = resolve([arguments({"endpoint_limits": {"report": {"max_body": 5}}}, "serve")])
    assert resolved.settings.limits.endpoint_limits == (("report", EndpointLimits(max_body=5)),)
