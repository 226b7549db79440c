"""An app, its settings, and the engine that serves it in this process. Used by workers and by
servers of one process.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import random
import threading
from collections.abc import Callable, Sequence

from .apps.debug_mode import refuse_debug_mode
from .apps.hooks import AppsHooks, OnceRunning
from .apps.loading import print_app_traceback
from .apps.main_app import MainApp, served_apps
from .apps.routing import router_for
from .apps.static_choice import static_files_of
from .clock import Clock, Deadline, monotonic
from .engine.engine import Engine
from .errors import AppLoadError, ProdServeError
from .net import forked
from .net.descriptors import allow_open_files
from .net.listeners import Listener
from .net.loads import Loads
from .net.tls import Certificates, ignore_bad_names
from .observe.access_log import open_access_log
from .observe.events import Activity, Drained, RequestDone
from .observe.logging import configure
from .observe.stacks import all_stacks
from .process.messages import Loaded
from .settings import DEFAULT_ORIGIN, TABLE, Resolved, Settings
from .settings.groups.limits import Limits
from .wsgi import stack
from .wsgi.file_lookup import FileLookup
from .wsgi.forwarded import PeerTrust

logger = logging.getLogger("flask_prodserve")

OTHER_FILES = 200
"""Files and sockets that are open besides client connections: those of the app and its libraries,
and connections being turned away.
"""

EXIT_SECONDS = 2.5
"""How long the app's hooks, threads and processes may take after the drain, even if
GRACEFUL_TIMEOUT is over.

