"""WSGI middleware that finds the client and the URL of a request behind reverse proxies.

Rules:

- What a peer that is not trusted says about itself is removed, never applied.
- What a trusted peer says is applied to REMOTE_ADDR, REMOTE_PORT, wsgi.url_scheme, HTTP_HOST,
  SERVER_NAME, SERVER_PORT and SCRIPT_NAME. Its fields are then removed as well, so that the app
  sees one truth and its own ProxyFix, if any, does not apply them twice.
- X-Forwarded-* fields win over Forwarded: most proxies set X-Forwarded-* and pass a client's
  Forwarded through untouched.
- :mod:`.forwarded_fields` reads the fields, and decides which value in a list counts.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..clock import Clock, Throttle, monotonic
from ..settings.groups.network import FORWARDED_FIELDS
from ..units import IPNetwork, is_the_internet
from .forwarded_fields import MalformedFieldError, Origin, read_forwarded, read_x_forwarded, split_host

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

logger = logging.getLogger("flask_prodserve.proxy")

_KEYS = {field: "HTTP_" + field.upper().replace("-", "_") for field in FORWARDED_FIELDS}

MISLEADING_KEYS = frozenset(
    {
        *_KEYS.values(),
        "HTTP_X_FORWARDED_BY",  # the proxy's own address or name; waitress treats it as a proxy field
        "HTTP_X_FORWARDED_SERVER",  # the same, from Apache's mod_proxy and Traefik
        "HTTP_X_FORWARDED_SSL",  # "on": https, as gunicorn reads it by default
        "HTTP_X_FORWARDED_PROTOCOL",  # "ssl": the same
        "HTTP_X_FORWARDED_SCHEME",  # the scheme, in some nginx configurations
        "HTTP_X_FORWARDED_PATH",  # this and the next: the requested URL, from Kong and from Traefik
        "HTTP_X_FORWARDED_URI",
        "HTTP_X_FORWARDED_USER",  # this and the next four: the logged-in user, from oauth2-proxy
        "HTTP_X_FORWARDED_EMAIL",
        "HTTP_X_FORWARDED_GROUPS",
        "HTTP_X_FORWARDED_PREFERRED_USERNAME",
        "HTTP_X_FORWARDED_ACCESS_TOKEN",
        "HTTP_X_FORWARDED_CLIENT_CERT",  # the client's certificate, from Envoy
        "HTTP_X_FORWARDED_TLS_CLIENT_CERT",  # the same and its contents, from Traefik
        "HTTP_X_FORWARDED_TLS_CLIENT_CERT_INFO",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",  # the client's own X-Forwarded-For, from Kubernetes' ingress-nginx
        "HTTP_X_ORIGINAL_HOST",  # the host, from Azure's gateway
        "HTTP_X_CLIENT_IP",  # this and the next: the client, as libraries that look up its address read it
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_FRONT_END_HTTPS",  # "on": https, from Microsoft's proxies
        "HTTP_X_REAL_IP",  # the client, in almost every example for nginx
        "HTTP_X_SCHEME",  # this and the next: read by the "ReverseProxied" middleware of many Flask apps
        "HTTP_X_SCRIPT_NAME",
        "HTTP_X_URL_SCHEME",  # the scheme, in older configurations
    }
)
"""Environment keys that are removed if the peer is not trusted, because apps believe that a proxy
set them.

