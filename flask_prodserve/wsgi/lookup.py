"""Which app a request is for, which of its URL rules, and which limits hold: asked by the engine, before any app is called.

Rules: what is asked runs in the loop's thread, which serves everybody, so it waits for nothing. It sees what the client sent: the Host
field, and not what a proxy says in X-Forwarded-Host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..settings.endpoint_limits import UNLIMITED, Endpoint, EndpointLimits
from .mounts import Directory
from .prefix import path_below

if TYPE_CHECKING:
    from werkzeug.routing import Rule

    from ..protocol.request_head import RequestHead
    from ..settings.mounts import Mount
    from .routes import Routes


@dataclass(frozen=True, slots=True)
class Site:
    """One app: *place* is the key that it is mounted by, ``""`` for the main app; *routes* is None where it is not of Flask.

    *bounded* are its endpoints that have limits, by name; *other* is what holds for all else in it.
    """

    place: str
    routes: Routes | None
    bounded: Mapping[str, Endpoint]
    other: Endpoint = UNLIMITED


class Lookup:
    """Finds the one that a request is for of *main* and those *mounted* beside it. *prefix* is URL_PREFIX, ``""`` if there is none."""

    def __init__(self, main: Site, mounted: Sequence[tuple[Mount, Site]], prefix: str) -> None:
        self._sites = Directory(main, mounted)
        self._prefix = prefix
        self.has_limits = any(
            site.bounded or site.other.limits != EndpointLimits() for site in [main, *(site for _, site in mounted)]
        )
        """Whether any app has any, so that it is worth asking."""
        self.own_paths = {prefix + path for path in main.routes.literal} if main.routes is not None else set()
        """What the main app has a rule for, literally; see :class:`.routes.Routes`."""

    def kind(self, head: RequestHead) -> str:
        """What to call requests like this one: the method with the app's place and the rule in it, or else with the path."""
        site, rule = self._find(head)
        return f"{head.method} {head.path if site is None or rule is None else site.place + rule.rule}"

    def endpoint_of(self, head: RequestHead) -> Endpoint:
        """What is said of the endpoint that answers it."""
        site, rule = self._find(head)
        if site is None:
            return UNLIMITED
        return site.other if rule is None else site.bounded.get(rule.endpoint, site.other)

    def _find(self, head: RequestHead) -> tuple[Site | None, Rule | None]:
        path = path_below(self._prefix, head.path) if self._prefix else head.path
        if path is None:
            return None, None
        host = head.fields.get("HTTP_HOST", "")
        site, _, path = self._sites.find(path, host)
        return site, None if site.routes is None else site.routes.find(head.method, path, host)
