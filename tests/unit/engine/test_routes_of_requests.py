"""When a request's route is looked for: in the event loop, while other clients wait."""

from __future__ import annotations

import logging

import pytest
from flask import Flask

from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.exchange.request import Request
from flask_prodserve.extension import resolve_for
from flask_prodserve.protocol.request_head import RequestHead
from flask_prodserve.settings import arguments
from flask_prodserve.settings.endpoint_limits import Endpoint, EndpointLimits, Route


@pytest.mark.parametrize(("has_limits", "looked_for", "limits"), [(False, 0, None), (True, 1, 5.0)])
def test_limits(has_limits: bool, looked_for: int, limits: float | None) -> None:
    """The limits of a request cost one look for its route, and none if no endpoint has limits."""
    looks: list[str] = []

    def route_of(head: RequestHead) -> Route:
        looks.append(head.path)
        return Route("kind", Endpoint("endpoint", EndpointLimits(timeout=5.0)))

    settings = resolve_for(Flask("routes"), [arguments({}, "test")]).settings
    context = EngineContext.of(
        Flask("routes"), settings, error_logger=logging.getLogger("routes"), route_of=route_of, has_limits=has_limits
    )
    request = Request(context)
    request.received(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n")
    assert [request.limits.timeout for _ in range(3)] == [limits] * 3
    assert looks == ["/x"] * looked_for
    request.close()
