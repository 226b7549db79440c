"""Limits of single endpoints: where an app says them, and which are in force."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
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
    views: Mapping[str, Any],
    blueprints: Mapping[str, Any],
    configured: Iterable[tuple[str, EndpointLimits]],
    places: Collection[str] = (),
) -> dict[str, Endpoint]:
    """Those of an app's *views* that have limits, by endpoint name. What is *configured* is stronger than what the code says, a view
    than its blueprint, a nested blueprint than the one around it. *places* are names that may be configured, too: keys of mounts.

    Raises :class:`~..settings.SettingsError` where endpoints are configured that are not there.
    """
    by_name = dict(configured)
    known = [*views, *(f"{name}.*" for name in blueprints), *places]
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


def within_mount(
    place: str, whole: EndpointLimits, own: EndpointLimits, bounded: Mapping[str, Endpoint]
) -> tuple[dict[str, Endpoint], Endpoint]:
    """What holds for the endpoints of an app that is mounted at *place*, where *bounded* is what it says of some of them and *own* of all;
    and what holds for everything else in it. What is said of it as a *whole*, by who mounts it, is stronger.

    All of it shares the ``max_concurrency`` of the whole, but for endpoints that have one themselves: these may depend on it.
    """
    inside = {}
    for name, endpoint in bounded.items():
        merged = whole.over(endpoint.limits).over(own)
        if endpoint.limits.max_concurrency is None:
            inside[name] = Endpoint(place, merged)
        else:
            inside[name] = Endpoint(f"{place} {name}", replace(merged, max_concurrency=endpoint.limits.max_concurrency))
    return inside, Endpoint(place, whole.over(own))


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
