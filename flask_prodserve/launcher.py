"""The composition root: from an app and its resolved settings to a process that serves, and back.

The only place that knows all the parts. It raises :class:`~.errors.ProdServeError` and returns exit codes; it never exits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from . import __version__
from .clock import Clock, monotonic
from .engine.engine import Drained, Engine
from .errors import DebugModeError, ExitCode, ProdServeError
from .net.descriptors import allow_open_files
from .net.listeners import Listener, open_listeners
from .net.tls import server_context
from .observe import startup
from .observe.access_log import open_access_log
from .observe.events import RequestDone
from .observe.logging import coloured, configure
from .settings import DEFAULT_ORIGIN, TABLE, Resolved, Settings
from .settings.endpoint_limits import UNLIMITED, Endpoint
from .settings.table import Limits
from .wsgi import stack
from .wsgi.forwarded import PeerTrust
from .wsgi.limits import endpoints
from .wsgi.routes import Routes

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Rule

    from .protocol.request_head import RequestHead

logger = logging.getLogger("flask_prodserve")

OTHER_FILES = 200
"""Files and sockets that are open besides those of connections: the app's, its libraries', and the connections that are turned away."""


def launch(app: Flask, resolved: Resolved, *, import_path: str) -> int:
    """Serve *app* until a signal says stop, and return the exit code.

    Steps: refuse debug mode; logging; access log; TLS; listeners; threads; banner; serve; drain. What fails before the banner raises
    :class:`~.errors.ProdServeError` and leaves nothing open. Signals are handled only where this is the main thread; elsewhere
    nothing stops it but the end of the process.
    """
    settings = resolved.settings
    if app.debug and not settings.behaviour.allow_debug:
        raise DebugModeError(
            f"'{app.name}' is in debug mode, which shows code and secrets to whoever causes an error.",
            "For development use 'flask run --debug'. To serve it all the same, set PRODSERVE_ALLOW_DEBUG=1 (--allow-debug).",
        )
    configure(settings.observe.log_level, explicit=resolved.origins["LOG_LEVEL"] != DEFAULT_ORIGIN)
    for remark in resolved.warnings:
        logger.warning("%s %s", remark.what, remark.hint)
    with contextlib.ExitStack() as cleanup:
        access_log = open_access_log(settings.observe.access_log, settings.observe.access_log_format)
        if access_log is not None:
            cleanup.callback(access_log.close)
        tls = server_context(*settings.tls.files) if settings.tls.files else None
        listeners = open_listeners(
            settings.bind.addresses, backlog=settings.bind.backlog, unix_socket_mode=settings.bind.unix_socket_mode
        )
        for listener in listeners:
            cleanup.callback(listener.close)
        engine = engine_for(
            app,
            dataclasses.replace(settings, limits=_limits_within_files(settings)),
            listeners,
            tls=tls,
            request_done=access_log.log if access_log is not None else None,
            keep_forwarded=_leaves_proxies_to_app(app, resolved),
        )
        with _signals(engine) as received:
            try:
                engine.start()
            except RuntimeError as error:  # of threading, where a limit of the system is reached
                raise ProdServeError(
                    f"THREADS is {settings.workers.threads}, and not all of them can be started: {error}.",
                    "Lower THREADS, or raise the limits on processes (ulimit -u, a container's pids limit) and memory.",
                ) from error
            _announce(app, resolved, listeners, import_path)
            drained = engine.run()
    _report(drained, resolved)
    return 128 + signal.SIGINT if received.count(signal.SIGINT) > 1 else ExitCode.STOPPED


def engine_for(
    app: Flask,
    settings: Settings,
    listeners: Sequence[Listener],
    *,
    tls: ssl.SSLContext | None = None,
    request_done: Callable[[RequestDone], None] | None = None,
    keep_forwarded: bool = False,
    shared: bool = False,
    clock: Clock = monotonic,
) -> Engine:
    """The engine that serves *app*, which it knows the URL rules and the limits of.

    Raises :class:`~.settings.SettingsError` where ENDPOINT_LIMITS names endpoints that are not there. For the arguments see
    :class:`~.engine.engine.Engine` and :func:`~.wsgi.stack.build`.
    """
    routes = Routes(app.url_map, app.config["SERVER_NAME"])
    bounded = endpoints(app.view_functions, app.blueprints, settings.limits.endpoint_limits)
    trust = PeerTrust(settings.proxy.trusted_proxies or ())

    def rule_of(head: RequestHead) -> Rule | None:
        return routes.find(head.method, head.path, head.fields.get("HTTP_HOST", ""))

    def kind(head: RequestHead) -> str:
        rule = rule_of(head)
        return f"{head.method} {head.path if rule is None else rule.rule}"

    def endpoint_of(head: RequestHead) -> Endpoint:
        rule = rule_of(head)
        return UNLIMITED if rule is None else bounded.get(rule.endpoint, UNLIMITED)

    return Engine(
        stack.build(app, settings.proxy, keep_forwarded=keep_forwarded),
        listeners,
        settings,
        tls=tls,
        request_done=request_done,
        error_logger=app.logger,
        kind=kind,
        endpoint_of=endpoint_of if bounded else None,
        exempt=lambda address: not address or trust.covers(address),
        own_paths=routes.literal,
        shared=shared,
        clock=clock,
    )


def _limits_within_files(settings: Settings) -> Limits:
    """MAX_CONNECTIONS as far as the limit of open files allows, which is raised before. A connection may need a temporary file, too."""
    limits = settings.limits
    wanted = limits.max_connections
    allowed = allow_open_files(2 * wanted + OTHER_FILES)
    fitting = max(allowed - OTHER_FILES, allowed // 2)
    if fitting >= wanted:
        return limits
    logger.warning(
        "MAX_CONNECTIONS is %d, and this process may have %d files open: it will take %d connections. "
        "Raise the limit (ulimit -n, LimitNOFILE= in a systemd unit, --ulimit of docker run), or lower MAX_CONNECTIONS",
        wanted,
        allowed,
        fitting,
    )
    return dataclasses.replace(limits, max_connections=fitting)


def _leaves_proxies_to_app(app: Flask, resolved: Resolved) -> bool:
    """Whether the app's own ProxyFix evaluates the proxies' fields, which must then reach it."""
    wrapped: Any = app.wsgi_app
    seen: list[Any] = []
    while wrapped is not None and not isinstance(wrapped, ProxyFix):
        seen.append(wrapped)
        wrapped = getattr(wrapped, "app", None) or getattr(wrapped, "wsgi_app", None)
        if any(wrapped is other for other in seen):  # middleware that refers to the app, which refers to it
            return False
    if wrapped is None:
        return False
    if resolved.settings.proxy.trusted_proxies is None:
        logger.info(
            "the app uses ProxyFix: X-Forwarded-* fields are left to it, from every peer. "
            "TRUSTED_PROXIES would take them from your proxies only, and make ProxyFix unnecessary"
        )
        return True
    logger.info("TRUSTED_PROXIES is set, so the app's ProxyFix finds nothing to do and can be removed")
    return False


@contextlib.contextmanager
def _signals(engine: Engine) -> Iterator[list[int]]:
    """Let SIGTERM and SIGINT stop *engine*, a second SIGINT at once. Yields the list of the signals that came.

    The handlers that were there before are put back. A handler sets a flag and wakes the loop; it logs nothing, since it may have
    interrupted a log call of this very thread.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        if received.count(signal.SIGINT) > 1:
            engine.abort()
        else:
            engine.stop()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(app: Flask, resolved: Resolved, listeners: list[Listener], import_path: str) -> None:
    settings, origins = resolved.settings, resolved.origins
    scheme = "https" if settings.tls.files else "http"
    started = startup.Started(
        app_name=app.name,
        import_path=import_path,
        version=__version__,
        urls=tuple(listener.url(scheme) for listener in listeners),
        processes=1,
        threads=settings.workers.threads,
        threads_origin=origins["THREADS"],
        trusted_proxies=TABLE["TRUSTED_PROXIES"].write(settings.proxy.trusted_proxies),
        graceful_timeout=TABLE["GRACEFUL_TIMEOUT"].write(settings.timeouts.graceful_timeout),
        pid=os.getpid(),
    )
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(startup.banner(started, coloured=coloured(sys.stderr)))
        sys.stderr.flush()
    else:
        logger.info(startup.line(started))


def _report(drained: Drained, resolved: Resolved) -> None:
    message = "stopped; %d request%s finished, %d cut"
    arguments: list[object] = [drained.finished, "" if drained.finished == 1 else "s", drained.cut]
    if drained.cut:
        message += " (GRACEFUL_TIMEOUT is %s)"
        arguments.append(TABLE["GRACEFUL_TIMEOUT"].write(resolved.settings.timeouts.graceful_timeout))
    logger.log(logging.WARNING if drained.cut else logging.INFO, message, *arguments)
