"""Who the client is, and which URL it asked for, where a reverse proxy is in between.

Rules:

- What a peer that is not trusted says of itself is removed, never applied.
- What a trusted peer says is applied to REMOTE_ADDR, REMOTE_PORT, wsgi.url_scheme, HTTP_HOST, SERVER_NAME, SERVER_PORT and
  SCRIPT_NAME, and removed as well: the app sees one truth, and a ProxyFix that is still around it has nothing to apply twice.
- X-Forwarded-* fields that are to be applied win over Forwarded, which is then ignored: a proxy in the field sets X-Forwarded-* and
  passes a client's Forwarded through untouched.
- How the fields are read, and whose values in a list count, is in :mod:`.forwarded_fields`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..clock import Clock, Throttle, monotonic
from ..settings.table import FORWARDED_FIELDS
from ..units import IPNetwork, is_the_internet
from .forwarded_fields import MalformedFieldError, Origin, read_forwarded, read_x_forwarded, split_host

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

logger = logging.getLogger("flask_prodserve.proxy")

_KEYS = {field: "HTTP_" + field.upper().replace("-", "_") for field in FORWARDED_FIELDS}

MISLEADING_KEYS = frozenset(
    {
        *_KEYS.values(),
        "HTTP_X_FORWARDED_BY",  # the proxy's own address or name; waitress counts it among the proxies' fields
        "HTTP_X_FORWARDED_SERVER",  # the same, from Apache's mod_proxy and Traefik
        "HTTP_X_FORWARDED_SSL",  # "on": https, as gunicorn reads it by default
        "HTTP_X_FORWARDED_PROTOCOL",  # "ssl": the same
        "HTTP_X_FORWARDED_SCHEME",  # the scheme, in set-ups for nginx
        "HTTP_X_FORWARDED_PATH",  # this and the next: what was asked for, from Kong and from Traefik
        "HTTP_X_FORWARDED_URI",
        "HTTP_X_FORWARDED_USER",  # this and the next: who has logged in, from oauth2-proxy
        "HTTP_X_FORWARDED_EMAIL",
        "HTTP_X_FORWARDED_GROUPS",
        "HTTP_X_FORWARDED_PREFERRED_USERNAME",
        "HTTP_X_FORWARDED_ACCESS_TOKEN",
        "HTTP_X_FORWARDED_CLIENT_CERT",  # the client's certificate, from Envoy
        "HTTP_X_FORWARDED_TLS_CLIENT_CERT",  # the same and what it says, from Traefik
        "HTTP_X_FORWARDED_TLS_CLIENT_CERT_INFO",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",  # the client's own X-Forwarded-For, from Kubernetes' ingress-nginx
        "HTTP_X_ORIGINAL_HOST",  # the host, from Azure's gateway
        "HTTP_X_CLIENT_IP",  # this and the next: the client, as libraries that look for its address read it
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_FRONT_END_HTTPS",  # "on": https, as Microsoft's proxies have it
        "HTTP_X_REAL_IP",  # the client, in almost every example for nginx
        "HTTP_X_SCHEME",  # this and the next: read by the "ReverseProxied" middleware that many Flask apps carry
        "HTTP_X_SCRIPT_NAME",
        "HTTP_X_URL_SCHEME",  # the scheme, in older set-ups
    }
)
"""What is removed from the environment of a request whose peer is not trusted: apps take it for a proxy's word.

