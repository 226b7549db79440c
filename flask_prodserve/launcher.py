"""The composition root: turns an app and its settings into one process that serves, or into a
supervisor with workers.

Only this module knows all the parts. It raises :class:`~.errors.ProdServeError` and returns exit
codes; it never exits.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .apps.hooks import AppsHooks
from .apps.main_app import served_apps
from .errors import BindError, ExitCode
from .net import forked, systemd
from .net.listeners import Listener, open_listeners
from .net.root_only import open_to_others
from .net.tls import Certificates
from .observe import line_writer, startup
from .observe.logging import coloured, configure
from .observe.standard_streams import queued_streams
from .process import control, handover
from .process.exit_guard import ExitGuard
from .process.pidfile import remove_pidfile, write_pidfile
from .process.signals import install
from .service import Service
from .settings import DEFAULT_ORIGIN, TABLE, Resolved, Settings
from .settings.for_root import refuse_untrusted
from .version import __version__

if TYPE_CHECKING:
    from .apps.main_app import MainApp
    from .process.environment import Environment
    from .process.generation_spec import GenerationSpec

logger = logging.getLogger("flask_prodserve")

Load = Callable[[bool], "tuple[MainApp, Resolved]"]
"""Loads the app and resolves its settings.

If its argument is true, it logs what is logged once per generation.
"""


def can_supervise() -> bool:
    """Return whether this system has what a supervisor needs."""
    return hasattr(os, "fork") and sys.platform != "win32"


@queued_streams()
def launch(
    main: MainApp, resolved: Resolved, *, import_path: str, ends_process: bool = False, keeps_signals: bool = False
) -> int:
    """Serve *main* in this process until a signal stops it, and return the exit code.

    *resolved* are the settings without a supervisor.

    *ends_process*: once the main thread has ended, what the app has left running delays the exit
    for GRACEFUL_TIMEOUT at most. *keeps_signals*: the process exits after this call, so signals
    stay handled until its end.

    A failure before the banner raises :class:`~.errors.ProdServeError` and leaves nothing open.
    Signals are handled only in the main thread; in another thread only the end of the process stops
    the server.
    """
    settings = resolved.settings
    notifier, inherited = _from_systemd()
    service = Service(main, resolved, import_path=import_path)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(service.close)
        with _holders_named():
            listeners = open_listeners(
                settings.addresses,
                backlog=settings.bind.backlog,
                unix_socket_mode=settings.bind.unix_socket_mode,
                inherited=inherited,
            )
        for listener in listeners:
            cleanup.callback(listener.close)

        def abandon() -> None:
            for listener in listeners:
                listener.socket.close()
            for given in inherited:
                os.close(given.descriptor)

        forked.call_in_child(abandon)
        cleanup.callback(forked.forget, abandon)
        if settings.process.pidfile is not None:
            write_pidfile(settings.process.pidfile)
            cleanup.callback(remove_pidfile, settings.process.pidfile)
        with _signals(service, settings.timeouts.drain_delay, restore=not keeps_signals) as received:
            service.start(listeners, checked=lambda activity: notifier.watchdog())
            service.start_once()
            _announce(resolved.settings, resolved.origins, main.flask.name, import_path, listeners, processes=1)
            _warn_of_root("Start it under its own account, or run `flask serve` with workers and set USER (--user)")
            notifier.ready()
            drained = service.run()
            interrupts = [number for number in received if number == signal.SIGINT]
            at_once = [number for number in received if number.name == "SIGQUIT"] + interrupts[1:]
            code = 128 + at_once[0] if at_once else ExitCode.STOPPED
            guard = None
            if ends_process and threading.current_thread() is threading.main_thread():
                guard = ExitGuard(service.time_to_exit(), code)
                if keeps_signals:
                    guard.take_signals()
            notifier.stopping()
            service.stop_once()
    startup.report_end(
        logger, drained.finished, drained.cut, drained.left, settings.timeouts.graceful_timeout, late=not at_once
    )
    if guard is not None:
        guard.leave()
    return code


def supervise(load: Load, resolved: Resolved, environment: Environment, *, import_path: str | None) -> int:
    """Supervise workers that serve what *load* loads, until a signal stops the server.

    Returns the exit code, also in a worker.

    *resolved* are the settings that are known without the app; *import_path* is the app's import
    string. The supervisor's environment becomes what the process started with, and workers get the
    environment of the app. Raises :class:`~.errors.ProdServeError`, and in a worker what *load* and
    the service raise.
    """
    from .process.preflight_check import StartCommand
    from .process.privileges import assume, identity
    from .process.readable import check, needed
    from .process.supervisor import Supervisor
    from .process.worker import die_with, work

    early, origins = resolved.settings, resolved.origins
    handed_over = handover.take_over(environment.started)
    environment.keep_for_supervisor()
    notifier, inherited = _from_systemd(taken_over=handed_over is not None)
    configure(early.observe.log_level, explicit=origins["LOG_LEVEL"] != DEFAULT_ORIGIN)
    account = identity(early.process.user, early.process.group)
    unprivileged = account is not None and account.uid != 0
    if unprivileged:
        refuse_untrusted(resolved, environment.untrusted())
    folder = control.working_folder(os.environ)

    def announce(spec: GenerationSpec, workers: int) -> None:
        loaded = spec.loaded
        _announce(spec.settings, loaded.origins, loaded.app_name, loaded.import_path, spec.listeners, processes=workers)
        if account is None:
            _warn_of_root("Set USER (--user) to an account for the app")

    supervisor = Supervisor(
        early,
        StartCommand(_program(), tuple(sys.orig_argv), folder, environment.started),
        identity=account,
        inherited=inherited,
        notifier=notifier,
        control_path=_control_path(early, import_path, folder),
        configure=lambda spec: configure(
            spec.settings.observe.log_level, explicit=spec.loaded.origins["LOG_LEVEL"] != DEFAULT_ORIGIN
        ),
        announce=announce,
        handed_over=handed_over,
    )
    # PRELOAD with USER is an error, which loading the app reports: in a worker, and so without
    # root's rights.
    preloads = early.workers.preload and early.process.user is None
    if preloads:
        environment.give_to_app()
        if handed_over is None:
            install(signal.SIGTERM, _end_loading)
        load = _preload(load)
    with _holders_named():
        outcome = supervisor.run()
    if isinstance(outcome, int):
        guard = ExitGuard(supervisor.time_to_exit, outcome)
        guard.take_signals()
        guard.leave()
        return outcome

    init = outcome
    line_writer.use_queues()

    def service() -> Service:
        # The directory may be gone while the app can still be imported.
        with contextlib.suppress(OSError):
            os.chdir(folder)
        # Read before root's rights are given up, because only root may be able to. The supervisor,
        # which is root, watches for new files.
        as_root = account is not None and early.tls.pairs and not any(map(open_to_others, early.tls.files))
        certificates = Certificates(early.tls, renews=False) if as_root else None
        if not preloads:
            environment.give_to_app()
        to_read = needed(import_path, folder) if unprivileged else None
        assume(account, early.process.umask)
        if to_read is not None:
            check(to_read, log_notices=init.first_of_generation)
        die_with(init.supervisor)
        main, resolved = load(init.first_of_generation)
        return Service(
            main,
            resolved,
            import_path=import_path or main.flask.import_name,
            certificates=certificates if resolved.settings.tls == early.tls else None,
            log_notices=init.first_of_generation,
        )

    return work(init, service)


def _end_loading(number: int, frame: object) -> None:
    """Exit with the code of a server that was stopped.

    The default action of the signal does not end process 1 of a container.
    """
    raise SystemExit(ExitCode.STOPPED)


def _preload(load: Load) -> Load:
    """Load the app in this process, for all workers."""
    with forked.in_parent_only():
        main, resolved = load(True)
        AppsHooks(served_apps(main.flask, resolved.settings.wsgi.mounts)).run_before_fork()
    line_writer.pause()  # its thread is not the app's
    if (threads := threading.active_count()) > 1:
        logger.warning(
            "PRELOAD: the app started %d thread%s while it was loaded, which workers do not have. Start them in worker_started",
            threads - 1,
            "s"[: threads > 2],
        )
    gc.collect()
    gc.freeze()  # memory that the collector does not touch stays shared
    return lambda log_notices: (main, resolved)


def _program() -> str:
    """Return the path under which the interpreter was started: after an update it may be another
    interpreter.
    """
    return sys.executable or shutil.which(sys.orig_argv[0]) or sys.orig_argv[0]


@contextlib.contextmanager
def _holders_named() -> Iterator[None]:
    """Add the server of this account that has an address to an error about an address in use."""
    try:
        yield
    except BindError as error:
        raise control.name_holder(error, os.environ) from error


def _control_path(early: Settings, import_path: str | None, folder: str) -> str | None:
    match early.observe.control_socket:
        case "off":
            return None
        case "auto":
            return control.automatic_path(control.key_of(import_path, folder), folder, os.getpid(), os.environ)
        case path:
            return path


def _from_systemd(*, taken_over: bool = False) -> tuple[systemd.Notifier, list[systemd.Inherited]]:
    """Return what systemd has passed, and remove its variables from the environment.

    With *taken_over* the sockets are open already.
    """
    notifier = systemd.Notifier.from_environment(os.environ)
    inherited = [] if taken_over else systemd.inherited_sockets(os.environ, os.getpid())
    for name in systemd.HIDDEN:
        os.environ.pop(name, None)
    return notifier, inherited


@contextlib.contextmanager
def _signals(service: Service, drain_delay: float, *, restore: bool) -> Iterator[list[signal.Signals]]:
    """Handle signals inside the block: SIGTERM, SIGINT and SIGHUP (a terminal that closes) stop
    *service*.

    SIGQUIT and a second SIGINT stop it at once; SIGUSR1 reopens its logs. SIGHUP is left alone if
    it is ignored (``nohup``) or the app handles it. Yields the list of the signals that have
    arrived. *restore*: set the previous handlers at the end. A handler sets flags and logs nothing,
    because it may have interrupted a log call of the same thread.
    """
    received: list[signal.Signals] = []

    def handle(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        if number == signal.SIGINT and received.count(signal.SIGINT) > 1:
            service.abort()
        else:
            service.stop(drain_delay, interrupted=number == signal.SIGINT)

    def quit(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        service.abort()

    handlers: dict[str, Callable[[int, object], None]] = {
        "SIGTERM": handle,
        "SIGINT": handle,
        "SIGQUIT": quit,
        "SIGUSR1": lambda number, frame: service.reopen_logs(),
    }
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        handlers["SIGHUP"] = handle
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = {
        number: handler for name, handler in handlers.items() if (number := getattr(signal, name, None)) is not None
    }
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in numbers.items():
        install(number, handler)
    finished = False
    try:
        yield received
        finished = True
    finally:
        if restore or not finished:
            for number, original in before.items():
                signal.signal(number, original)


def _announce(
    settings: Settings,
    origins: Mapping[str, str],
    app_name: str,
    import_path: str,
    listeners: Sequence[Listener],
    *,
    processes: int,
) -> None:
    redirecting = settings.tls.tls_redirect_bind or ()
    started = startup.Started(
        app_name=app_name,
        import_path=import_path,
        version=__version__,
        urls=tuple(
            listener.url(settings.scheme(listener.address))
            for listener in listeners
            if listener.address not in redirecting
        ),
        redirects=tuple(listener.url("http") for listener in listeners if listener.address in redirecting),
        processes=processes,
        threads=settings.workers.threads,
        threads_origin=origins["THREADS"],
        mounts=tuple(map(str, settings.wsgi.mounts or ())),
        trusted_proxies=TABLE["TRUSTED_PROXIES"].write(settings.proxy.trusted_proxies),
        graceful_timeout=TABLE["GRACEFUL_TIMEOUT"].write(settings.timeouts.graceful_timeout),
        pid=os.getpid(),
    )
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError):  # the terminal was closed just now
            sys.stderr.write(startup.banner(started, coloured=coloured(sys.stderr)))
            sys.stderr.flush()
    else:
        logger.info(startup.line(started))


def _warn_of_root(remedy: str) -> None:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        logger.warning("the app runs as root; anyone who compromises it controls this machine. %s", remedy)
