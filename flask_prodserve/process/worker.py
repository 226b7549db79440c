"""A worker: the process in which the app is served, as seen from inside.

The main thread loads the app and is the engine's steward; a thread of its own listens to the supervisor. What is served, and how, is
behind :class:`Service`: nothing here knows Flask or the engine.

A worker never outlives its supervisor for long: the end of the link makes it drain and end, or, if something else holds the other end of
that, its parent's id, which it checks with each report. Until it listens there the system's parent-death signal ends it.

What the app leaves running delays the end of a worker until GRACEFUL_TIMEOUT is over, see ``exit_guard``.
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
    """What a worker serves."""

    @property
    def loaded(self) -> Loaded: ...

    def start(
        self,
        listeners: Sequence[Listener],
        loads: Loads,
        checked: Callable[[Activity], None],
        retire: Callable[[str], None],
    ) -> None:
        """Begin to serve. *checked* is told every half second what is going on, *retire* that another process would do better, and why."""

    def run(self) -> Drained:
        """Serve until :meth:`stop`."""

    def time_to_exit(self) -> Deadline:
        """Until when the process may live on after :meth:`run`, for what the app does at its end."""

    def stop(self, delay: float, *, last: bool = False, interrupted: bool = False) -> None:
        """Begin to stop. *last*: nobody else goes on listening. *interrupted*: it was CTRL+C. From any thread."""

    def abort(self) -> None:
        """Stop now; what is running is cut. From any thread."""

    def start_once(self) -> None:
        """Do what exactly one worker does."""

    def stop_once(self) -> bool:
        """Stop that, and wait for its end. Returns whether another process may begin now."""

    def reopen_logs(self) -> None: ...

    def stacks(self) -> str:
        """Where every thread is."""

    def close(self) -> None:
        """Tell the app that it is over."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What a worker knows of itself when it begins. *pioneer*: the first of its generation, and so the one that says what is to be said
    once. *settled*: others have been ready before it, so that the supervisor goes on, and says why this one cannot serve.
    """

    number: int
    generation: int
    pioneer: bool
    link: Link
    supervisor: int
    """The process id."""
    settled: bool
    dump: int | None
    """The descriptor for its stacks if a signal ends it."""


def begin() -> None:
    """Have signals do what they should in a worker that is loading its app. They are blocked until then, see ``signals``."""
    # These come from a terminal, to all processes at once; the supervisor knows what to do.
    ignored = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    for number in ignored:
        install(number, nothing)
    for number in HANDLED - ignored:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def work(birth: Birth, load: Callable[[], Service]) -> int:
    """Be a worker, and return the exit code. Raises what *load* and the service raise, but for what the supervisor says."""
    # The supervisor sends SIGABRT to a worker that does not report.
    crash_dump.enable(birth.dump)
    forked.call_in_child(birth.link.close)
    try:
        with forked.in_parent_only():
            service = load()
        return _Work(birth, service).run()  # the link stays open, and is heard, until the process ends
    except BaseException as error:
        said = isinstance(error, ProdServeError) and birth.link.send(Failed(str(error))) and birth.settled
        birth.link.close()
        if said and isinstance(error, ProdServeError):
            ExitGuard(Deadline(COMMAND_SECONDS), error.exit_code, limit="").leave()
            return error.exit_code
        raise


def die_with(supervisor: int) -> None:
    """Have the system end this process when the supervisor dies, as far as it can. To be called again after a change of the user."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a libc without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(ExitCode.BOOT)  # it died before


class _Work:
    def __init__(self, birth: Birth, service: Service) -> None:
        self._link = birth.link
        self._supervisor = birth.supervisor
        self._service = service
        self._guard: ExitGuard | None = None
        self._asked_to_retire = False

    def run(self) -> int:
        self._link.send(self._service.loaded)
        serve = self._await_start()
        if serve is None:
            return ExitCode.BOOT  # the supervisor has gone
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

        forked.call_in_child(abandon)  # the app's hooks come before the engine
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
        # The next report tells the supervisor: a handler takes no locks.
        self._asked_to_retire = True

    def _report(self, activity: Activity) -> None:
        if self._asked_to_retire:
            self._asked_to_retire = False
            self._retire("it got SIGTERM")
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
                # In a thread of its own: it may take its time, and there may be more to hear.
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
    """How much memory this process has; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
