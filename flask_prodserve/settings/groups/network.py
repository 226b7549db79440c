"""Settings of listeners, TLS and reverse proxies."""

from __future__ import annotations

from dataclasses import dataclass

from ... import units
from ..declaration import setting
from ..kinds import (
    ADDRESS,
    BOOLEAN,
    COUNT,
    HOST,
    MODE,
    PATH,
    PATHS,
    PORT,
    TEXT,
    TRUSTED_PEER,
    URL_PREFIX,
    at_least,
    choice,
    several,
)

FORWARDED_FIELDS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
)
"""The fields in which a proxy describes the client and its request."""


@dataclass(frozen=True)
class Bind:
    """Where to listen."""

    bind: tuple[units.Address, ...] | None = setting(
        several(ADDRESS),
        None,
        "Addresses to listen on: HOST:PORT, [IPV6]:PORT, :PORT (every interface), unix:/path, or systemd (its sockets). Repeatable.",
        why="Without BIND the server listens on HOST and PORT. BIND also takes several addresses, Unix sockets, and sockets from systemd.",
        short="-b",
        unset="HOST and PORT",
    )
    host: str = setting(
        HOST,
        "127.0.0.1",
        "The interface to listen on if BIND is not set. '*' is every interface.",
        why=(
            "Loopback only: nothing is reachable from outside unless you ask for it. If the platform sets PORT in the environment "
            "(Heroku, Render, Cloud Run), its router must reach the app, so the default becomes every interface."
        ),
        short="-h",
    )
    port: int = setting(
        PORT,
        "8000",
        "The TCP port to listen on if BIND is not set. With 0 the system chooses.",
        why=(
            "The port of gunicorn and uvicorn. Not 5000, so that `flask run` and `flask serve` can run side by side. "
            "PORT in the environment, which platforms set, is used."
        ),
        short="-p",
    )
    backlog: int = setting(
        at_least(1, COUNT),
        "2048",
        "How many connections may wait in the kernel to be accepted.",
        why=(
            "Enough for a burst while a worker starts. The kernel limits it to net.core.somaxconn (4096 on current Linux). "
            "If the backlog is full, clients see connection timeouts."
        ),
    )
    unix_socket_mode: int = setting(
        MODE,
        "0o660",
        "Permissions of Unix sockets that BIND creates.",
        why=(
            "Connecting needs write permission. Owner and group may connect, others may not: "
            "add the proxy's user (www-data, nginx) to the group that the server runs under."
        ),
    )

    @property
    def addresses(self) -> tuple[units.Address, ...]:
        """The addresses to listen on: BIND, or else HOST and PORT."""
        return self.bind or (units.TCPAddress(self.host, self.port),)


@dataclass(frozen=True)
class TLS:
    """HTTPS without a proxy in front."""

    tls_cert: tuple[str, ...] | None = setting(
        PATHS,
        None,
        "PEM file with the certificate and its chain. Turns HTTPS on (with TLS_KEY). Repeatable: one for each name.",
        why="Off by default: most installations terminate TLS in a proxy or load balancer.",
    )
    tls_key: tuple[str, ...] | None = setting(
        PATHS,
        None,
        "PEM file with the private key of TLS_CERT; one for each, in the same order.",
        why="A file, not the key itself, so that the key is never visible in the environment or in a process list.",
    )
    tls_min_version: str = setting(
        choice("1.2", "1.3"),
        "1.2",
        "The oldest accepted version of TLS.",
        why="1.0 and 1.1 must not be used any more (RFC 8996). Some monitoring tools and older libraries still need 1.2.",
    )
    tls_ciphers: str = setting(
        TEXT,
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "Cipher suites of TLS 1.2, as OpenSSL writes them. TLS 1.3 has its own.",
        why=(
            "Only forward secrecy and authenticated encryption, as in TLS 1.3 and in RFC 9325, section 4.2. Every client of the last "
            "ten years supports them."
        ),
    )
    tls_client_ca: str | None = setting(
        PATH,
        None,
        "PEM file with the authorities that sign client certificates.",
        why="Unset: apps identify people by passwords or tokens. Certificates can identify machines before they send a request.",
    )
    tls_client_cert: str | None = setting(
        choice("none", "optional", "required"),
        None,
        "Whether clients need a certificate signed by TLS_CLIENT_CA: none, optional or required.",
        why=(
            "Required with TLS_CLIENT_CA, so that no other client gets in. With 'optional' the app decides: SSL_CLIENT_VERIFY in the "
            "WSGI environment is SUCCESS or NONE. An invalid certificate is always refused."
        ),
        unset="required if TLS_CLIENT_CA is set, else none",
    )
    tls_redirect_bind: tuple[units.Address, ...] | None = setting(
        several(ADDRESS),
        None,
        "Addresses, such as :80, on which plain HTTP is redirected to https. Repeatable.",
        why="Unset: no port is opened unless you ask for it. Requests there never reach the app; health checks are answered.",
    )

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each certificate with its key; none if HTTPS is off."""
        return tuple(
            zip(self.tls_cert or (), self.tls_key or (), strict=False)
        )  # their numbers are compared in ``rules``

    @property
    def files(self) -> tuple[str, ...]:
        """All files that HTTPS needs; none if it is off."""
        if not self.pairs:
            return ()
        return tuple(path for pair in self.pairs for path in pair) + (
            (self.tls_client_ca,) if self.tls_client_ca else ()
        )

    @property
    def client_cert(self) -> str:
        """``none``, ``optional`` or ``required``."""
        return self.tls_client_cert or ("required" if self.tls_client_ca else "none")


@dataclass(frozen=True)
class Proxy:
    """What the server accepts from reverse proxies."""

    trusted_proxies: tuple[units.IPNetwork | str, ...] | None = setting(
        several(TRUSTED_PEER),
        None,
        "Addresses and networks of your proxies, 'unix' for peers on a Unix socket, '*' for every peer. Repeatable.",
        why=(
            "No peer is trusted by default: a trusted peer decides which client address the app sees. FORWARDED_ALLOW_IPS of gunicorn "
            "and uvicorn is used as well. '*' trusts every peer: use it only if nothing but the proxy can reach the server."
        ),
        unset="none",
    )
    proxy_headers: tuple[str, ...] = setting(
        several(choice(*FORWARDED_FIELDS)),
        ",".join(FORWARDED_FIELDS),
        "The header fields to accept from trusted proxies. Other proxy fields are removed.",
        why=(
            "The fields that proxies set according to Flask's documentation. A field that your proxy does not set comes from the "
            "client: name only those that it sets. Forwarded counts only if the request has no X-Forwarded-* field."
        ),
    )
    proxy_protocol: bool = setting(
        BOOLEAN,
        "false",
        "Whether connections from TRUSTED_PROXIES start with a PROXY header (version 1 or 2), which names the client.",
        why=(
            "For load balancers that forward bytes without header fields (HAProxy's send-proxy, nginx's stream, AWS NLB). Trusted peers "
            "must then send one; otherwise a client behind a balancer that sends none could forge it. Other peers' headers are not read."
        ),
    )
    url_prefix: str | None = setting(
        URL_PREFIX,
        None,
        "The path under which a proxy serves the app, if the proxy does not remove it from requests. Other paths get 404.",
        why=(
            "Unset: the app is at the root, or the proxy removes the prefix and sends it in X-Forwarded-Prefix (which comes before this "
            "one if both are there). Write the app's rules, limits and mounts without it; url_for adds it. "
            "LIVENESS_PATH and READINESS_PATH stay at the root, for checks that ask this server directly."
        ),
    )