Those that are not of FORWARDED_FIELDS reach the app from a trusted peer: only the app knows whether its proxy sets them. Fields of one
vendor's network (CF-Connecting-IP, True-Client-IP) are left alone: nobody reads them without that vendor in mind.
"""

_DEFAULT_PORTS = {"http": "80", "https": "443"}

QUIET_SECONDS = 60.0
"""How long nothing more is logged of a malformed field. Every client can send one if a proxy passes it on."""

_CACHED_PEERS = 1024
_LOGGED_CHARACTERS = 200


class PeerTrust:
    """The peers whose word is taken: networks, ``unix`` (peers on a Unix socket) and ``*`` (every peer), as in TRUSTED_PROXIES.

    An IPv4-mapped IPv6 address counts as the IPv4 address too; a zone (``fe80::1%eth0``) is not looked at.
    """

    def __init__(self, trusted: tuple[IPNetwork | str, ...]) -> None:
        self._every_peer = "*" in trusted
        self._unix_peers = self._every_peer or "unix" in trusted
        networks = [network for network in trusted if not isinstance(network, str)]
        proxies = [network for network in networks if not is_the_internet(network)]
        self._is_peer = _search(networks)
        self._is_proxy = _search(proxies)

    def covers(self, remote_addr: str) -> bool:
        """Whether the peer at *remote_addr*, ``""`` for a Unix socket, is trusted."""
        if not remote_addr:
            return self._unix_peers
        return self._every_peer or self._is_peer(remote_addr)

    def is_proxy(self, address: str) -> bool:
        """Whether *address*, which a trusted proxy named as its own peer, is one more trusted proxy.

        ``*`` does not make it one. It says that nobody but proxies can connect here; whoever connects to the proxies may be anybody,
        and to look past that address would be to believe what its owner wrote into the field. The same holds for a network that stands
        for every client, such as 0.0.0.0/0.
        """
        return self._is_proxy(address)


def _search(networks: Sequence[IPNetwork]) -> Callable[[str], bool]:
    """A function that tells whether an address is in one of *networks*."""
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
    """WSGI middleware that applies those of *fields* (see FORWARDED_FIELDS) that come from peers whom *trust* covers.

    Name in *fields* only what your proxies set themselves: what they merely pass on was written by the client.

    X-Forwarded-Prefix goes before SCRIPT_NAME, and PATH_INFO stays as it is, as with Werkzeug's ProxyFix: the proxy must have removed
    the prefix from the path. Where it does not, the prefix is part of the app's own URLs and must not be in this field.

    *undecided*: nobody has said yet who is trusted, and the first peer that looks like a proxy is worth a line in the log.
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
                _say_whom_to_trust(peer, min(misleading))
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
    """Do what :class:`Forwarded` does for a peer whom *trust* covers. Raises MalformedFieldError."""
    said = {field: environ.pop(key) for field, key in _KEYS.items() if key in environ}
    if said:
        _apply(_origin({field: value for field, value in said.items() if field in fields}, trust), environ)


def _origin(said: dict[str, str], trust: PeerTrust) -> Origin:
    forwarded = said.pop("forwarded", "")
    if any(said.values()):
        return read_x_forwarded(said, trust.is_proxy)
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
    """Make HTTP_HOST, SERVER_NAME and SERVER_PORT say the same, so that a URL is right whichever of them it is built from.

    The port is X-Forwarded-Port, or that of the forwarded host, or that of the Host field where no host was forwarded, or the scheme's.
    As with ProxyFix a forwarded host without a port means the scheme's, whatever the Host field says.
    """
    host = (origin.host, "") if origin.host else split_host(environ.get("HTTP_HOST", ""))
    if host is None:  # HTTP/1.0 without Host, so that only the server's own name is left
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
    """Whether *peer* is where proxies are: on this machine or its network. From the Internet come clients, who write what they like."""
    return not peer or ipaddress.ip_address(peer.partition("%")[0]).is_private


def _say_whom_to_trust(peer: str, key: str) -> None:
    logger.warning(
        "%s from %s was removed: the app does not see the client behind it. If that is your proxy, set TRUSTED_PROXIES=%s",
        key.removeprefix("HTTP_").replace("_", "-").title(),
        peer or "a Unix socket",
        peer or "unix",
    )


def _log_malformed(error: MalformedFieldError, peer: str, more: int) -> None:
    logger.warning(
        "%s from %s is malformed: %s%s",
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
