"""THE table: every setting once, with its type, its default, and why the default is what it is.

A setting is a field of one of the frozen groups below, declared with :func:`setting`. Its name in capitals is its name everywhere:
``PRODSERVE_<NAME>`` in ``app.config`` and in the environment, ``--name`` on the command line, ``name=`` in Python. Everything else
(options, help, ``flask serve config``, the reference in the docs) is generated from here. A part of the server is handed its group,
never the whole.

Defaults are written as people write them and go through the same parser as everybody's values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .. import units
from .endpoint_limits import EndpointLimits
from .kinds import (
    ACCOUNT,
    ADDRESS,
    AGE,
    BOOLEAN,
    CONTROL_SOCKET,
    COUNT,
    DURATION,
    ENDPOINT_LIMITS,
    HOST,
    LOG,
    MODE,
    MOUNTS,
    PATH,
    PATHS,
    PORT,
    SIZE,
    SWITCH,
    TEXT,
    TRUSTED_PEER,
    UMASK,
    URL_PATH,
    URL_PREFIX,
    WORKERS,
    X_ACCEL,
    Kind,
    at_least,
    at_least_or_zero,
    choice,
    several,
)
from .mounts import Mount

PREFIX = "PRODSERVE_"

FORWARDED_FIELDS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
)
"""The fields in which a proxy says who the client is and what it asked for."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the table says of a setting; *default* is raw, ``None`` for one that is unset unless somebody sets it.

    An *early* one is obeyed before the app is loaded, so that the app cannot give it.
    """

    kind: Kind
    default: str | None
    summary: str
    why: str
    short: str | None
    unset: str
    on_command_line: bool
    early: bool
    option: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table under its name, such as ``MAX_BODY_SIZE``."""

    name: str
    group: str
    declaration: Declaration

    @property
    def key(self) -> str:
        """The name in ``app.config`` and in the environment."""
        return PREFIX + self.name

    @property
    def argument(self) -> str:
        """The keyword of ``ProdServe(app, ...)`` and ``serve(app, ...)``."""
        return self.name.lower()

    @property
    def option(self) -> str:
        """The option of ``flask serve``."""
        return self.declaration.option or "--" + self.name.lower().replace("_", "-")

    def write(self, value: Any) -> str:
        """*value* as a person would write it; for an unset one, what that means."""
        return self.declaration.unset if value is None else self.declaration.kind.write(value)


def setting(
    kind: Kind,
    default: str | None,
    summary: str,
    *,
    why: str,
    short: str | None = None,
    unset: str = "unset",
    on_command_line: bool = True,
    early: bool = False,
    option: str | None = None,
) -> Any:
    """Declare a field of a group as a setting. *option*: where the command line has another name for it than everybody else."""
    declaration = Declaration(kind, default, summary, why, short, unset, on_command_line, early, option)
    return field(
        default=None if default is None else kind.parse(default),
        metadata={"declaration": declaration},
    )


@dataclass(frozen=True)
class Bind:
    """Where to listen."""

    bind: tuple[units.Address, ...] | None = setting(
        several(ADDRESS),
        None,
        "Addresses to listen on: HOST:PORT, [IPV6]:PORT, :PORT (every interface), unix:/path, or systemd (its sockets). Repeatable.",
        why="Without BIND the server listens on HOST and PORT. BIND can say more: several addresses, Unix sockets, what systemd passes.",
        short="-b",
        unset="HOST and PORT",
    )
    host: str = setting(
        HOST,
        "127.0.0.1",
        "The interface to listen on, where BIND is not set. '*' is every interface.",
        why=(
            "Loopback only: nothing is reachable from outside unless you ask for it. Where the platform gives PORT in the environment "
            "(Heroku, Render, Cloud Run), its router must reach the app, so the default becomes every interface."
        ),
        short="-h",
    )
    port: int = setting(
        PORT,
        "8000",
        "The TCP port to listen on, where BIND is not set. 0 lets the system choose.",
        why=(
            "What gunicorn and uvicorn use, and not 5000, so that `flask run` and `flask serve` can run side by side. "
            "PORT in the environment, as platforms set it, is honoured."
        ),
        short="-p",
    )
    backlog: int = setting(
        at_least(1, COUNT),
        "2048",
        "How many connections may wait in the kernel to be accepted.",
        why=(
            "Enough for a burst while a worker starts; the kernel cuts it to net.core.somaxconn (4096 on current Linux). "
            "A full backlog shows as connection time-outs on the client's side."
        ),
    )
    unix_socket_mode: int = setting(
        MODE,
        "0o660",
        "Permissions of Unix sockets that BIND creates.",
        why=(
            "Connecting needs write permission. Owner and group may connect, others may not: "
            "put the proxy's user (www-data, nginx) into the group that the server runs under."
        ),
    )

    @property
    def addresses(self) -> tuple[units.Address, ...]:
        """Where to listen: BIND, or else HOST and PORT."""
        return self.bind or (units.TCPAddress(self.host, self.port),)


