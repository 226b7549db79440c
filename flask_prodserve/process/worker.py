"""A worker: the process that serves the app, as seen from inside.

The main thread loads the app and then is the engine's steward; another thread listens to the
supervisor. What is served, and how, is behind :class:`Service`: nothing here knows Flask or the
engine.

A worker does not outlive its supervisor for long. When the link ends, it drains and exits. If
another process keeps the link open, it notices by its parent's process id, which it checks with
each report. Before it listens, the system's parent-death signal ends it.

What the app leaves running delays the exit of a worker until GRACEFUL_TIMEOUT is over, see
``exit_guard``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..clock import Deadline
from ..errors import ExitCode, ProdServeError
from ..net import forked
from ..net.listeners import Listener, from_descriptor
from ..net.loads import Loads
from ..observe.events import Activity, Drained
from ..units import parse_address
from . import crash_dump
from .exit_guard import COMMAND_SECONDS, ExitGuard
from .link import Broken, Link
from .messages import (
    Abort,
    Appoint,
    Drain,
    Failed,
    Loaded,
    Ready,
    Released,
    Reopen,
    Report,
    Retire,
    SendStacks,
    Serve,
    Stacks,
)
from .signals import HANDLED, install, nothing

_PR_SET_PDEATHSIG = 1


class Service(Protocol):
    """What a worker serves. Methods that say so may be called from any thread."""

    @property
    def loaded(self) -> Loaded: ...

    def start(
        self,
        listeners: Sequence[Listener],
        loads: Loads,
        checked: Callable[[Activity], None],
        retire: Callable[[str], None],
    ) -> None:
        """Start serving.

        *checked* is called every half second with the current activity, *retire* with a reason if
        the process should be replaced.
        """

    def run(self) -> Drained:
        """Serve until :meth:`stop`."""

    def time_to_exit(self) -> Deadline:
        """Return until when the process may live on after :meth:`run`, for what the app does at its
        end.
        """

    def stop(self, delay: float, *, last: bool = False, interrupted: bool = False) -> None:
        """Begin to stop, with the arguments of :class:`~.messages.Drain`. From any thread."""

    def abort(self) -> None:
        """Stop now and cut running requests. From any thread."""

    def start_once(self) -> None:
        """Start the ``once`` functions."""

    def stop_once(self) -> bool:
        """Stop the ``once`` functions and wait for their end.

        Returns whether another process may start them now.
        """

    def reopen_logs(self) -> None: ...

    def stacks(self) -> str:
        """Return the stacks of all threads."""

    def close(self) -> None:
        """Run the app's hooks for the end of a process, and close the logs."""


@dataclass(frozen=True, slots=True)
class WorkerInit:
    """What a worker must know when it starts."""

    number: int
    generation: int
    first_of_generation: bool
    """It logs what is logged once per generation."""
    link: Link
    supervisor: int
    """The supervisor's process id."""
    others_ready: bool
    """The supervisor goes on without this worker, and logs why it cannot serve."""
    dump: int | None
    """The descriptor to which it writes its stacks if a signal ends it."""


def begin() -> None:
    """Set the signals for a worker that loads its app, and unblock them; the fork left them
    blocked, see ``signals``.
    """
    # A terminal sends these to all processes at once; the supervisor decides what happens.
    ignored = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    for number in ignored:
        install(number, nothing)
    for number in HANDLED - ignored:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def work(init: WorkerInit, load: Callable[[], Service]) -> int:
    """Be a worker, and return its exit code.

    Raises what *load* and the service raise, unless the supervisor logs it.
    """
    # The supervisor sends SIGABRT to a worker that does not report.
    crash_dump.enable(init.dump)
    forked.call_in_child(init.link.close)
    try:
        with forked.in_parent_only():
            service = load()
        # The link stays open, and is read, until the process ends.
        return _Work(init, service).run()
    except BaseException as error:
        reported = isinstance(error, ProdServeError) and init.link.send(Failed(str(error))) and init.others_ready
        init.link.close()
        if reported and isinstance(error, ProdServeError):
            ExitGuard(Deadline(COMMAND_SECONDS), error.exit_code, limit="").leave()
            return error.exit_code
        raise


def die_with(supervisor: int) -> None:
    """Ask the system to end this process when its supervisor dies, where it can.

    Must be called again after a change of the user.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a libc without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(ExitCode.BOOT)  # it has died already


class _Work:
    def __init__(self, init: WorkerInit, service: Service) -> None:
        self._link = init.link
        self._supervisor = init.supervisor
        self._service = service
        self._guard: ExitGuard | None = None
        self._asked_to_retire = False

    def run(self) -> int:
        self._link.send(self._service.loaded)
        serve = self._await_start()
        if serve is None:
            return ExitCode.BOOT  # the supervisor has died
        *descriptors, memory = self._link.take_descriptors()
        loads = Loads(memory, serve.slot)
        os.close(memory)
        listeners = [
            from_descriptor(descriptor, parse_address(address), None)
            for descriptor, address in zip(descriptors, serve.addresses, strict=True)
        ]
        install(signal.SIGTERM, self._on_sigterm)

        def abandon() -> None:
            for listener in listeners:
                listener.socket.close()

        # Now: the app's hooks may fork before the engine has the listeners.
        forked.call_in_child(abandon)
        self._service.start(listeners, loads, self._report, self._retire)
        threading.Thread(target=self._listen, name="prodserve-link", daemon=True).start()
        self._link.send(Ready())
        drained = self._service.run()
        self._guard = ExitGuard(self._service.time_to_exit(), ExitCode.STOPPED)
        self._stop_once()
        self._service.close()
        self._link.send(drained)
        self._guard.leave()
        return ExitCode.STOPPED

    def _await_start(self) -> Serve | None:
        while (messages := self._link.receive()) is not None:
            for message in messages:
                if isinstance(message, Serve):
                    return message
        return None

    def _on_sigterm(self, number: int, frame: object) -> None:
        # A signal handler must take no locks, so the next report passes it on.
        self._asked_to_retire = True

    def _report(self, activity: Activity) -> None:
        if self._asked_to_retire:
            self._asked_to_retire = False
            self._retire("it received SIGTERM")
        if os.getppid() != self._supervisor:
            self._service.stop(0.0, last=True)
        self._link.offer(
            Report(
                served=activity.served,
                connections=activity.connections,
                busy=activity.busy,
                queued=activity.queued,
                stuck=activity.stuck,
                healthy=activity.healthy,
                memory=resident_bytes(),
            )
        )

    def _retire(self, reason: str) -> None:
        self._link.send(Retire(reason))

    # The thread that listens to the supervisor.

    def _listen(self) -> None:
        try:
            while (messages := self._link.receive()) is not None:
                for message in messages:
                    self._obey(message)
        except Broken:
            pass
        self._service.stop(0.0, last=True)  # all workers end with their supervisor

    def _obey(self, message: object) -> None:
        match message:
            case Drain(delay, last, interrupted):
                self._service.stop(delay, last=last, interrupted=interrupted)
                # In a thread of its own: it may take long, and this thread must go on listening.
                threading.Thread(target=self._stop_once, name="prodserve-stop-once", daemon=True).start()
            case Abort():
                self._service.abort()
                if self._guard is not None:
                    self._guard.end_now()
            case Appoint():
                self._service.start_once()
            case Reopen():
                self._service.reopen_logs()
            case SendStacks():
                self._link.send(Stacks(self._service.stacks()))

    def _stop_once(self) -> None:
        if self._service.stop_once():
            self._link.send(Released())


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
