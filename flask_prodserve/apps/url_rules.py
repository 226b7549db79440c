"""Finds the URL rule of a request before the app is called."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map, RoutingException, Rule

if TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("flask_prodserve.wsgi")

KNOWN_REQUESTS = 1024
"""How many combinations of method, path and host are cached with their rule."""


class UrlRules:
    """The rules of *url_map* as they are now. *server_name* is the domain of the app's subdomains,
    if it has any.

    Matches on a copy, in which the app's own converters accept whatever their pattern matches: the
    rest of a converter is the app's code, and could wait or fail.
    """

    def __init__(self, url_map: Map, server_name: str | None = None) -> None:
        literal = {rule.rule for rule in url_map.iter_rules() if not rule.arguments}
        self.literal = literal | {path.rstrip("/") for path in literal}
        """The paths of rules without variables, and the paths that the app redirects to them."""
        self.by_host = url_map.host_matching or any(rule.subdomain for rule in url_map.iter_rules())
        """Whether the rules depend on the host."""
        self._server_name = server_name or ""
        self._map = Map(
            [rule.empty() for rule in url_map.iter_rules()],
            default_subdomain=url_map.default_subdomain,
            strict_slashes=url_map.strict_slashes,
            merge_slashes=url_map.merge_slashes,
            redirect_defaults=url_map.redirect_defaults,
            converters={name: _without_code(converter) for name, converter in url_map.converters.items()},
            host_matching=url_map.host_matching,
        )
        self._known = lru_cache(KNOWN_REQUESTS)(self._search)

    @classmethod
    def of(cls, app: Flask) -> UrlRules:
        return cls(app.url_map, app.config["SERVER_NAME"])

    def find(self, method: str, path: str, host: str) -> Rule | None:
        """Return the rule for *method* and *path*, a WSGI string, on *host*, or None."""
        return self._known(method, path, host if self.by_host else "")

    def _search(self, method: str, path: str, host: str) -> Rule | None:
        subdomain = None
        if self.by_host and not self._map.host_matching:
            subdomain = host.partition(":")[0].removesuffix(self._server_name.partition(":")[0]).rstrip(".")
        try:
            adapter = self._map.bind(host, subdomain=subdomain)
            rule, _ = adapter.match(path.encode("latin-1").decode("utf-8", "replace"), method, return_rule=True)
        except (HTTPException, RoutingException):  # also for an invalid host
            return None
        except Exception:
            # At worst a fault in the app's patterns. It must not end the event loop, which asks.
            logger.exception("cannot match a request against the URL rules")
            return None
        return rule


def _without_code(converter: type[BaseConverter]) -> type[BaseConverter]:
    """Return *converter* reduced to its pattern, unless it is one of Werkzeug's."""
    if converter.__module__.startswith("werkzeug."):
        return converter
    return type(converter.__name__, (converter,), {"to_python": BaseConverter.to_python})