@dataclass(frozen=True)
class Workers:
    """How much runs at the same time, and for how long a process is kept."""

    workers: int | str = setting(
        WORKERS,
        "1",
        "How many processes serve, each with its own THREADS; 'auto': one for each processor that may be used, within cgroup limits.",
        why=(
            "One: what an app keeps in memory (caches, counters, sessions) is the same for every request. Apps that compute use one "
            "processor in each process. WEB_CONCURRENCY is honoured. 0, from the command line or the environment, is a single process "
            "without a supervisor, as on Windows: nothing replaces it."
        ),
        short="-w",
    )
    threads: int = setting(
        at_least(1, COUNT, at_most=10_000),  # a system has some ten thousand threads for all its processes
        "16",
        "How many requests run at the same time in one process.",
        why=(
            "As many as SQLAlchemy's default pool serves (5 and 10 overflow) and one to spare. More helps apps that wait "
            "(for other services), not apps that compute."
        ),
    )
    preload: bool = setting(
        BOOLEAN,
        "false",
        "Load the app once, in the supervisor, and let the workers share its memory.",
        why=(
            "Off: connections and threads that an app opens while it is imported do not survive a fork, and new code takes a new "
            "supervisor. Apps that are made for it save memory and start their workers at once. Not together with USER."
        ),
        early=True,
    )
    boot_timeout: float = setting(
        at_least(1, DURATION),
        "60s",
        "How long a worker may take to load the app and to be ready. Beyond, it is killed and counts as failed.",
        why=(
            "An import that waits for a database that is not there would wait for ever, and a reload with it. Large apps and slow disks "
            "take tens of seconds."
        ),
        early=True,
    )
    worker_timeout: float = setting(
        at_least_or_zero(2, DURATION),  # a worker reports every half second
        "30s",
        "How long a worker may report nothing to the supervisor. Beyond, it is replaced by force. 0 is no limit.",
        why=(
            "For processes that are stuck as a whole (a C library that keeps the GIL): the main thread, which runs no requests, reports "
            "every half second, so that no slow view counts as one. Those have REQUEST_TIMEOUT."
        ),
    )
    max_requests: int = setting(
        at_least(0, COUNT),
        "0",
        "After how many requests a worker is replaced by a new one, gracefully. 0 is never.",
        why="Off: a worker that leaks wants to be mended. Until then MAX_WORKER_MEMORY says more than a count does.",
    )
    max_requests_jitter: int = setting(
        at_least(0, COUNT),
        "0",
        "Up to how many requests are added to MAX_REQUESTS, for each worker at random.",
        why="Off, as MAX_REQUESTS is. Workers share the load evenly, so without it they would reach the count in the same minute.",
    )
    max_worker_memory: int = setting(
        at_least_or_zero(32 * 2**20, SIZE),  # less than Python with Flask; "300" was meant to be MiB
        "0",
        "Most resident memory of a worker. Beyond, it is replaced by a new one, gracefully. 0 is no limit.",
        why="Off: only you know what your app needs. A little below the container's limit, it comes before the kernel's killer does.",
    )
    max_worker_lifetime: float = setting(
        at_least_or_zero(1, DURATION),
        "0s",
        "After how long a worker is replaced by a new one, gracefully. 0 is never.",
        why="Off: a worker that is well need not go. Workers are replaced one after another, each by one that is ready.",
    )


