"""What is known of the apps before they are called: their URL rules and limits, for the engine to ask."""

from __future__ import annotations

from flask import Flask

from ..settings import Settings, SettingsError
from ..settings.endpoint_limits import EndpointLimits
from ..settings.mounts import Mount
from ..wsgi.limits import endpoints, within_mount
from ..wsgi.lookup import Lookup, Site
from ..wsgi.routes import Routes


def served_apps(app: Flask, settings: Settings) -> list[Flask]:
    """*app*, and the Flask apps that are mounted beside it, each once."""
    mounted = [mount.application for mount in settings.wsgi.mounts or ()]
    return list(dict.fromkeys([app, *(one for one in mounted if isinstance(one, Flask))]))


def lookup_for(app: Flask, settings: Settings) -> Lookup:
    """Raises SettingsError where an ENDPOINT_LIMITS names endpoints that are not there."""
    mounts = settings.wsgi.mounts or ()
    configured = settings.limits.endpoint_limits
    bounded = endpoints(app.view_functions, app.blueprints, configured, [mount.key for mount in mounts])
    whole = dict(configured)
    return Lookup(
        Site("", _routes(app), bounded),
        [(mount, _site(mount, whole.get(mount.key, EndpointLimits()))) for mount in mounts],
        settings.proxy.url_prefix or "",
    )


def _site(mount: Mount, whole: EndpointLimits) -> Site:
    own = EndpointLimits(max_body=mount.max_body)
    app = mount.application
    if not isinstance(app, Flask):
        return Site(mount.key, None, *within_mount(mount.key, whole, own, {}))
    try:
        bounded = endpoints(app.view_functions, app.blueprints, mount.endpoint_limits)
    except SettingsError as error:
        raise error.within(f"The app at {mount.key}") from error
    return Site(mount.key, _routes(app), *within_mount(mount.key, whole, own, bounded))


def _routes(app: Flask) -> Routes:
    return Routes(app.url_map, app.config["SERVER_NAME"])
