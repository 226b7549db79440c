"""Limits of single endpoints: where an app says them, and which are in force."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ..settings import Problem, SettingsError
from ..settings.endpoint_limits import Endpoint, EndpointLimits, parse_limits

_ATTRIBUTE = "prodserve_limits"

Target = TypeVar("Target")


def limits(
    *, timeout: object = None, max_body: object = None, max_concurrency: object = None, queue_timeout: object = None
) -> Callable[[Target], Target]:
    """Bound a view function, a view class, or every view of a blueprint; see :meth:`flask_prodserve.ProdServe.limits`."""
    given = {
        "timeout": timeout,
        "max_body": max_body,
        "max_concurrency": max_concurrency,
        "queue_timeout": queue_timeout,
    }
    try:
        own = parse_limits(given)
    except ValueError as error:
        raise ValueError(f"limits() takes {error}") from None

    def bounded(target: Target) -> Target:
        setattr(target, _ATTRIBUTE, own.over(_said_at(target)))
        return target

    return bounded


def endpoints(
    views: Mapping[str, Any], blueprints: Mapping[str, Any], configured: Iterable[tuple[str, EndpointLimits]]
) -> dict[str, Endpoint]:
    """Those of an app's *views* that have limits, by endpoint name. What is *configured* is stronger than what the code says, a view
    than its blueprint, a nested blueprint than the one around it.

    Raises :class:`~..settings.SettingsError` where endpoints are configured that are not there.
    """
    by_name = dict(configured)
    known = [*views, *(f"{name}.*" for name in blueprints)]
    if missing := [name for name in by_name if name not in known]:
        raise SettingsError(_missing(name, known) for name in missing)
    bounded = {}
    for name, view in views.items():
        around = list(_blueprints_around(name))
        merged = EndpointLimits()
        for said in (
            *(by_name.get(key, EndpointLimits()) for key in (name, *(f"{blueprint}.*" for blueprint in around))),
            _said_at(view),
            *(_said_at(blueprints.get(blueprint)) for blueprint in around),
        ):
            merged = merged.over(said)
        if merged != EndpointLimits():
            bounded[name] = Endpoint(name, merged)
    return bounded


def _blueprints_around(endpoint: str) -> Iterator[str]:
    """The names of the blueprints that *endpoint* is in, innermost first."""
    while "." in endpoint:
        endpoint = endpoint.rpartition(".")[0]
        yield endpoint


def _said_at(target: object) -> EndpointLimits:
    said = getattr(target, _ATTRIBUTE, None) or getattr(getattr(target, "view_class", None), _ATTRIBUTE, None)
    return said if isinstance(said, EndpointLimits) else EndpointLimits()


def _missing(name: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"Did you mean {close[0]!r}?"
        if close
        else "`flask routes` lists the endpoints; 'name.*' is all of a blueprint."
    )
    return Problem(f"ENDPOINT_LIMITS names {name!r}, which is no endpoint of this app.", hint)