@dataclass(frozen=True)
class Process:
    """Who the server is on its system."""

    user: str | None = setting(
        ACCOUNT,
        None,
        "The account that workers run under, by name or number, where the server is started as root.",
        why=(
            "Unset: containers and systemd start a server as who it should be. Started as root, the supervisor opens the listeners and "
            "keeps its rights; workers give theirs up for good before they load the app. "
            "A server of one process cannot, and refuses USER and GROUP."
        ),
        unset="the account that starts the server",
        early=True,
    )
    group: str | None = setting(
        ACCOUNT,
        None,
        "The group that workers run under, by name or number.",
        why="USER's own group, and all others that USER is in, are what a login would have.",
        unset="USER's own group",
        early=True,
    )
    umask: int | None = setting(
        UMASK,
        None,
        "Which permissions the files that the app creates do not have, in octal.",
        why="Unset: what the shell, container or systemd says. 0o027 keeps uploads from all others, 0o007 lets the group write them.",
        unset="unchanged",
        early=True,
    )
    pidfile: str | None = setting(
        PATH,
        None,
        "A file for the server's process id (the supervisor's, where there is one), removed when it stops.",
        why="Unset: systemd and containers know the process that they started. The id stays the same through reloads and upgrades.",
        early=True,
    )


@dataclass(frozen=True)
class Limits:
    """What one client may ask for."""

    max_request_line: int = setting(
        at_least(64, SIZE),
        "8190",
        "Longest request line (method, path and query), in bytes. Beyond: 414.",
        why="Apache's LimitRequestLine. Bounds the memory and time that an unauthenticated client can cost.",
    )
    max_header_size: int = setting(
        at_least(256, SIZE),
        "32KiB",
        "Largest request head (request line and all header fields), in bytes. Beyond: 431.",
        why=(
            "nginx takes 32 KiB (4 buffers of 8 KiB). Large cookies and Kerberos tickets fit; "
            "a head that never ends does not eat memory."
        ),
    )
    max_header_count: int = setting(
        at_least(1, COUNT),
        "100",
        "Most header fields in a request. Beyond: 431.",
        why="Apache's LimitRequestFields. Browsers send about 20; thousands of tiny fields are an attack on memory and CPU.",
    )
    max_body_size: int = setting(
        at_least(0, SIZE),
        "32MiB",
        "Largest request body, in bytes. Beyond: 413, before the body is read where its length is announced. 0 lets none in.",
        why=(
            "The app's own MAX_CONTENT_LENGTH is used where it is set. Without either, 32 MiB holds forms, photos and documents, "
            "and a client cannot fill the disk with one request."
        ),
    )
    max_connections: int = setting(
        at_least(1, COUNT),
        "1000",
        "Most open client connections. Beyond, a silent or the longest idle one is closed for a new one; if there is none, that gets 503.",
        why=(
            "An idle connection costs a file descriptor and a few kilobytes. The limit of open files is raised as far as the system "
            "allows; where that is not enough, fewer connections are taken, and a warning says so."
        ),
    )
    max_connections_per_client: int = setting(
        at_least(0, COUNT),
        "0",
        "Most open connections of one address (of one /64 network in IPv6). Beyond, new ones get 503. 0 is no limit.",
        why=(
            "Off: whole companies share an address. Peers in TRUSTED_PROXIES and on Unix sockets, which speak for many, are exempt; "
            "with PROXY_PROTOCOL, the clients that they name are counted."
        ),
    )
    max_keepalive_requests: int = setting(
        at_least(1, COUNT),
        "1000",
        "Most requests on one connection, which is closed after the last.",
        why="nginx's keepalive_requests. Connections that live for ever would stay with one process, however busy it is.",
    )
    max_streams: int = setting(
        at_least(0, COUNT, at_most=10_000),  # each has a thread
        "64",
        "Most responses that stream for more than a second and do not count against THREADS. Those beyond do.",
        why=(
            "Event streams and long downloads hold a thread for as long as they last; 16 of them would leave none for other requests. "
            "Each has a thread of its own, so they need a bound."
        ),
    )
    max_spool: int = setting(
        at_least(2**20, SIZE),
        "1GiB",
        "Most bytes of request bodies, and of responses that clients have not taken yet, in memory and on disk together.",
        why=(
            "Thousands of clients that send or take slowly would fill the disk. Near the bound the slowest clients with the most bytes are "
            "cut first, in either direction; at the bound new bodies get 503. A 64th of it, 16 MiB, holds request bodies in memory; what "
            "is more goes to disk at once."
        ),
    )
    endpoint_limits: tuple[tuple[str, EndpointLimits], ...] = setting(
        ENDPOINT_LIMITS,
        "{}",
        "Limits of endpoints, by endpoint name, 'blueprint.*' or a mount's path: timeout, max_body, max_concurrency, queue_timeout.",
        why="The same as the decorator limits() of ProdServe, and stronger, so that whoever runs an app can bound it without changing it.",
        on_command_line=False,
    )


