"""Finds which app, URL rule and limits a request has, before any app is called.

Rules: the engine asks from the thread of the event loop, which serves all clients, so nothing here
waits. The Host field counts as the client sent it; X-Forwarded-Host does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Flask

from ..settings import SettingsError
from ..settings.endpoint_limits import UNLIMITED, Endpoint, EndpointLimits, Route
from ..wsgi.mounts import MountTable
from ..wsgi.prefix import path_below
from .limits import limited_endpoints, limits_in_mount
from .url_rules import UrlRules

if TYPE_CHECKING:
    from werkzeug.routing import Rule

    from ..protocol.request_head import RequestHead
    from ..settings.groups.apps import WSGI
    from ..settings.groups.limits import Limits
    from ..settings.groups.network import Proxy
    from ..settings.mounts import Mount


@dataclass(frozen=True, slots=True)
class RoutedApp:
    """One app: *key* is that of its mount, ``""`` for the main app; *rules* is None if it is not a
    Flask app.

    *limited* are its endpoints with limits, by name; *other* holds for all its other endpoints.
    """

    key: str
    rules: UrlRules | None
    limited: Mapping[str, Endpoint]
    other: Endpoint = UNLIMITED


class Router:
    """Routes requests to *main* and to the *mounted* apps. *prefix* is URL_PREFIX, or ``""``."""

    def __init__(self, main: RoutedApp, mounted: Sequence[tuple[Mount, RoutedApp]], prefix: str) -> None:
        self._apps = MountTable(main, mounted)
        self._prefix = prefix
        self.has_limits = any(
            app.limited or app.other.limits != EndpointLimits() for app in [main, *(app for _, app in mounted)]
        )
        """Whether any app has limits."""
        self.own_paths = {prefix + path for path in main.rules.literal} if main.rules is not None else set()
        """Literal paths of the main app's rules; see :class:`.url_rules.UrlRules`."""

    def route(self, head: RequestHead) -> Route:
        """Find where the request leads."""
        app, rule = self._find(head)
        if app is None or rule is None:
            return Route(f"{head.method} {head.path}", UNLIMITED if app is None else app.other)
        return Route(f"{head.method} {app.key}{rule.rule}", app.limited.get(rule.endpoint, app.other))

    def _find(self, head: RequestHead) -> tuple[RoutedApp | None, Rule | None]:
        path = path_below(self._prefix, head.path) if self._prefix else head.path
        if path is None:
            return None, None
        host = head.fields.get("HTTP_HOST", "")
        app, _, path = self._apps.find(path, host)
        return app, None if app.rules is None else app.rules.find(head.method, path, host)


def router_for(app: Flask, wsgi: WSGI, limits: Limits, proxy: Proxy) -> Router:
    """Make the router for *app* and its mounts. Raises SettingsError if ENDPOINT_LIMITS names an
    unknown endpoint.
    """
    mounts = wsgi.mounts or ()
    configured = limits.endpoint_limits
    limited = limited_endpoints(app.view_functions, app.blueprints, configured, [mount.key for mount in mounts])
    by_key = dict(configured)
    return Router(
        RoutedApp("", UrlRules.of(app), limited),
        [(mount, _routed(mount, by_key.get(mount.key, EndpointLimits()))) for mount in mounts],
        proxy.url_prefix or "",
    )


def _routed(mount: Mount, whole: EndpointLimits) -> RoutedApp:
    own = EndpointLimits(max_body=mount.max_body)
    app = mount.application
    if not isinstance(app, Flask):
        return RoutedApp(mount.key, None, *limits_in_mount(mount.key, whole, own, {}))
    try:
        limited = limited_endpoints(app.view_functions, app.blueprints, mount.endpoint_limits)
    except SettingsError as error:
        raise error.within(f"The app at {mount.key}") from error
    return RoutedApp(mount.key, UrlRules.of(app), *limits_in_mount(mount.key, whole, own, limited))
