"""Limits and timeouts. Each has a reason: the attack or the habit that it answers."""

from __future__ import annotations

from dataclasses import dataclass

from ..declaration import setting
from ..endpoint_limits import EndpointLimits
from ..kinds import BOOLEAN, COUNT, DURATION, ENDPOINT_LIMITS, SIZE, at_least


@dataclass(frozen=True)
class Limits:
    """How much clients may use."""

    max_request_line: int = setting(
        at_least(64, SIZE),
        "8190",
        "Longest request line (method, path and query), in bytes. Longer ones get 414.",
        why="Apache's LimitRequestLine. Limits the memory and time that an unauthenticated client can use.",
    )
    max_header_size: int = setting(
        at_least(256, SIZE),
        "32KiB",
        "Largest request head (request line and all header fields), in bytes. Larger ones get 431.",
        why=(
            "nginx accepts 32 KiB (4 buffers of 8 KiB). Large cookies and Kerberos tickets fit, "
            "and an endless head does not use up memory."
        ),
    )
    max_header_count: int = setting(
        at_least(1, COUNT),
        "100",
        "Most header fields in a request. Requests with more get 431.",
        why="Apache's LimitRequestFields. Browsers send about 20; thousands of tiny fields are an attack on memory and CPU.",
    )
    max_body_size: int = setting(
        at_least(0, SIZE),
        "32MiB",
        "Largest request body, in bytes. Larger ones get 413, before the body is read if its length is announced. 0 allows no body.",
        why=(
            "The app's own MAX_CONTENT_LENGTH is used if it is set. Without either, 32 MiB is enough for forms, photos and documents, "
            "and a client cannot fill the disk with one request."
        ),
    )
    max_connections: int = setting(
        at_least(1, COUNT),
        "1000",
        "Most open client connections. For one more, a silent one or the longest idle one is closed; if there is none, it gets 503.",
        why=(
            "An idle connection costs a file descriptor and a few kilobytes. The limit of open files is raised as far as the system "
            "allows. If that is not enough, the server accepts fewer connections and logs a warning."
        ),
    )
    max_connections_per_client: int = setting(
        at_least(0, COUNT),
        "0",
        "Most open connections from one address (one /64 network in IPv6). More get 503. 0 is no limit.",
        why=(
            "Off: whole companies share an address. Peers in TRUSTED_PROXIES and on Unix sockets are exempt, because they forward many "
            "clients; with PROXY_PROTOCOL, the clients that they name are counted."
        ),
    )
    max_keepalive_requests: int = setting(
        at_least(1, COUNT),
        "1000",
        "Most requests on one connection. The connection is closed after the last.",
        why="nginx's keepalive_requests. An endless connection would stay with one process, however busy that is.",
    )
    max_streams: int = setting(
        at_least(0, COUNT, at_most=10_000),  # each has a thread
        "64",
        "Most responses that stream for more than a second without counting against THREADS. Additional ones count.",
        why=(
            "Event streams and long downloads hold a thread as long as they last; 16 of them would leave none for other requests. "
            "Each has its own thread, so their number needs a limit."
        ),
    )
    max_spool: int = setting(
        at_least(2**20, SIZE),
        "1GiB",
        "Most bytes of request bodies, and of responses that clients have not taken yet, in memory and on disk together.",
        why=(
            "Thousands of slow clients could fill the disk. Near the limit, the slowest clients with the most bytes are cut first, in "
            "either direction; at the limit, new bodies get 503. A 64th of it, 16 MiB, holds request bodies in memory; more goes to "
            "disk at once."
        ),
    )
    endpoint_limits: tuple[tuple[str, EndpointLimits], ...] = setting(
        ENDPOINT_LIMITS,
        "{}",
        "Limits of endpoints, by endpoint name, 'blueprint.*' or a mount's path: timeout, max_body, max_concurrency, queue_timeout.",
        why="Overrides the decorator ProdServe.limits(), so that an operator can limit an app without changing it.",
        on_command_line=False,
    )


