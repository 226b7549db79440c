"""Parses and formats the limits of single endpoints."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from .. import units


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """The limits of an endpoint. ``None`` means the server's own setting."""

    timeout: float | None = None
    """Seconds until the response must start, instead of REQUEST_TIMEOUT; 0 is no limit."""

    max_body: int | None = None
    """Most bytes of a request body, instead of MAX_BODY_SIZE."""

    max_concurrency: int | None = None
    """Most requests of the endpoint that run at the same time in one process."""

    queue_timeout: float | None = None
    """Seconds that a request may wait for a thread or for its endpoint, instead of QUEUE_TIMEOUT.
    """

    def over(self, general: EndpointLimits) -> EndpointLimits:
        """Return these limits, filled up from *general*."""
        return EndpointLimits(
            **{
                field.name: getattr(general, field.name) if value is None else value
                for field in fields(self)
                for value in (getattr(self, field.name),)
            }
        )


class Endpoint(NamedTuple):
    """One endpoint of an app, and its limits."""

    name: str
    limits: EndpointLimits


UNLIMITED = Endpoint("", EndpointLimits())
"""Any endpoint without limits."""


class Route(NamedTuple):
    """Where a request leads."""

    kind: str
    """The name of all requests like it: the method with the mount and the URL rule, or the path."""

    endpoint: Endpoint = UNLIMITED


def _concurrency(value: object) -> int:
    count = units.parse_count(value)
    if count < 1:
        raise ValueError("at least 1")
    return count


_PARSERS = {
    "timeout": units.parse_duration,
    "max_body": units.parse_size,
    "max_concurrency": _concurrency,
    "queue_timeout": units.parse_duration,
}


def parse_limits(given: Mapping[str, object]) -> EndpointLimits:
    """Parse the limits of one endpoint. Raises ValueError with what the wrong limit takes."""
    parsed: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _PARSERS:
            close = difflib.get_close_matches(str(name), list(_PARSERS), n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"the limits {', '.join(_PARSERS)}, and not {name!r}{meant}")
        if value is None:
            continue
        try:
            parsed[name] = _PARSERS[name](value)
        except ValueError as error:
            raise ValueError(f"for {name} {error}, and not {value!r}") from None
    return EndpointLimits(**parsed)


def parse_endpoint_limits(value: object) -> tuple[tuple[str, EndpointLimits], ...]:
    """Parse a mapping of endpoint names to limits, or the same as a JSON object. Raises ValueError."""
    expected = 'a mapping of endpoint names to limits, such as {"report": {"timeout": "5m", "max_concurrency": 2}}'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(expected) from None
    if not isinstance(value, Mapping):
        raise ValueError(expected)
    limits = []
    for endpoint, given in value.items():
        if not isinstance(endpoint, str) or not isinstance(given, Mapping):
            raise ValueError(expected)
        try:
            limits.append((endpoint, parse_limits(given)))
        except ValueError as error:
            raise ValueError(f"{error} (endpoint {endpoint!r})") from None
    return tuple(limits)


def format_endpoint_limits(limits: tuple[tuple[str, EndpointLimits], ...]) -> str:
    """Write *limits* as a JSON object."""
    return json.dumps(
        {
            endpoint: {name: value for name, value in asdict(of_one).items() if value is not None}
            for endpoint, of_one in limits
        }
    )