Less than the supervisor allows (DRAIN_MARGIN_SECONDS), so that the worker itself logs what still
ran.
"""

AT_ONCE_SECONDS = 1.0
"""How long they may take after SIGQUIT or a second SIGINT."""


class Service:
    """Serves *main*. *certificates* are given if they were read already. *log_notices*: log
    warnings and notices.

    Steps: refuse debug mode; configure logging; open the access log; load certificates. A step that
    fails raises :class:`~.errors.ProdServeError` and leaves nothing open.
    """

    def __init__(
        self,
        main: MainApp,
        resolved: Resolved,
        *,
        import_path: str,
        certificates: Certificates | None = None,
        log_notices: bool = True,
    ) -> None:
        settings = resolved.settings
        apps = served_apps(main.flask, settings.wsgi.mounts)
        if not settings.behaviour.allow_debug:
            refuse_debug_mode(apps)
        self._main = main
        self._resolved = resolved
        self._import_path = import_path
        self._log_notices = log_notices
        self._hooks = AppsHooks(apps)
        self._once: OnceRunning | None = None
        self._once_lock = threading.Lock()
        self._engine: Engine | None = None
        self._started = False
        configure(settings.observe.log_level, explicit=resolved.origins["LOG_LEVEL"] != DEFAULT_ORIGIN)
        if log_notices:
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
            if log_notices:
                for text in self._certificates.remarks():
                    logger.warning("%s", text)

    @property
    def loaded(self) -> Loaded:
        """What the supervisor has to know about the app."""
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
        """Begin to serve.

        *checked* is called every half second with the current activity. *retire* is called with a
        reason when this process should be replaced. Raises ProdServeError if threads cannot be
        started.
        """
        settings = self._resolved.settings
        limits = _limits_within_files(settings.limits, log_notices=self._log_notices)
        self._run_started_hooks()
        self._engine = engine_for(
            self._main,
            dataclasses.replace(settings, limits=limits),
            listeners,
            tls=self._certificates,
            request_done=self._request_done(retire),
            keep_forwarded=self._leaves_proxies_to_app(),
            log_notices=self._log_notices,
            loads=loads,
            checked=self._at_each_check(checked),
        )
        try:
            self._engine.start()
        except RuntimeError as error:  # a limit of the system on threads
            raise ProdServeError(
                f"THREADS is {settings.workers.threads}, but not all threads can be started: {error}.",
                "Lower THREADS, or raise the limits on processes (ulimit -u, a container's pids limit) and memory.",
            ) from error

    def _leaves_proxies_to_app(self) -> bool:
        """Return whether the app's own ProxyFix reads the proxies' fields, which must then reach
        it.
        """
        if not self._main.has_proxy_fix:
            return False
        trusts_nobody = self._resolved.settings.proxy.trusted_proxies is None
        if self._log_notices and trusts_nobody:
            logger.info(
                "the app uses ProxyFix, so it gets X-Forwarded-* fields from every peer. "
                "With TRUSTED_PROXIES the server accepts them from your proxies only, and ProxyFix is not needed"
            )
        elif self._log_notices:
            logger.info("TRUSTED_PROXIES is set, so the app's ProxyFix has no effect and can be removed")
        return trusts_nobody

    def _at_each_check(self, checked: Callable[[Activity], None] | None) -> Callable[[Activity], None] | None:
        certificates = self._certificates
        if certificates is None:
            return checked

        def check(activity: Activity) -> None:
            if checked is not None:
                checked(activity)
            certificates.check()

        return check

    def _run_started_hooks(self) -> None:
        try:
            with forked.in_parent_only():
                self._hooks.run_worker_started()
        except Exception as error:
            print_app_traceback(error)
            raise AppLoadError(f"A worker_started hook failed: {type(error).__name__}: {error}") from error
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
        """Return the deadline for the process to exit after :meth:`run`: the rest of
        GRACEFUL_TIMEOUT, but at least EXIT_SECONDS.

        Until then the app's hooks, threads and processes may finish.
        """
        assert self._engine is not None
        if self._engine.aborted:
            return Deadline(AT_ONCE_SECONDS)
        end = self._engine.end_of_drain
        return Deadline(max(EXIT_SECONDS, 0.0 if end is None else end.remaining()))

    def stop(self, delay: float, *, last: bool = False, interrupted: bool = False) -> None:
        """Become not ready, stop accepting after *delay* seconds, drain, and end.

        *last*: no other process keeps the listeners open. *interrupted*: the reason was CTRL+C. May
        be called from any thread and from signal handlers.
        """
        if self._engine is not None:
            self._engine.stop(delay=delay, last=last, interrupted=interrupted)

    def abort(self) -> None:
        """Stop now and cut running requests. May be called from signal handlers."""
        if self._engine is not None:
            self._engine.abort()

    def start_once(self) -> None:
        """Start the app's ``once`` functions, which run in exactly one process of a server."""
        with self._once_lock:
            if self._once is None:
                self._once = self._hooks.start_once()

    def stop_once(self) -> bool:
        """Stop the ``once`` functions, and wait for their end, for GRACEFUL_TIMEOUT at most.

        Returns whether this process ran them and another process may start them now.
        """
        with self._once_lock:
            once, self._once = self._once, None
            if once is None:
                return False
            end = None if self._engine is None else self._engine.end_of_drain
            return once.stop(end or Deadline(self._resolved.settings.timeouts.graceful_timeout))

    def reopen_logs(self) -> None:
        """Open log files again by their names, after a rotation moved them away."""
        if self._access_log is not None:
            self._access_log.reopen()

    def stacks(self) -> str:
        """Return the stacks of all threads, as text."""
        return all_stacks()

    def close(self) -> None:
        """Run the ``worker_stopping`` hooks, if ``worker_started`` succeeded, and close the log."""
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
    log_notices: bool = False,
    loads: Loads | None = None,
    checked: Callable[[Activity], None] | None = None,
    clock: Clock = monotonic,
) -> Engine:
    """Make the engine that serves *main* and its mounts, with their URL rules, limits and static
    files.

    *log_notices*: log what is decided about static files. For the other arguments see
    :class:`~.engine.engine.Engine` and :func:`~.wsgi.stack.build`. Raises
    :class:`~.settings.SettingsError` if ENDPOINT_LIMITS names an unknown endpoint, and
    :class:`~.errors.MissingExtraError` if STATIC needs an extra that is missing.
    """
    mounts = settings.wsgi.mounts or ()
    router = router_for(main.flask, settings.wsgi, settings.limits, settings.proxy)
    trust = PeerTrust(settings.proxy.trusted_proxies or ())
    sends_files = any(app.config["USE_X_SENDFILE"] for app in served_apps(main.flask, mounts))
    files = static_files_of(main, mounts, settings.files, log_notices=log_notices)
    return Engine(
        stack.build(
            main.wsgi,
            settings.proxy,
            keep_forwarded=keep_forwarded,
            mounts=[(mount, mount.loaded) for mount in mounts],
            x_sendfile=settings.files.x_accel_mapping or (() if sends_files else None),
        ),
        listeners,
        settings,
        tls=tls,
        request_done=request_done,
        error_logger=main.flask.logger,
        route_of=router.route,
        has_limits=router.has_limits,
        exempt=lambda address: not address or trust.covers(address),
        announcers=trust if settings.proxy.proxy_protocol else None,
        own_paths=router.own_paths,
        file_for=FileLookup(files, settings.proxy, trust).find if files is not None else None,
        loads=loads,
        checked=checked,
        clock=clock,
    )


def _limits_within_files(limits: Limits, *, log_notices: bool) -> Limits:
    """Raise the limit of open files, and lower MAX_CONNECTIONS if it is still too low. A connection
    may need a temporary file as well.
    """
    wanted = limits.max_connections
    allowed = allow_open_files(2 * wanted + OTHER_FILES)
    fitting = max(allowed - OTHER_FILES, allowed // 2)
    if fitting >= wanted:
        return limits
    if log_notices:
        logger.warning(
            "MAX_CONNECTIONS is %d, but this process may open only %d files, so it accepts %d connections. "
            "Raise the limit (ulimit -n, LimitNOFILE= in a systemd unit, --ulimit of docker run), or lower MAX_CONNECTIONS",
            wanted,
            allowed,
            fitting,
        )
    return dataclasses.replace(limits, max_connections=fitting)