@dataclass(frozen=True)
class Timeouts:
    """How long clients, requests and stops may take."""

    header_timeout: float = setting(
        at_least(0.1, DURATION),
        "15s",
        "How long a request head may take from its first byte, or on a new connection from the start. After that: 408.",
        why=(
            "Slow loris: a client that sends a byte now and then would hold its connection for ever. The limit is for the whole head, "
            "so single bytes do not extend it. Browsers send the head in one packet."
        ),
    )
    body_timeout: float = setting(
        at_least(0.1, DURATION),
        "30s",
        "How long a client may send nothing in the middle of a request body. After that: 408.",
        why="Slow POST attacks. Long enough for a phone in a tunnel.",
    )
    min_body_rate: int = setting(
        at_least(0, SIZE),
        "240",
        "Minimum rate of a request body, in bytes per second over about ten seconds. Slower ones get 408. 0 is no limit.",
        why=(
            "Slow POST attacks that send a byte before every timeout. Kestrel's value: slower than any modem. A body has 5 seconds to "
            "reach it, and earlier speed makes up for at most 5 seconds, so a quick start does not excuse a slow rest."
        ),
    )
    send_timeout: float = setting(
        at_least(0.1, DURATION),
        "30s",
        "How long a client may take nothing of a response that waits for it. After that the connection is reset.",
        why="Slow read attacks: bytes that are not taken occupy memory and disk. Bytes count when the client's system acknowledges them.",
    )
    min_send_rate: int = setting(
        at_least(0, SIZE),
        "240",
        "Minimum rate at which a client takes a response, in bytes per second over about ten seconds. 0 is no limit.",
        why="Slow read attacks that take a byte before every timeout. Only time in which the client could take something counts.",
    )
    keepalive_timeout: float = setting(
        at_least(1, DURATION),
        "100s",
        "How long a connection may stay open without a request.",
        why=(
            "Longer than the idle timeout of load balancers (Heroku's router 90s, AWS's ALB 60s): if the server closed first, a "
            "request sent at that moment would fail with 502."
        ),
    )
    request_timeout: float = setting(
        DURATION,
        "60s",
        "How long the app may take until its response starts. After that: 504, and the log shows the stack. 0 is no limit.",
        why=(
            "A view that hangs would hold its thread for ever. The thread cannot be killed; another takes its place. "
            "A response that has started is not cut, however long it takes."
        ),
    )
    request_timeout_raise: bool = setting(
        BOOLEAN,
        "false",
        "At REQUEST_TIMEOUT, raise flask_prodserve.errors.RequestTimedOut inside the view as well.",
        why=(
            "Off: an exception at any line can leave locks and transactions in the middle of their work. On: threads that hang in "
            "Python code become free again; those that wait in a system call do so when it returns."
        ),
    )
    queue_timeout: float = setting(
        at_least(0.1, DURATION),
        "10s",
        "How long a request may wait for a thread. After that: 503 with Retry-After, without calling the app.",
        why=(
            "People do not wait longer for a page, and work for clients that left delays the others. If the queue has not been empty "
            "for this long, the server is overloaded. Then requests may wait a tenth of it, so that those served are served soon."
        ),
    )
    graceful_timeout: float = setting(
        DURATION,
        "25s",
        "How long running requests may take to finish after SIGTERM or SIGINT.",
        why="Less than the 30s after which Kubernetes, Heroku and Render kill a process that was told to stop.",
    )
    drain_delay: float = setting(
        DURATION,
        "0s",
        "How long to keep serving after SIGTERM, with 503 from READINESS_PATH, before the listeners close.",
        why=(
            "Off: most platforms stop sending requests before they stop a process. Kubernetes does both at once, and a Service needs "
            "some seconds to notice: use 5s there. GRACEFUL_TIMEOUT starts afterwards, so both together must fit the platform's limit."
        ),
    )
