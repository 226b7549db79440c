"""Settings of logs, the control socket and health checks."""

from __future__ import annotations

from dataclasses import dataclass

from ..declaration import setting
from ..kinds import CONTROL_SOCKET, DURATION, LOG, URL_PATH, choice


@dataclass(frozen=True)
class Observe:
    """Logs and the control socket."""

    access_log: str = setting(
        LOG,
        "stdout",
        "Where one line per request goes: stdout, stderr, a file, or off.",
        why="Standard output, which containers and platforms collect.",
    )
    access_log_format: str = setting(
        choice("combined", "json"),
        "combined",
        "The format of access lines: combined (Apache's, with times in ms) or json.",
        why="Every log analyzer reads the combined format.",
    )
    slow_request: float = setting(
        DURATION,
        "0s",
        "Log the stack of a request once, if it runs longer than this without starting its response. 0 is off.",
        why="Off: what is slow depends on the app. Try 2s to find out why pages are slow.",
    )
    log_level: str = setting(
        choice("debug", "info", "warning", "error", "critical"),
        "info",
        "The lowest level of the server's own messages on standard error.",
        why="info shows start, stop and everything that needs attention. An app that configured logging keeps its own handlers.",
    )
    control_socket: str = setting(
        CONTROL_SOCKET,
        "auto",
        "The Unix socket through which `flask serve status`, reload, stop and scale reach the server: auto, a path, or off.",
        why=(
            "auto: a place that only this account can reach, named after the app. If there is none, as in a read-only container, the "
            "server starts without a socket. A path that is given has to work."
        ),
        early=True,
    )


@dataclass(frozen=True)
class Health:
    """Health checks of load balancers and platforms."""

    liveness_path: str = setting(
        URL_PATH,
        "/livez",
        "The path that answers 200 as long as the process serves, even if every thread is busy. 'off' is none.",
        why="The name that Kubernetes uses. Answered without the app. If the app has a route with the same path, the route wins.",
    )
    readiness_path: str = setting(
        URL_PATH,
        "/readyz",
        "The path that answers 200 if this server should get requests; 503 while it stops, is overloaded, or has too many stuck requests."
        " 'off' is none.",
        why="Load balancers stop sending requests to a server that is not ready, without restarting it. A route of the app wins.",
    )