@dataclass(frozen=True)
class Timeouts:
    """How long things may take."""

    header_timeout: float = setting(
        at_least(0.1, DURATION),
        "15s",
        "How long a request head may take from its first byte, on a new connection from the start. Beyond: 408.",
        why=(
            "Slow loris: a client that sends a byte now and then would hold its connection for ever. The whole head has to be there, "
            "so a drip does not extend it; browsers send it in one packet."
        ),
    )
    body_timeout: float = setting(
        at_least(0.1, DURATION),
        "30s",
        "How long a client may send nothing in the middle of a request body. Beyond: 408.",
        why="Slow POST. Long enough for a phone in a tunnel.",
    )
    min_body_rate: int = setting(
        at_least(0, SIZE),
        "240",
        "Least rate of a request body, in bytes a second over about ten seconds. Below: 408. 0 is no limit.",
        why=(
            "A slow POST that sends a byte before every timeout. Kestrel's value: slower than any modem, faster than a drip. A body has 5 "
            "seconds to reach it, and what came faster makes up for 5 seconds, so that a quick beginning does not excuse a drip."
        ),
    )
    send_timeout: float = setting(
        at_least(0.1, DURATION),
        "30s",
        "How long a client may take nothing of a response that waits for it. Beyond, the connection is reset.",
        why="Slow read: what is not taken occupies memory and disk. What the client's system acknowledges counts.",
    )
    min_send_rate: int = setting(
        at_least(0, SIZE),
        "240",
        "Least rate at which a client takes a response that waits for it, in bytes a second over about ten seconds. 0 is no limit.",
        why="A slow read that takes a byte before every timeout. Only time in which the client could take something counts.",
    )
    keepalive_timeout: float = setting(
        at_least(1, DURATION),
        "100s",
        "How long a connection may stay open without a request.",
        why=(
            "Longer than the idle time of the load balancers in front (Heroku's router 90s, AWS's ALB 60s): if the server "
            "closed first, a request sent at that moment would fail with 502."
        ),
    )
    request_timeout: float = setting(
        DURATION,
        "60s",
        "How long the app may take until its response begins. Beyond: 504, and the log shows where it is. 0 is no limit.",
        why=(
            "A view that hangs would hold its thread for ever. The thread cannot be killed; another takes its place. "
            "A response that has begun is not cut, however long it takes."
        ),
    )
    request_timeout_raise: bool = setting(
        BOOLEAN,
        "false",
        "At REQUEST_TIMEOUT, raise flask_prodserve.errors.RequestTimedOut inside the view as well.",
        why=(
            "Off: an exception that can come at any line leaves locks and transactions as they are in that moment. On, threads that "
            "hang in Python code come back; those that wait inside a call of the system do once it returns."
        ),
    )
    queue_timeout: float = setting(
        at_least(0.1, DURATION),
        "10s",
        "How long a request may wait for a thread. Beyond: 503 with Retry-After, without calling the app.",
        why=(
            "Nobody waits longer for a page, and work for those who have left makes others wait. Where the queue has not been empty for "
            "this long, the server has more to do than it can; then a tenth of it is allowed, and those who are served are served soon."
        ),
    )
    graceful_timeout: float = setting(
        DURATION,
        "25s",
        "How long running requests may take to finish after SIGTERM or SIGINT.",
        why="Under the 30s after which Kubernetes, Heroku and Render kill a process that was told to stop.",
    )
    drain_delay: float = setting(
        DURATION,
        "0s",
        "How long to go on serving after SIGTERM, with 503 from READINESS_PATH, before the listeners close.",
        why=(
            "Off: platforms stop sending requests before they stop a process. Kubernetes does both at once, and a Service needs some "
            "seconds to hear of it: 5s there. GRACEFUL_TIMEOUT begins afterwards, so both together have to fit the time that is given."
        ),
    )


