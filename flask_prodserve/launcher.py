"""The composition root: from an app and its settings to a process that serves, or to a supervisor with workers, and back.

The only place that knows all the parts. It raises :class:`~.errors.ProdServeError` and returns exit codes; it never exits.
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

from .apps.sites import served_apps
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
from .process.hooks import AppsHooks
from .process.pidfile import remove_pidfile, write_pidfile
from .process.signals import install
from .service import Service
from .settings import DEFAULT_ORIGIN, TABLE, Resolved, Settings
from .settings.for_root import refuse_untrusted
from .version import __version__

if TYPE_CHECKING:
    from .apps.main_app import MainApp
    from .process.environment import Environment
    from .process.offer import Offer

logger = logging.getLogger("flask_prodserve")

Load = Callable[[bool], "tuple[MainApp, Resolved]"]
"""Loads the app and resolves its settings; says what is to be said of it, if its argument is true."""


def can_supervise() -> bool:
    """Whether this system has what a supervisor needs."""
    return hasattr(os, "fork") and sys.platform != "win32"


@queued_streams()
def launch(
    main: MainApp, resolved: Resolved, *, import_path: str, ends_process: bool = False, keeps_signals: bool = False
) -> int:
    """Serve *main* in this process until a signal says stop, and return the exit code. *resolved* is what holds without a supervisor.

    *ends_process*: what the app has left running holds the process up for GRACEFUL_TIMEOUT at most, once its main thread has ended.
    *keeps_signals*: nothing else comes afterwards; signals stay handled until the end.

    What fails before the banner raises :class:`~.errors.ProdServeError` and leaves nothing open. Signals are handled only where this is
    the main thread; elsewhere nothing stops it but the end of the process.
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
            _warn_of_root(
                "Start it as an account of its own, or have `flask serve` start workers, and set USER (--user)"
            )
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
    startup.report_end(logger, drained.finished, drained.cut, drained.left, settings, late=not at_once)
    if guard is not None:
        guard.leave()
    return code


def supervise(load: Load, resolved: Resolved, environment: Environment, *, import_path: str | None) -> int:
    """Be the supervisor of workers that serve what *load* loads, until a signal says stop; in those, serve. Returns the exit code.

    *resolved* are the settings that are known without the app; *import_path* is what the app was called by. The supervisor's environment
    becomes what the process was started with, and workers get what the app is to see. Raises :class:`~.errors.ProdServeError`, in a
    worker what *load* and the service raise.
    """
    from .process.privileges import assume, identity
    from .process.readable import check, needed
    from .process.rehearsal import Command
    from .process.supervisor import Supervisor
    from .process.worker import die_with, work

    early, origins = resolved.settings, resolved.origins
    left = handover.take(environment.started)
    environment.keep_for_supervisor()
    notifier, inherited = _from_systemd(taken_over=left is not None)
    configure(early.observe.log_level, explicit=origins["LOG_LEVEL"] != DEFAULT_ORIGIN)
    account = identity(early.process.user, early.process.group)
    unprivileged = account is not None and account.uid != 0
    if unprivileged:
        refuse_untrusted(resolved, environment.untrusted())
    folder = control.working_folder(os.environ)

    def announce(offer: Offer, workers: int) -> None:
        loaded = offer.loaded
        _announce(
            offer.settings, loaded.origins, loaded.app_name, loaded.import_path, offer.listeners, processes=workers
        )
        if account is None:
            _warn_of_root("Set USER (--user) to an account of its own")

    supervisor = Supervisor(
        early,
        Command(_program(), tuple(sys.orig_argv), folder, environment.started),
        identity=account,
        inherited=inherited,
        notifier=notifier,
        control_path=_control_path(early, import_path, folder),
        configure=lambda offer: configure(
            offer.settings.observe.log_level, explicit=offer.loaded.origins["LOG_LEVEL"] != DEFAULT_ORIGIN
        ),
        announce=announce,
        left=left,
    )
    # USER contradicts it, which is said where the app is loaded: in a worker, and so without the rights of root.
    preloads = early.workers.preload and early.process.user is None
    if preloads:
        environment.give_to_app()
        if left is None:
            install(signal.SIGTERM, _end_loading)
        load = _preload(load)
    with _holders_named():
        outcome = supervisor.run()
    if isinstance(outcome, int):
        guard = ExitGuard(supervisor.time_to_exit, outcome)
        guard.take_signals()
        guard.leave()
        return outcome

    birth = outcome
    line_writer.use_queues()

    def service() -> Service:
        with contextlib.suppress(OSError):  # where the folder has gone, its worker's files may still be there
            os.chdir(folder)
        # Before rights are given up, since maybe only root can read them. The supervisor, which is root, looks for newer ones.
        as_root = account is not None and early.tls.pairs and not any(map(open_to_others, early.tls.files))
        certificates = Certificates(early.tls, renews=False) if as_root else None
        if not preloads:
            environment.give_to_app()
        to_read = needed(import_path, folder) if unprivileged else None
        assume(account, early.process.umask)
        if to_read is not None:
            check(to_read, log_notices=birth.pioneer)
        die_with(birth.supervisor)
        main, resolved = load(birth.pioneer)
        return Service(
            main,
            resolved,
            import_path=import_path or main.flask.import_name,
            certificates=certificates if resolved.settings.tls == early.tls else None,
            says=birth.pioneer,
        )

    return work(birth, service)


