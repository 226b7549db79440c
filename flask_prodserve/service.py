"""An app, its settings, and the engine that serves it in this process: what a worker and a server of one process have in common."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import random
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from .apps.main_app import MainApp, layers
from .apps.sites import lookup_for, served_apps
from .clock import Clock, Deadline, monotonic
from .engine.engine import Engine
from .errors import AppLoadError, DebugModeError, ProdServeError
from .net import forked
from .net.descriptors import allow_open_files
from .net.listeners import Listener
from .net.loads import Loads
from .net.tls import Certificates, ignore_bad_names
from .observe.access_log import open_access_log
from .observe.events import Activity, Drained, RequestDone
from .observe.logging import configure
from .observe.stacks import all_stacks
from .process.hooks import AppsHooks, OnceRunning
from .process.messages import Loaded
from .settings import DEFAULT_ORIGIN, TABLE, Resolved, Settings
from .settings.mounts import Mount
from .settings.table import Limits
from .wsgi import stack
from .wsgi.file_lookup import FileLookup
from .wsgi.forwarded import PeerTrust
from .wsgi.mounts import Directory
from .wsgi.static_choice import static_files

if TYPE_CHECKING:
    from .wsgi.static import StaticFiles

logger = logging.getLogger("flask_prodserve")

OTHER_FILES = 200
"""Files and sockets that are open besides those of connections: the app's, its libraries', and the connections that are turned away."""

EXIT_SECONDS = 2.5
"""How long hooks of the app and what it has started may take after the drain, also if GRACEFUL_TIMEOUT is over. Less than the supervisor
allows (DRAIN_MARGIN_SECONDS), so that it is the worker that says what it still ran.
"""

AT_ONCE_SECONDS = 1.0
"""The same after SIGQUIT or a second SIGINT."""


class Service:
    """Serves *main*. *certificates* are those that have been read already; *says*: it is the one that says what is to be said once.

    Steps: refuse debug mode; logging; access log; TLS. What fails raises :class:`~.errors.ProdServeError` and leaves nothing open.
    """

    def __init__(
        self,
        main: MainApp,
        resolved: Resolved,
        *,
        import_path: str,
        certificates: Certificates | None = None,
        says: bool = True,
    ) -> None:
        settings = resolved.settings
        apps = served_apps(main.flask, settings)
        for one in apps:
            if one.debug and not settings.behaviour.allow_debug:
                raise DebugModeError(
                    f"'{one.name}' is in debug mode, which shows code and secrets to whoever causes an error.",
                    "For development use 'flask run --debug'. To serve it all the same, set PRODSERVE_ALLOW_DEBUG=1 (--allow-debug).",
                )
        self._main = main
        self._resolved = resolved
        self._import_path = import_path
        self._says = says
        self._hooks = AppsHooks(apps)
        self._once: OnceRunning | None = None
        self._once_lock = threading.Lock()
        self._engine: Engine | None = None
        self._started = False
        configure(settings.observe.log_level, explicit=resolved.origins["LOG_LEVEL"] != DEFAULT_ORIGIN)
        if says:
            for remark in resolved.warnings:
                logger.warning("%s %s", remark.what, remark.hint)
        self._access_log = open_access_log(settings.observe.access_log, settings.observe.access_log_format)
        try:
            self._certificates = certificates or (Certificates(settings.tls) if settings.tls.pairs else None)
        except ProdServeError:
            self._close_log()
            raise
        if self._certificates is not None:
            ignore_bad_names()
            if says:
                for text in self._certificates.remarks():
                    logger.warning("%s", text)

    @property
    def loaded(self) -> Loaded:
        """What a supervisor has to know."""
        settings = self._resolved.settings
        values = {name: row.write(value) for name, row in TABLE.items() if (value := settings.value(row)) is not None}
        return Loaded(
            app_name=self._main.flask.name,
            import_path=self._import_path,
            values=values,
            origins=dict(self._resolved.origins),
            has_once=self._hooks.has_once,
        )

    def start(
        self,
        listeners: Sequence[Listener],
        loads: Loads | None = None,
        checked: Callable[[Activity], None] | None = None,
        retire: Callable[[str], None] | None = None,
    ) -> None:
        """Begin to serve. *checked* is told every half second what is going on, *retire* that another process would do better, and why.

        Raises ProdServeError where threads cannot be started.
        """
        settings = self._resolved.settings
        limits = _limits_within_files(settings, says=self._says)
        self._run_started_hooks()
        self._engine = engine_for(
            self._main,
            dataclasses.replace(settings, limits=limits),
            listeners,
            tls=self._certificates,
            request_done=self._request_done(retire),
            keep_forwarded=_leaves_proxies_to_app(self._main, self._resolved, says=self._says),
            says=self._says,
            loads=loads,
            checked=self._at_each_look(checked),
        )
        try:
            self._engine.start()
        except RuntimeError as error:  # of threading, where a limit of the system is reached
            raise ProdServeError(
                f"THREADS is {settings.workers.threads}, and not all of them can be started: {error}.",
                "Lower THREADS, or raise the limits on processes (ulimit -u, a container's pids limit) and memory.",
            ) from error

    def _at_each_look(self, checked: Callable[[Activity], None] | None) -> Callable[[Activity], None] | None:
        certificates = self._certificates
        if certificates is None:
            return checked

        def look(activity: Activity) -> None:
            if checked is not None:
                checked(activity)
            certificates.look()

        return look

    def _run_started_hooks(self) -> None:
        try:
            with forked.in_parent_only():
                self._hooks.run_worker_started()
        except Exception as error:
            # The app's own fault: shown from its own frame on.
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_globals["__name__"].startswith(f"{__package__}."):
                trace = trace.tb_next
            traceback.print_exception(type(error), error, trace)
            raise AppLoadError(f"A worker_started hook has failed: {type(error).__name__}: {error}") from error
        self._started = True

    def _request_done(self, retire: Callable[[str], None] | None) -> Callable[[RequestDone], None] | None:
        log = self._access_log.log if self._access_log is not None else None
        workers = self._resolved.settings.workers
        if retire is None or not workers.max_requests:
            return log
        last = workers.max_requests + random.randint(0, workers.max_requests_jitter)  # noqa: S311  # no secret
        numbers = itertools.count(1)

        def counted(event: RequestDone) -> None:
            if log is not None:
                log(event)
            if next(numbers) == last:
                retire(f"it has answered {last} requests (MAX_REQUESTS)")

        return counted

    def run(self) -> Drained:
        """Serve until :meth:`stop`."""
        assert self._engine is not None
        return self._engine.run()

    def time_to_exit(self) -> Deadline:
        """Until when the process may live on after :meth:`run`, for the app's hooks and what else ends with it: for the rest of
        GRACEFUL_TIMEOUT, but for EXIT_SECONDS at least.
        """
        assert self._engine is not None
        if self._engine.aborted:
            return Deadline(AT_ONCE_SECONDS)
        end = self._engine.end_of_drain
        return Deadline(max(EXIT_SECONDS, 0.0 if end is None else end.remaining()))

    def stop(self, delay: float, *, last: bool = False, interrupted: bool = False) -> None:
        """Be not ready from now on, stop accepting after *delay* seconds, and end. *last*: nobody else goes on listening. *interrupted*: it
        was CTRL+C. From any thread, and from signal handlers.
        """
        if self._engine is not None:
            self._engine.stop(delay=delay, last=last, interrupted=interrupted)

    def abort(self) -> None:
        """Stop now; what is running is cut. From signal handlers, too."""
        if self._engine is not None:
            self._engine.abort()

    def start_once(self) -> None:
        """Do what exactly one process of a server does."""
        with self._once_lock:
            if self._once is None:
                self._once = self._hooks.start_once()

    def stop_once(self) -> bool:
        """Stop that, and wait for its end, for GRACEFUL_TIMEOUT at most. Returns whether another process may begin now, which this one
        has kept from it until then.
        """
        with self._once_lock:
            once, self._once = self._once, None
            if once is None:
                return False
            end = None if self._engine is None else self._engine.end_of_drain
            return once.stop(end or Deadline(self._resolved.settings.timeouts.graceful_timeout))

    def reopen_logs(self) -> None:
        """The files have been moved away."""
        if self._access_log is not None:
            self._access_log.reopen()

    def stacks(self) -> str:
        """Where every thread is."""
        return all_stacks()

    def close(self) -> None:
        """Tell the app that it is over, if it has been told that it begins, and let go of the log."""
        if self._started:
            with forked.in_parent_only():
                self._hooks.run_worker_stopping()
        self._close_log()

    def _close_log(self) -> None:
        if self._access_log is not None:
            self._access_log.close()


def engine_for(
    main: MainApp,
    settings: Settings,
    listeners: Sequence[Listener],
    *,
    tls: Certificates | None = None,
    request_done: Callable[[RequestDone], None] | None = None,
    keep_forwarded: bool = False,
    says: bool = False,
    loads: Loads | None = None,
    checked: Callable[[Activity], None] | None = None,
    clock: Clock = monotonic,
) -> Engine:
    """The engine that serves *main* and what is mounted beside it, which it knows the URL rules and the limits of.

    Raises :class:`~.settings.SettingsError` where ENDPOINT_LIMITS names endpoints that are not there, and
    :class:`~.errors.MissingExtraError` where STATIC needs one. *says*: log what is decided about static files. For the other arguments
    see :class:`~.engine.engine.Engine` and :func:`~.wsgi.stack.build`.
    """
    app = main.flask
    lookup = lookup_for(app, settings)
    trust = PeerTrust(settings.proxy.trusted_proxies or ())
    sends_files = any(one.config["USE_X_SENDFILE"] for one in served_apps(app, settings))

    def files_of(mount: Mount) -> StaticFiles | None:
        one, age = mount.loaded, mount.static_max_age
        said = settings.files if age is None else dataclasses.replace(settings.files, static_max_age=age)
        return static_files(one, said, mount.key, says=says) if isinstance(one, Flask) else None

    files = static_files(app, settings.files, around=main.around, says=says)
    mounted = [(mount, files_of(mount)) for mount in settings.wsgi.mounts or ()]
    has_files = files is not None or any(own is not None for _, own in mounted)
    return Engine(
        stack.build(
            main.wsgi,
            settings.proxy,
            keep_forwarded=keep_forwarded,
            mounts=[(mount, mount.loaded) for mount, _ in mounted],
            x_sendfile=settings.files.x_accel_mapping or (() if sends_files else None),
        ),
        listeners,
        settings,
        tls=tls,
        request_done=request_done,
        error_logger=app.logger,
        kind=lookup.kind,
        endpoint_of=lookup.endpoint_of if lookup.has_limits else None,
        exempt=lambda address: not address or trust.covers(address),
        announcers=trust if settings.proxy.proxy_protocol else None,
        own_paths=lookup.own_paths,
        file_for=FileLookup(Directory(files, mounted), settings.proxy, trust).find if has_files else None,
        loads=loads,
        checked=checked,
        clock=clock,
    )


def _limits_within_files(settings: Settings, *, says: bool) -> Limits:
    """MAX_CONNECTIONS as far as the limit of open files allows, which is raised before. A connection may need a temporary file, too."""
    limits = settings.limits
    wanted = limits.max_connections
    allowed = allow_open_files(2 * wanted + OTHER_FILES)
    fitting = max(allowed - OTHER_FILES, allowed // 2)
    if fitting >= wanted:
        return limits
    if says:
        logger.warning(
            "MAX_CONNECTIONS is %d, and this process may have %d files open: it will take %d connections. "
            "Raise the limit (ulimit -n, LimitNOFILE= in a systemd unit, --ulimit of docker run), or lower MAX_CONNECTIONS",
            wanted,
            allowed,
            fitting,
        )
    return dataclasses.replace(limits, max_connections=fitting)


def _leaves_proxies_to_app(main: MainApp, resolved: Resolved, *, says: bool) -> bool:
    """Whether the app's own ProxyFix evaluates the proxies' fields, which must then reach it."""
    if not any(isinstance(layer, ProxyFix) for layer in (*layers(main.wsgi), *layers(main.flask.wsgi_app))):
        return False
    if resolved.settings.proxy.trusted_proxies is None:
        if says:
            logger.info(
                "the app uses ProxyFix: X-Forwarded-* fields are left to it, from every peer. "
                "TRUSTED_PROXIES would take them from your proxies only, and make ProxyFix unnecessary"
            )
        return True
    if says:
        logger.info("TRUSTED_PROXIES is set, so the app's ProxyFix finds nothing to do and can be removed")
    return False
