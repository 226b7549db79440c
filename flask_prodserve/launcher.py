"""The composition root: from an app and its resolved settings to a process that serves, and back.

The only place that knows all the parts. It raises :class:`~.errors.ProdServeError` and returns exit codes; it never exits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from . import __version__
from .engine.engine import Drained, Engine
from .errors import DebugModeError, ExitCode, ProdServeError
from .net.listeners import Listener, open_listeners
from .net.tls import server_context
from .observe import startup
from .observe.access_log import open_access_log
from .observe.logging import coloured, configure
from .settings import DEFAULT_ORIGIN, TABLE, Resolved
from .wsgi import stack
from .wsgi.routes import Routes

if TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("flask_prodserve")


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
        engine = Engine(
            stack.build(app, settings.proxy, keep_forwarded=_leaves_proxies_to_app(app, resolved)),
            listeners,
            settings,
            tls=tls,
            request_done=access_log.log if access_log is not None else None,
            error_logger=app.logger,
            kind=Routes(app.url_map).kind,
        )
        try:
            engine.start()
        except RuntimeError as error:  # of threading, where a limit of the system is reached
            raise ProdServeError(
                f"THREADS is {settings.workers.threads}, and not all of them can be started: {error}.",
                "Lower THREADS, or raise the limits on processes (ulimit -u, a container's pids limit) and memory.",
            ) from error
        with _signals(engine) as received:
            _announce(app, resolved, listeners, import_path)
            drained = engine.run()
    _report(drained, resolved)
    return 128 + signal.SIGINT if received.count(signal.SIGINT) > 1 else ExitCode.STOPPED


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
