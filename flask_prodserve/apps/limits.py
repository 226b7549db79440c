"""Limits of single endpoints: the decorator that sets them in code, and which of them are in force."""

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
    """Limit a view function, a view class, or every view of a blueprint; see
    :meth:`flask_prodserve.ProdServe.limits`.
    """
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

    def limited(target: Target) -> Target:
        setattr(target, _ATTRIBUTE, own.over(_limits_on(target)))
        return target

    return limited


def limited_endpoints(
    views: Mapping[str, Any],
    blueprints: Mapping[str, Any],
    configured: Iterable[tuple[str, EndpointLimits]],
    mount_keys: Collection[str] = (),
) -> dict[str, Endpoint]:
    """Return those of an app's *views* that have limits, by endpoint name.

    *configured* limits override those in code, a view's override its blueprint's, and a nested
    blueprint's override those of the blueprint around it. *mount_keys* are other names that may be
    configured. Raises :class:`~..settings.SettingsError` if an unknown endpoint is configured.
    """
    by_name = dict(configured)
    known = [*views, *(f"{name}.*" for name in blueprints), *mount_keys]
    if missing := [name for name in by_name if name not in known]:
        raise SettingsError(_missing(name, known) for name in missing)
    limited = {}
    for name, view in views.items():
        around = list(_blueprints_around(name))
        merged = EndpointLimits()
        for one in (
            *(by_name.get(key, EndpointLimits()) for key in (name, *(f"{blueprint}.*" for blueprint in around))),
            _limits_on(view),
            *(_limits_on(blueprints.get(blueprint)) for blueprint in around),
        ):
            merged = merged.over(one)
        if merged != EndpointLimits():
            limited[name] = Endpoint(name, merged)
    return limited


def limits_in_mount(
    key: str, whole: EndpointLimits, own: EndpointLimits, limited: Mapping[str, Endpoint]
) -> tuple[dict[str, Endpoint], Endpoint]:
    """Merge the limits of an app that is mounted at *key*: return those of its *limited* endpoints,
    and those of all others.

    *own* are the app's limits for all its endpoints. *whole* are the main app's limits for the
    mount, and override both. All of the mount shares the ``max_concurrency`` of the whole, except
    endpoints with their own: these may depend on it.
    """
    inside = {}
    for name, endpoint in limited.items():
        merged = whole.over(endpoint.limits).over(own)
        if endpoint.limits.max_concurrency is None:
            inside[name] = Endpoint(key, merged)
        else:
            inside[name] = Endpoint(f"{key} {name}", replace(merged, max_concurrency=endpoint.limits.max_concurrency))
    return inside, Endpoint(key, whole.over(own))


def _blueprints_around(endpoint: str) -> Iterator[str]:
    """Yield the names of the blueprints around *endpoint*, innermost first."""
    while "." in endpoint:
        endpoint = endpoint.rpartition(".")[0]
        yield endpoint


def _limits_on(target: object) -> EndpointLimits:
    found = getattr(target, _ATTRIBUTE, None) or getattr(getattr(target, "view_class", None), _ATTRIBUTE, None)
    return found if isinstance(found, EndpointLimits) else EndpointLimits()


def _missing(name: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"Did you mean {close[0]!r}?"
        if close
        else "`flask routes` lists the endpoints; 'name.*' is all of a blueprint."
    )
    return Problem(f"ENDPOINT_LIMITS names {name!r}, which is not an endpoint of this app.", hint)
