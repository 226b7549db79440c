"""Which URL rule a request belongs to, before the app is called."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RoutingException

KNOWN_REQUESTS = 1024
"""Pairs of method and path whose rule is kept."""


class Routes:
    """The rules of *url_map*, as they are when a request is first seen."""

    def __init__(self, url_map: Map) -> None:
        self._map = url_map
        self._adapter = url_map.bind("")
        self.kind = lru_cache(KNOWN_REQUESTS)(self._kind)

    def _kind(self, method: str, path: str) -> Hashable:
        """What stands for all requests of the same rule: the rule, or the path where there is none. *path* is a WSGI string.

        In an app with converters of its own, each path stands for itself: converters are the app's code, and could wait or fail.
        """
        if self._map.converters.keys() - Map.default_converters.keys():
            return method, path
        try:
            rule, _ = self._adapter.match(path.encode("latin-1").decode("utf-8", "replace"), method, return_rule=True)
        except (HTTPException, RoutingException):
            return method, path
        return method, rule.rule
