"""Recognizes service links: environment variables that Kubernetes sets in every pod for each
Service of the namespace.

For a Service named ``prodserve`` they start like this server's settings, but are not settings. The
shapes are those of the kubelet (``pkg/kubelet/envvars``) and of Docker's links, which it copies;
upper case, with dashes as underscores. NAME is the Service's::

    NAME_SERVICE_HOST=10.0.0.11            NAME_PORT=tcp://10.0.0.11:8000
    NAME_SERVICE_PORT=8000                 NAME_PORT_8000_TCP=tcp://10.0.0.11:8000
    NAME_SERVICE_PORT_HTTP=8000            NAME_PORT_8000_TCP_ADDR=10.0.0.11, ..._PORT=8000, ..._PROTO=tcp

Both the name and the value must match, so a mistake in a setting is still refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_URL = re.compile(r"(?:tcp|udp|sctp)://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):([0-9]+)", re.ASCII)


def is_service_link(name: str, value: object) -> bool:
    """Return whether *name*, without the settings' prefix, and *value* are a service link.

    *value* may be a number, because ``Config.from_prefixed_env`` reads JSON.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return False
    return any(ending.fullmatch(name) and fits(str(value)) for ending, fits in _SHAPES)


def _is_url(value: str) -> bool:
    match = _URL.fullmatch(value)
    return match is not None and _is_host(match[1] or match[2]) and _is_port(match[3])


def _is_host(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", value, re.ASCII) is not None and int(value) < 1 << 16


def _is_protocol(value: str) -> bool:
    return value in ("tcp", "udp", "sctp")


_SHAPES: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (re.compile(rf"(?:[A-Z0-9_]+_)?{ending}"), fits)
    for ending, fits in {
        r"SERVICE_HOST": _is_host,
        r"SERVICE_PORT(?:_[A-Z0-9_]+)?": _is_port,
        r"PORT(?:_[0-9]+_(?:TCP|UDP|SCTP))?": _is_url,
        r"PORT_[0-9]+_(?:TCP|UDP|SCTP)_ADDR": _is_host,
        r"PORT_[0-9]+_(?:TCP|UDP|SCTP)_PORT": _is_port,
        r"PORT_[0-9]+_(?:TCP|UDP|SCTP)_PROTO": _is_protocol,
    }.items()
)
"""Name endings, after the rest of a Service's name behind ``prodserve``, and checks of their
values.
"""