@dataclass(frozen=True)
class TLS:
    """HTTPS without a proxy in front."""

    tls_cert: tuple[str, ...] | None = setting(
        PATHS,
        None,
        "PEM file with the certificate and its chain; turns HTTPS on (with TLS_KEY). Repeatable: one for each name.",
        why="Off by default: most installations end TLS in a proxy or load balancer.",
    )
    tls_key: tuple[str, ...] | None = setting(
        PATHS,
        None,
        "PEM file with the private key of TLS_CERT; one for each, in the same order.",
        why="A file and not the key itself, so that it never shows in the environment or in a process list.",
    )
    tls_min_version: str = setting(
        choice("1.2", "1.3"),
        "1.2",
        "The oldest version of TLS that is spoken.",
        why="1.0 and 1.1 must not be used any more (RFC 8996). 1.2 is what some monitoring and older libraries still need.",
    )
    tls_ciphers: str = setting(
        TEXT,
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "Cipher suites of TLS 1.2, as OpenSSL writes them. TLS 1.3 has its own.",
        why=(
            "Forward secrecy and authenticated encryption only, as in TLS 1.3 and in RFC 9325, section 4.2. Every client of the last ten "
            "years has them."
        ),
    )
    tls_client_ca: str | None = setting(
        PATH,
        None,
        "PEM file with the authorities whose certificates clients show.",
        why="Unset: apps know people by passwords or tokens. Machines can be known by certificates before they may send a request.",
    )
    tls_client_cert: str | None = setting(
        choice("none", "optional", "required"),
        None,
        "Whether clients are asked for a certificate of TLS_CLIENT_CA, and served without.",
        why=(
            "Who names an authority wants nobody else in. With 'optional' the app decides: SSL_CLIENT_VERIFY in the environment says "
            "SUCCESS or NONE. A certificate that is not valid is refused in any case."
        ),
        unset="required where TLS_CLIENT_CA is set, else none",
    )
    tls_redirect_bind: tuple[units.Address, ...] | None = setting(
        several(ADDRESS),
        None,
        "Addresses, such as :80, where plain HTTP is answered with a redirect to https. Repeatable.",
        why="Unset: a port that nobody asked for is not opened. What is open there never reaches the app; health checks are answered.",
    )

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each certificate with its key; none where HTTPS is off."""
        return tuple(
            zip(self.tls_cert or (), self.tls_key or (), strict=False)
        )  # their numbers are compared in ``rules``

    @property
    def files(self) -> tuple[str, ...]:
        """All files that HTTPS is made of; none where it is off."""
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
    """What to believe of a reverse proxy."""

    trusted_proxies: tuple[units.IPNetwork | str, ...] | None = setting(
        several(TRUSTED_PEER),
        None,
        "Addresses and networks of your proxies, 'unix' for peers on a Unix socket, '*' for every peer. Repeatable.",
        why=(
            "Nobody is trusted by default: whoever is may say who the client is. FORWARDED_ALLOW_IPS, as gunicorn and uvicorn "
            "read it, is understood. '*' trusts whoever connects: right only where nothing but the proxy can reach the server."
        ),
        unset="none",
    )
    proxy_headers: tuple[str, ...] = setting(
        several(choice(*FORWARDED_FIELDS)),
        ",".join(FORWARDED_FIELDS),
        "Which header fields are taken from trusted proxies; all others of the kind are removed.",
        why=(
            "The fields that Flask's documentation has proxies set. A field that your proxy does not set itself is passed through "
            "from the client: name only those that it sets. Forwarded counts only where no X-Forwarded-* field came along."
        ),
    )
    proxy_protocol: bool = setting(
        BOOLEAN,
        "false",
        "Whether connections from TRUSTED_PROXIES begin with a PROXY header (version 1 or 2), which says who the client is.",
        why=(
            "For load balancers that pass bytes on and know no header fields (HAProxy's send-proxy, nginx's stream, AWS NLB). Trusted "
            "peers must send one then, or anybody behind a balancer that sends none could write his own; from all others none is read."
        ),
    )
    url_prefix: str | None = setting(
        URL_PREFIX,
        None,
        "The path under which a proxy has the app, where it does not remove it from the requests. Others get 404.",
        why=(
            "Unset: the app is at the root, or the proxy removes the prefix and says so in X-Forwarded-Prefix (which comes before this "
            "one, if there are both). The app's rules, limits and mounts are written without it; url_for puts it in. "
            "LIVENESS_PATH and READINESS_PATH stay at the root, for whoever asks this server and not the proxy."
        ),
    )


@dataclass(frozen=True)
class Files:
    """Static files and downloads."""

    static: str = setting(
        SWITCH,
        "auto",
        "Serve static files of the app and its blueprints without calling the app: auto, on or off. Needs the extra 'static'.",
        why=(
            "auto: where whitenoise is installed and nothing of the app runs around its static files, such as before_request functions, "
            "which may be what lets only some people in. on: past these, too."
        ),
    )
    static_max_age: float = setting(
        AGE,
        "60s",
        "How long browsers and caches may keep a static file before they ask again, as they must each time with 0.",
        why=(
            "The app's own SEND_FILE_MAX_AGE_DEFAULT is used where it is set. A minute spares the requests of one visit, and a deploy "
            "is seen by everybody soon. Files with a hash of their content in the name are kept for ever."
        ),
    )
    x_accel_mapping: tuple[tuple[str, str], ...] | None = setting(
        several(X_ACCEL),
        None,
        "Folders of files that nginx sends for the app, and the internal locations that stand for them: /srv/files=/internal. Repeatable.",
        why=(
            "Unset: X-Sendfile goes out as the app says it, which Apache understands. nginx wants X-Accel-Redirect, with a URL of its own "
            "configuration and no path."
        ),
        unset="none",
    )


@dataclass(frozen=True)
class WSGI:
    """What is served beside the app."""

    mounts: tuple[Mount, ...] | None = setting(
        MOUNTS,
        None,
        "Other WSGI apps beside this one, by path, host, or host and path: /api=other:app, /admin=project.wsgi:application. Repeatable.",
        why=(
            "None: one app. An app is named as for `flask --app` (a factory with arguments, too), need not be of Flask, and finds its own "
            "path in SCRIPT_NAME. The host that matches counts before the path, and the longest path first. In app.config a mapping, "
            "also to WSGI callables; ProdServe.mount() adds to what this says."
        ),
        unset="none",
        option="--mount",
    )


@dataclass(frozen=True)
class Observe:
    """What the server says."""

    access_log: str = setting(
        LOG,
        "stdout",
        "Where one line per request goes: stdout, stderr, a file, or off.",
        why="Standard output, where containers and platforms collect it.",
    )
    access_log_format: str = setting(
        choice("combined", "json"),
        "combined",
        "How an access line is written: combined (Apache's, with times in ms) or json.",
        why="Every log reader knows the combined format.",
    )
    slow_request: float = setting(
        DURATION,
        "0s",
        "Log the stack of a request that runs for longer than this without beginning its response, once. 0 is off.",
        why="Off: what is slow depends on the app. Try 2s where pages are slow and nobody knows why.",
    )
    log_level: str = setting(
        choice("debug", "info", "warning", "error", "critical"),
        "info",
        "Which of the server's own messages are shown on standard error.",
        why="Start, stop and everything that needs attention. An app that has configured logging keeps its own handlers.",
    )
    control_socket: str = setting(
        CONTROL_SOCKET,
        "auto",
        "The Unix socket through which `flask serve status`, reload, stop and scale reach the server: auto, a path, or off.",
        why=(
            "auto: a place that only this account can reach, by the app's name; where there is none, as in a read-only container, no "
            "socket and no failure. A path that is given has to work."
        ),
        early=True,
    )


@dataclass(frozen=True)
class Health:
    """What load balancers and platforms ask."""

    liveness_path: str = setting(
        URL_PATH,
        "/livez",
        "Answers 200 as long as the process serves, also when every thread is busy. 'off' is none.",
        why="Kubernetes' own name. Answered without the app; a route of the app with the same path is left to the app.",
    )
    readiness_path: str = setting(
        URL_PATH,
        "/readyz",
        "Answers 200 while this server should get requests, 503 while it stops, sheds load, or has too many stuck requests. 'off' is none.",
        why="Load balancers take a server that is not ready out of rotation without restarting it. A route of the app wins.",
    )


@dataclass(frozen=True)
class Behaviour:
    """How the server presents itself."""

    server_header: str | None = setting(
        TEXT,
        None,
        "Text for the Server response header.",
        why="Off: it helps nobody but those who look for known weaknesses.",
        unset="no Server header",
    )
    allow_debug: bool = setting(
        BOOLEAN,
        "false",
        "Serve an app although it is in debug mode.",
        why="Debug pages show code, settings and secrets to whoever causes an error. `flask run --debug` is what development needs.",
    )
    replace_run: bool = setting(
        BOOLEAN,
        "false",
        "Let app.run() start this server. Read when ProdServe is attached to the app.",
        why="Off: app.run() is Flask's development server unless you say otherwise.",
        on_command_line=False,
    )


@dataclass(frozen=True)
class Settings:
    """All settings, resolved. Immutable; each part of the server gets its own group."""

    bind: Bind = field(default_factory=Bind)
    workers: Workers = field(default_factory=Workers)
    process: Process = field(default_factory=Process)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: TLS = field(default_factory=TLS)
    proxy: Proxy = field(default_factory=Proxy)
    files: Files = field(default_factory=Files)
    wsgi: WSGI = field(default_factory=WSGI)
    health: Health = field(default_factory=Health)
    observe: Observe = field(default_factory=Observe)
    behaviour: Behaviour = field(default_factory=Behaviour)

    @property
    def addresses(self) -> tuple[units.Address, ...]:
        """Where to listen for whatever: BIND, or else HOST and PORT, and TLS_REDIRECT_BIND."""
        return self.bind.addresses + (self.tls.tls_redirect_bind or ())

    def scheme(self, address: units.Address) -> str:
        """What is spoken at one of :attr:`addresses`."""
        return "https" if self.tls.pairs and address not in (self.tls.tls_redirect_bind or ()) else "http"

    def value(self, row: Setting) -> Any:
        return getattr(getattr(self, row.group), row.argument)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Build the groups from parsed values by setting name; what is missing has its default."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            row = TABLE[name]
            groups.setdefault(row.group, {})[row.argument] = value
        return cls(**{group: _GROUPS[group](**members) for group, members in groups.items()})


_GROUPS: dict[str, Any] = {member.name: member.default_factory for member in fields(Settings)}


def _rows() -> Iterator[Setting]:
    for group, members in _GROUPS.items():
        for member in fields(members):
            yield Setting(member.name.upper(), group, member.metadata["declaration"])


TABLE: dict[str, Setting] = {row.name: row for row in _rows()}
"""Every setting by its name, in the order of the reference."""

GROUP_TITLES: dict[str, str] = {name: (group.__doc__ or name).rstrip(".") for name, group in _GROUPS.items()}