def _end_loading(number: int, frame: object) -> None:
    """Exit as a server does that is told to stop. The default action would not end process 1 of a container."""
    raise SystemExit(ExitCode.STOPPED)


def _preload(load: Load) -> Load:
    """Load the app here and now, for all workers."""
    with forked.in_parent_only():
        main, resolved = load(True)
        AppsHooks(served_apps(main.flask, resolved.settings)).run_before_fork()
    line_writer.pause()  # its thread is not the app's
    if (threads := threading.active_count()) > 1:
        logger.warning(
            "PRELOAD: the app has started %d thread%s while it was loaded, which workers do not have. Start them in worker_started",
            threads - 1,
            "s"[: threads > 2],
        )
    gc.collect()
    gc.freeze()  # what is never collected is never written to, and stays shared
    return lambda says: (main, resolved)


def _program() -> str:
    """The interpreter, by the name that it was started under: an upgrade may have put another one there."""
    return sys.executable or shutil.which(sys.orig_argv[0]) or sys.orig_argv[0]


@contextlib.contextmanager
def _holders_named() -> Iterator[None]:
    """Have an error about an address in use name the server of this account that has it."""
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
    """What systemd gave this process. Its variables are removed from the environment. With *taken_over* the sockets are here already."""
    notifier = systemd.Notifier.from_environment(os.environ)
    inherited = [] if taken_over else systemd.inherited_sockets(os.environ, os.getpid())
    for name in systemd.HIDDEN:
        os.environ.pop(name, None)
    return notifier, inherited


@contextlib.contextmanager
def _signals(service: Service, drain_delay: float, *, restore: bool) -> Iterator[list[signal.Signals]]:
    """Let SIGTERM and SIGINT stop *service*, and SIGHUP (a terminal that closes), unless it is ignored (``nohup``) or the app handles it;
    SIGQUIT and a second SIGINT stop it at once; SIGUSR1 opens its logs again.

    Yields the list of the signals that came. *restore*: put the handlers back that were there before. A handler sets flags; it logs
    nothing, since it may have interrupted a log call of this very thread.
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
        with contextlib.suppress(OSError):  # the terminal has just been closed
            sys.stderr.write(startup.banner(started, coloured=coloured(sys.stderr)))
            sys.stderr.flush()
    else:
        logger.info(startup.line(started))


def _warn_of_root(remedy: str) -> None:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        logger.warning("the app runs as root: who takes it over has the machine. %s", remedy)
