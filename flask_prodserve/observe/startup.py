"""Composes the banner or the log line of a server that has started, and logs how it ended."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from ..settings import TABLE

_BOLD_GREEN, _RESET = "\033[1;32m", "\033[0m"


@dataclass(frozen=True, slots=True)
class Started:
    """A server that is ready. *urls* are the real addresses, *redirects* those that redirect to
    https.

    *threads_origin* is the origin of the number of threads.
    """

    app_name: str
    import_path: str
    version: str
    urls: tuple[str, ...]
    redirects: tuple[str, ...]
    processes: int
    threads: int
    threads_origin: str
    trusted_proxies: str
    mounts: tuple[str, ...]
    graceful_timeout: str
    pid: int


def banner(started: Started, *, coloured: bool) -> str:
    """Return the banner for a terminal, in the style of ``flask run``."""
    emphasis, reset = (_BOLD_GREEN, _RESET) if coloured else ("", "")
    processes = f"{started.processes} process{'es' if started.processes > 1 else ''}"
    threads = f"{started.threads} thread{'s' if started.threads > 1 else ''}"
    lines = [
        f"Serving Flask app '{started.app_name}' from {started.import_path} (flask-prodserve {started.version})",
        *(f"Running on {emphasis}{url}{reset}" for url in started.urls),
        *(f"Redirecting {url} to https" for url in started.redirects),
        *(f"Mounted: {mount}" for mount in started.mounts),
        f"{processes} x {threads} ({started.threads_origin})",
        f"Trusted proxies: {started.trusted_proxies}",
        f"Press CTRL+C to stop; running requests then have {started.graceful_timeout} to finish",
    ]
    return "".join(f" * {line}\n" for line in lines)


def line(started: Started) -> str:
    """Return the log line: the same as ``name=value`` pairs."""
    pairs = {
        "app": started.import_path,
        "listen": ",".join(started.urls),
        **({"redirect": ",".join(started.redirects)} if started.redirects else {}),
        "processes": started.processes,
        "threads": started.threads,
        "threads_from": started.threads_origin,
        "trusted_proxies": started.trusted_proxies,
        **({"mounts": ",".join(started.mounts)} if started.mounts else {}),
        "pid": started.pid,
        "version": started.version,
    }
    return "serving " + " ".join(f"{name}={_word(str(value))}" for name, value in pairs.items())


def report_end(
    logger: logging.Logger, finished: int, cut: int, left: int, graceful_timeout: float, *, late: bool
) -> None:
    """Log how the server ended: requests *finished* after the stop began, those *cut*, and those
    *left* by their clients.

    *late*: GRACEFUL_TIMEOUT was over.
    """
    message = "stopped; %d request%s finished, %d cut"
    arguments: list[object] = [finished, "" if finished == 1 else "s", cut]
    if cut and late:
        message += " (GRACEFUL_TIMEOUT is %s)"
        arguments.append(TABLE["GRACEFUL_TIMEOUT"].write(graceful_timeout))
    if left:
        message += ", %d abandoned by %s"
        arguments += [left, "its client" if left == 1 else "their clients"]
    logger.log(logging.WARNING if cut else logging.INFO, message, *arguments)


def _word(value: str) -> str:
    return json.dumps(value) if " " in value or '"' in value else value