From a trusted peer, those that are not in FORWARDED_FIELDS reach the app: only the app knows
whether its proxy sets them. Fields of one vendor's network (CF-Connecting-IP, True-Client-IP) are
kept: an app reads them only if it runs behind that vendor.
"""

_DEFAULT_PORTS = {"http": "80", "https": "443"}

QUIET_SECONDS = 60.0
"""Minimum time between two log lines about a malformed field. Any client can send one if a proxy
passes it on.
"""

_CACHED_PEERS = 1024
_LOGGED_CHARACTERS = 200


class PeerTrust:
    """The trusted peers: networks, ``unix`` (peers on a Unix socket) and ``*`` (every peer), as in
    TRUSTED_PROXIES.

    An IPv4-mapped IPv6 address also counts as the IPv4 address. A zone (``fe80::1%eth0``) is
    ignored.
    """

    def __init__(self, trusted: tuple[IPNetwork | str, ...]) -> None:
        self._every_peer = "*" in trusted
        self._unix_peers = self._every_peer or "unix" in trusted
        networks = [network for network in trusted if not isinstance(network, str)]
        proxies = [network for network in networks if not is_the_internet(network)]
        self._is_peer = _search(networks)
        self._is_proxy = _search(proxies)

    def covers(self, remote_addr: str) -> bool:
        """Return whether the peer at *remote_addr*, ``""`` for a Unix socket, is trusted."""
        if not remote_addr:
            return self._unix_peers
        return self._every_peer or self._is_peer(remote_addr)

    def is_proxy(self, address: str) -> bool:
        """Return whether *address*, which a trusted proxy named as its own peer, is another trusted
        proxy.

        ``*`` does not make it one. ``*`` says that only proxies can connect to this server; any
        client can connect to the proxies. To look past such a client's address would be to believe
        what it wrote into the field. The same holds for a network that stands for every client,
        such as 0.0.0.0/0.
        """
        return self._is_proxy(address)


def _search(networks: Sequence[IPNetwork]) -> Callable[[str], bool]:
    """Return a function that tells whether an address is in one of *networks*."""
    if not networks:
        return lambda text: False

    @lru_cache(maxsize=_CACHED_PEERS)
    def search(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any(address in network or (mapped is not None and mapped in network) for network in networks)

    return search


class Forwarded:
    """WSGI middleware that applies *fields* (see FORWARDED_FIELDS) from peers that *trust* covers.

    Name in *fields* only what your proxies set themselves: the client wrote what they only pass on.

    X-Forwarded-Prefix goes before SCRIPT_NAME, and PATH_INFO is unchanged, as with Werkzeug's
    ProxyFix: the proxy must have removed the prefix from the path. If it does not, the prefix
    belongs to the app's own URLs and must not be in this field.

    *undecided*: TRUSTED_PROXIES is not set, so log the first peer that looks like a proxy.
    """

    def __init__(
        self,
        app: WSGIApplication,
        trust: PeerTrust,
        fields: frozenset[str],
        *,
        undecided: bool = False,
        clock: Clock = monotonic,
    ) -> None:
        self._app = app
        self._trust = trust
        self._fields = fields
        self._undecided = undecided
        self._throttle = Throttle(QUIET_SECONDS, clock)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        peer: str = environ["REMOTE_ADDR"]
        if not self._trust.covers(peer):
            misleading = environ.keys() & MISLEADING_KEYS
            if misleading and self._undecided and _is_near(peer):
                self._undecided = False
                _suggest_trust(peer, min(misleading))
            for key in misleading:
                del environ[key]
            return self._app(environ, start_response)
        try:
            apply_forwarded(environ, self._fields, self._trust)
        except MalformedFieldError as error:
            if (more := self._throttle.passes(error.field)) is not None:
                _log_malformed(error, peer, more)
            return _refuse(error, start_response)
        return self._app(environ, start_response)


def apply_forwarded(environ: dict[str, Any], fields: frozenset[str], trust: PeerTrust) -> None:
    """Apply and remove the proxy *fields* in *environ*, which came from a trusted peer. Raises
    MalformedFieldError.
    """
    given = {field: environ.pop(key) for field, key in _KEYS.items() if key in environ}
    if given:
        _apply(_origin({field: value for field, value in given.items() if field in fields}, trust), environ)


def _origin(given: dict[str, str], trust: PeerTrust) -> Origin:
    forwarded = given.pop("forwarded", "")
    if any(given.values()):
        return read_x_forwarded(given, trust.is_proxy)
    if forwarded:
        return read_forwarded(forwarded, trust.is_proxy)
    return Origin()


def _apply(origin: Origin, environ: dict[str, Any]) -> None:
    if origin.client is not None:
        environ["REMOTE_ADDR"] = origin.client.address
        environ.pop("REMOTE_PORT", None)
        if origin.client.port:
            environ["REMOTE_PORT"] = origin.client.port
    if origin.scheme:
        environ["wsgi.url_scheme"] = origin.scheme
    if origin.prefix:
        environ["SCRIPT_NAME"] = origin.prefix + environ.get("SCRIPT_NAME", "")
    if origin.scheme or origin.host or origin.port:
        _apply_authority(origin, environ)


def _apply_authority(origin: Origin, environ: dict[str, Any]) -> None:
    """Make HTTP_HOST, SERVER_NAME and SERVER_PORT agree, so that a URL built from any of them is
    right.

    The port is X-Forwarded-Port, else that of the forwarded host, else that of the Host field if no
    host was forwarded, else the scheme's. As with ProxyFix, a forwarded host without a port means
    the scheme's port, whatever the Host field says.
    """
    host = (origin.host, "") if origin.host else split_host(environ.get("HTTP_HOST", ""))
    if host is None:  # HTTP/1.0 without Host: only the server's own name is known
        if origin.port:
            environ["SERVER_PORT"] = origin.port
        return
    name, port = host
    default = _DEFAULT_PORTS[environ["wsgi.url_scheme"]]
    port = origin.port or port or default
    environ["HTTP_HOST"] = name if port == default else f"{name}:{port}"
    environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = port


def _is_near(peer: str) -> bool:
    """Return whether *peer* is on this machine or its network, as proxies are. Clients on the
    Internet can send any field.
    """
    return not peer or ipaddress.ip_address(peer.partition("%")[0]).is_private


def _suggest_trust(peer: str, key: str) -> None:
    logger.warning(
        "removed %s from %s, so the app does not see the client's address. If that peer is your proxy, set TRUSTED_PROXIES=%s",
        key.removeprefix("HTTP_").replace("_", "-").title(),
        peer or "a Unix socket",
        peer or "unix",
    )


def _log_malformed(error: MalformedFieldError, peer: str, more: int) -> None:
    logger.warning(
        "rejected a request with 400: %s from %s is malformed: %s%s",
        error.field.title(),
        peer or "a Unix socket",
        ascii(error.value[:_LOGGED_CHARACTERS]),
        f" ({more} more since the last such line)" if more else "",
    )


def _refuse(error: MalformedFieldError, start_response: StartResponse) -> Iterable[bytes]:
    field = error.field.title()
    body = f"The {field} header field of this request is malformed.\n".encode("ascii")
    fields = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("400 Bad Request", fields)
    return [body]
