"""The supervisor: binds the listeners, starts and stops workers, and never imports the app.

It carries out what ``plan`` decides, in one thread and one loop: whatever is registered with the selector has a function as its data,
which is called when it is ready. A worker is born inside :meth:`Supervisor.run`, which then returns in the child, too: the caller goes on
as a worker, so that its process ends as every Python process does.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..clock import Deadline, monotonic
from ..errors import ExitCode, ProdServeError
from ..net import forked
from ..net.file_watch import FileWatch
from ..net.listeners import exchange_listeners
from ..net.loads import Loads
from ..net.processors import available
from ..net.systemd import Inherited, Notifier
from ..observe import line_writer, startup
from ..observe.events import Drained
from ..settings import Settings
from ..settings.for_root import refuse_from_app
from ..units import format_address
from . import actions, control, events, handover, messages
from .crash_dump import open_dump
from .exit_guard import end_daemons
from .handle import Handle
from .handover import Estate
from .inquiry import Inquiry
from .link import Link
from .offer import Offer, read_settings
from .pidfile import remove_pidfile, write_pidfile
from .plan import decide, next_look
from .privileges import Identity
from .rehearsal import Command, Rehearsal
from .signals import ENDING, HANDLED, SignalInbox, blocked
from .state import Phase, Renewal, Rules, State
from .status import describe, in_short
from .terminal import Terminal
from .worker import Birth, begin

logger = logging.getLogger("flask_prodserve.supervisor")

MOST_WORKERS = 1000

SLOTS = 2 * MOST_WORKERS
"""Processes that can share their loads: as many workers, and those that drain or boot beside them."""

EXIT_SECONDS = 1.0
"""How long the supervisor lives on at least for what the app has started in it (PRELOAD)."""

CERTIFICATES_SECONDS = 1.0
"""How often the supervisor looks for new certificates, where only it can read them."""

Respond = Callable[[Mapping[str, object]], None]


class _Born(Exception):
    """This process is a worker from now on."""

    def __init__(self, birth: Birth) -> None:
        self.birth = birth


class Supervisor:
    """*early* are the settings that are known without the app, *left* what the supervisor before this one has left. *configure* sets
    logging up for the settings of a generation, *announce* tells the world that the server is there, with how many workers.
    """

    def __init__(
        self,
        early: Settings,
        command: Command,
        *,
        identity: Identity | None,
        inherited: Sequence[Inherited],
        notifier: Notifier,
        control_path: str | None,
        configure: Callable[[Offer], None],
        announce: Callable[[Offer, int], None],
        left: Estate | None,
    ) -> None:
        self._early = early
        self._command = command
        self._identity = identity
        self._inherited = inherited
        self._notifier = notifier
        self._control_path = control_path
        self._configure = configure
        self._announce = announce
        self._rules = Rules(boot_timeout=early.workers.boot_timeout, preload=early.workers.preload)
        self._estate = left or Estate(monotonic())
        self._taken_over = left is not None
        self._events: deque[events.Event] = deque()
        self._exit_code: int | None = None
        self._failure: ProdServeError | None = None
        self._interrupted = False
        self._at_once = False
        self._finished = self._cut = self._left = 0
        self._late = False
        self._rehearsal: Rehearsal | None = None
        self._inquiries: list[Inquiry] = []
        self._awaiting_renewal: list[Respond] = []
        self._next_watchdog = Deadline(0)
        # Workers that have given their rights up can read certificates no more.
        self._certificates = FileWatch(early.tls.files) if identity is not None and early.tls.pairs else None
        self._next_look_at_certificates = Deadline(0)
        self._selector = selectors.DefaultSelector()
        self._inbox = SignalInbox()
        self._terminal = Terminal(immune=any(number.name == "SIGHUP" for number in self._inbox.ignored))
        self._control: control.ControlServer | None = None
        self._graceful: Deadline | None = None
        forked.call_in_child(self._abandon)  # now: with PRELOAD the app is loaded before run()
        # Before a preloaded app is imported. At an upgrade all signals are blocked since the supervisor before this one, and what the app
        # starts would inherit that. At a start those that end a process do so, and the others wait for run().
        self._inbox.open(HANDLED if self._taken_over else HANDLED - ENDING)

    @property
    def time_to_exit(self) -> Deadline:
        """Until when the process may live on after :meth:`run`: with PRELOAD the app may have started something in it."""
        return Deadline(
            max(EXIT_SECONDS, 0.0 if self._at_once or self._graceful is None else self._graceful.remaining())
        )

    @property
    def _state(self) -> State:
        return self._estate.state

    def run(self) -> int | Birth:
        """Run the server, and return the exit code when it is over; or, in a worker, what that needs to know.

        Raises ProdServeError where PIDFILE, CONTROL_SOCKET or the first worker's addresses cannot be had.
        """
        self._begin()
        try:
            self._carry_out(events.Tick())
            while self._exit_code is None:
                for key, _ in self._selector.select(self._timeout()):
                    key.data()
                self._look_at_time()
                if self._exit_code is None:
                    self._carry_out(events.Tick())
        except _Born as born:
            return born.birth
        self._end()
        if self._failure is not None:
            raise self._failure
        return self._exit_code

    # The beginning and the end.

    def _begin(self) -> None:
        if self._taken_over:
            self._obey(self._estate.offers[self._state.settled])
            for handle in self._estate.handles.values():
                self._listen_to(handle)
            self._notifier.main_pid(os.getpid())
            logger.info("the supervisor has been replaced; now for its workers")
        elif self._early.process.pidfile is not None:
            write_pidfile(self._early.process.pidfile)
        self._open_control()
        self._selector.register(self._inbox.socket, selectors.EVENT_READ, self._on_signals)
        self._inbox.open()
        self._reap()

    def _open_control(self) -> None:
        if self._estate.control is not None:
            listening = socket.socket(fileno=self._estate.control)
        elif self._control_path is None:
            if self._early.observe.control_socket == "auto":
                _log_no_control_socket(
                    "$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and $TMPDIR (/tmp) are missing, read-only or not safe"
                )
            return
        else:
            try:
                listening = control.open_control_socket(self._control_path)
            except ProdServeError as error:
                if self._early.observe.control_socket != "auto":
                    raise
                _log_no_control_socket(error.what)
                return
            self._estate.control = listening.fileno()
        self._control = control.ControlServer(listening, self._selector, self._on_request)

    def _end(self) -> None:
        for listener in self._estate.listeners:
            listener.socket.close()
            listener.remove_path()
        if self._early.process.pidfile is not None:
            remove_pidfile(self._early.process.pidfile)
        self._inbox.close()
        if self._rehearsal is not None:
            self._rehearsal.kill()
        if self._control is not None:
            self._control.close()  # last: it tells `flask serve stop` that nothing is in the way of the next server

    def _abandon(self) -> None:
        """Let go of everything in a child, which is no supervisor: a worker, or what the app has forked (see ``net.forked``). Nothing is
        removed, nor unregistered: the selector is the parent's.
        """
        self._selector.close()
        self._inbox.close()
        for handle in self._estate.handles.values():
            handle.link.close()
            handle.close_dump()
        for listener in self._estate.listeners:
            listener.socket.close()
        if self._control is not None:
            self._control.abandon()
        elif self._estate.control is not None:
            os.close(self._estate.control)
        for descriptor in (*self._estate.loads, *(given.descriptor for given in self._inherited)):
            os.close(descriptor)

    # The loop.

    def _timeout(self) -> float | None:
        times = [inquiry.deadline.remaining() for inquiry in self._inquiries]
        if (at := next_look(self._state, self._rules)) is not None:
            times.append(at - monotonic())
        if self._notifier.watchdog_interval is not None:
            times.append(self._next_watchdog.remaining())
        if self._certificates is not None:
            times.append(self._next_look_at_certificates.remaining())
        if self._rehearsal is not None:
            times.append(self._rehearsal.deadline.remaining())
        return max(0.0, min(times)) if times else None

    def _look_at_time(self) -> None:
        self._terminal.check()
        if (interval := self._notifier.watchdog_interval) is not None and self._next_watchdog.passed():
            self._next_watchdog = Deadline(interval)
            self._notifier.watchdog()
        if self._certificates is not None and self._next_look_at_certificates.passed():
            self._next_look_at_certificates = Deadline(CERTIFICATES_SECONDS)
            if self._certificates.changed():
                logger.info("TLS_CERT, TLS_KEY or TLS_CLIENT_CA: there are new files, which new workers will read")
                self._carry_out(events.Renew(Renewal.RELOAD))
        if self._rehearsal is not None and self._rehearsal.deadline.passed():
            self._rehearsal.kill()
        for inquiry in [inquiry for inquiry in self._inquiries if inquiry.deadline.passed()]:
            self._inquiries.remove(inquiry)
            inquiry.answer()

    def _carry_out(self, event: events.Event) -> None:
        """Have the plan decide on *event*, and on what follows from carrying that out."""
        self._events.append(event)
        while self._events:
            event = self._events.popleft()
            self._estate.state, decided = decide(self._state, event, monotonic(), self._rules)
            for action in decided:
                self._do(action)

    def _do(self, action: actions.Action) -> None:
        handles = self._estate.handles
        match action:
            case actions.Spawn(number, generation):
                self._spawn(number, generation)
            case actions.Drain(number, delay, last):
                handles[number].link.send(messages.Drain(delay, last, self._interrupted))
            case actions.Abort(number):
                handles[number].link.send(messages.Abort())
            case actions.Kill(number, kind):
                handles[number].send_signal(kind)
            case actions.Appoint(number):
                handles[number].link.send(messages.Appoint())
            case actions.Rehearse():
                self._rehearse()
            case actions.Replace():
                self._replace()
            case actions.Renewing(renewal):
                logger.info("%s asked for", renewal.value)
                if self._certificates is not None:
                    self._certificates.accept()  # the new workers read them
                self._notifier.reloading()
            case actions.Renewed(why):
                self._renewed(why)
            case actions.Declined(why):
                logger.warning("no new code for now: %s", why)
                self._answer_renewal({"error": f"No new code for now: {why}."})
            case actions.Say(level, text, number):
                who = f"worker {number} (pid {handles[number].pid}) " if number in handles else ""
                logger.log(getattr(logging, level.upper()), "%s%s", who, text)
            case actions.Exit(code):
                if code != ExitCode.BOOT and self._state.settled:
                    settings = self._estate.offers[self._state.settled].settings
                    startup.report_end(logger, self._finished, self._cut, self._left, settings, late=self._late)
                self._exit_code = code

    # Signals, and the end of processes.

    def _on_signals(self) -> None:
        for number in self._inbox.received():
            match number.name:
                case "SIGCHLD":
                    self._reap()
                case "SIGTERM":
                    self._stop()
                case "SIGINT":
                    if self._interrupted:
                        self._stop_now(128 + number)
                    self._interrupted = True
                    self._stop()
                case "SIGQUIT":
                    self._stop_now(128 + number)
                case "SIGHUP" if self._terminal.was_closed:
                    logger.info("the terminal was closed: stopping")
                    self._stop()
                case "SIGHUP":
                    self._carry_out(events.Renew(Renewal.RELOAD))
                case "SIGUSR2":
                    self._carry_out(events.Renew(Renewal.UPGRADE))
                case "SIGUSR1":
                    for handle in self._estate.handles.values():
                        handle.link.send(messages.Reopen())
                case "SIGTTIN":
                    self._scale(self._state.wanted + 1)
                case "SIGTTOU":
                    self._scale(self._state.wanted - 1)

    def _stop(self) -> None:
        if self._state.exit_code is None:
            self._notifier.stopping()
            self._graceful = Deadline(self._rules.drain_delay + self._rules.graceful_timeout)
            for listener in self._estate.listeners:
                listener.socket.close()  # here; workers accept until they have been told not to, and then nobody may
        self._carry_out(events.Stop())

    def _stop_now(self, exit_code: int) -> None:
        self._at_once = True
        self._carry_out(events.StopNow(exit_code))

    def _scale(self, workers: int) -> None:
        if not 1 <= workers <= MOST_WORKERS:
            logger.warning("%d workers are not possible: from 1 to %d are", workers, MOST_WORKERS)
        elif self._state.exit_code is None and workers != self._state.wanted:
            logger.info("%d worker%s from now on, instead of %d", workers, "s"[: workers != 1], self._state.wanted)
            self._estate.scaled = True
            self._carry_out(events.Scale(workers))

    def _reap(self) -> None:
        """Take note of every child that has ended: of workers, and, as process 1, of strangers, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if self._rehearsal is not None and self._rehearsal.pid == pid:
                why = self._rehearsal.result(code)
                self._rehearsal = None
                self._carry_out(events.Rehearsed(why))
            for handle in [handle for handle in self._estate.handles.values() if handle.pid == pid]:
                self._bury(handle, code)

    def _bury(self, handle: Handle, status: int) -> None:
        if handle.linked:
            for message in handle.last_messages():
                self._understand(handle, message)
            self._unlink(handle)
        handle.tell_stacks("(it has ended)")
        if dump := handle.take_dump():
            logger.error("worker %d (pid %d) wrote when it ended:\n%s", handle.number, handle.pid, dump)
        if self._state.exit_code is not None:
            if handle.drained is not None:
                self._finished += handle.drained.finished
                self._cut += handle.drained.cut
                self._left += handle.drained.left
                self._late = self._late or (handle.drained.cut > 0 and not self._at_once)
            elif handle.report is not None:
                self._cut += handle.report.busy
        if (offer := self._estate.offers.get(handle.generation)) is not None:
            Loads.clear(offer.loads, handle.slot)
        self._carry_out(events.Exited(handle.number, status, handle.why))
        del self._estate.handles[handle.number]

    # Workers.

    def _spawn(self, number: int, generation: int) -> None:
        ours, theirs = Link.pair()
        slots = {handle.slot for handle in self._estate.handles.values()}
        slot = next(slot for slot in range(SLOTS) if slot not in slots)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # or the child would write it again
        line_writer.pause()
        supervisor = os.getpid()
        dump = open_dump()
        with blocked(), forked.of_our_own():
            try:
                pid = os.fork()
            except OSError as error:
                ours.close()
                theirs.close()
                if dump is not None:
                    os.close(dump)
                why = f"no process can be started: {error.strerror} (ulimit -u, or a container's pids limit)"
                self._events.append(events.Exited(number, ExitCode.FAILURE, why))
                return
            if pid == 0:
                ours.close()
                self._abandon()
                begin()
                pioneer, settled = generation not in self._estate.offers, bool(self._state.settled)
                raise _Born(Birth(number, generation, pioneer, theirs, supervisor, settled, dump))
        theirs.close()
        handle = Handle(number, generation, pid, ours, slot, monotonic(), dump=dump)
        self._estate.handles[number] = handle
        self._listen_to(handle)

    def _listen_to(self, handle: Handle) -> None:
        self._selector.register(handle.link.socket, selectors.EVENT_READ, lambda: self._hear(handle))

    def _hear(self, handle: Handle) -> None:
        if not handle.linked:
            return  # buried in this very turn
        for message in handle.messages():
            self._understand(handle, message)
        if not handle.linked:
            self._unlink(handle)

    def _unlink(self, handle: Handle) -> None:
        self._selector.unregister(handle.link.socket)
        handle.link.close()

    def _understand(self, handle: Handle, message: object) -> None:
        number = handle.number
        match message:
            case messages.Loaded() if self._is_booting(number):
                self._serve(handle, message)
            case messages.Failed(why):
                handle.why = why
            case messages.Ready() if self._is_booting(number):
                self._ready(handle)
            case messages.Ready():  # too late to change anything here, but it has to drain
                self._carry_out(events.Ready(number))
            case messages.Report():
                handle.report = message
                self._carry_out(events.Reported(number, message.served, message.healthy, message.memory))
            case messages.Retire(reason):
                self._carry_out(events.Retiring(number, reason))
            case messages.Released():
                self._carry_out(events.Released(number))
            case Drained():
                handle.drained = message
            case messages.Stacks(text):
                handle.tell_stacks(text)

    def _is_booting(self, number: int) -> bool:
        """Whether a worker is still to start. It may have been told to end while it said how far it is: then nothing is opened for it."""
        return any(worker.number == number for worker in self._state.of(Phase.BOOTING))

    def _serve(self, handle: Handle, loaded: messages.Loaded) -> None:
        """A worker has loaded the app: open what its settings name, if it is the first of its generation, and have it serve there."""
        offers = self._estate.offers
        if handle.generation not in offers:
            try:
                offers[handle.generation] = self._open(loaded)
            except ProdServeError as error:
                if not self._state.settled:
                    self._failure = error
                self._carry_out(events.Unservable(handle.number, str(error), error.exit_code))
                return
        offer = offers[handle.generation]
        self._carry_out(events.Loaded(handle.number, loaded.has_once))
        handle.link.send(
            messages.Serve([format_address(listener.address) for listener in offer.listeners], handle.slot),
            offer.descriptors,
        )

    def _open(self, loaded: messages.Loaded) -> Offer:
        settings = read_settings(loaded)
        if self._identity is not None and self._identity.uid != 0:
            refuse_from_app(self._early, settings)
        last = self._estate.offers.get(max(self._estate.offers, default=0))
        opened, _ = exchange_listeners(
            () if last is None else last.listeners,
            settings.addresses,
            backlog=settings.bind.backlog,
            unix_socket_mode=settings.bind.unix_socket_mode,
            inherited=self._inherited,
            owner=None if self._identity is None else self._identity.owner,
        )
        # Who does not listen where others do must not be left their connections.
        same = last is not None and last.listeners == tuple(opened)
        return Offer.of(loaded, opened, last.loads if last is not None and same else Loads.create(SLOTS))

    def _ready(self, handle: Handle) -> None:
        first = not self._state.settled
        offer = self._estate.offers[handle.generation]
        if handle.generation > self._state.settled:
            self._obey(offer)
            if not self._estate.scaled:
                workers = offer.settings.workers.workers
                self._carry_out(events.Scale(available() if workers == "auto" else max(1, int(workers))))
        self._carry_out(events.Ready(handle.number))
        if first:
            self._announce(offer, self._state.wanted)
            self._notifier.ready(in_short(self._estate))

    def _obey(self, offer: Offer) -> None:
        """What the settings of a generation say holds from now on: a worker of it is ready."""
        workers, timeouts = offer.settings.workers, offer.settings.timeouts
        self._rules = replace(
            self._rules,
            worker_timeout=workers.worker_timeout,
            graceful_timeout=timeouts.graceful_timeout,
            drain_delay=timeouts.drain_delay,
            max_worker_lifetime=workers.max_worker_lifetime,
            max_worker_memory=workers.max_worker_memory,
        )
        self._configure(offer)

    # New code.

    def _rehearse(self) -> None:
        try:
            self._rehearsal = Rehearsal(self._command, self._identity, self._rules.boot_timeout)
        except OSError as error:
            why = f"{self._command.program} cannot be executed: {error.strerror}"
            self._events.append(events.Rehearsed(why))

    def _replace(self) -> None:
        """Become the new supervisor. Returns only if that fails."""
        # Connections of those who wait do not go along; the next supervisor knows more.
        self._answer_renewal({"ok": True, "generation": self._state.last_generation + 1, "replaced": True})
        environ = dict(self._command.environ)
        handover.leave(self._estate, environ)
        end_daemons()
        line_writer.flush()
        with blocked():
            try:
                os.chdir(self._command.folder)
                self._inbox.ignore_again()
                os.execve(self._command.program, self._command.arguments, environ)  # noqa: S606  # no shell is wanted
            except OSError as error:
                why = f"{self._command.program} cannot be executed: {error.strerror}"
                self._inbox.open()
        handover.keep(self._estate, environ)
        self._events.append(events.Rehearsed(why))

    def _renewed(self, why: str) -> None:
        before, loads = self._estate.listeners, self._estate.loads
        kept = {self._state.settled, *(worker.generation for worker in self._state.of(Phase.BOOTING, Phase.READY))}
        self._estate.offers = {number: offer for number, offer in self._estate.offers.items() if number in kept}
        for listener in before - self._estate.listeners:
            listener.close()
        for descriptor in loads - self._estate.loads:
            os.close(descriptor)
        if why:
            logger.error("the old workers go on, since the new code is not served: %s", why)
        else:
            logger.info("reloaded: %s", in_short(self._estate))
        self._notifier.ready(in_short(self._estate))
        self._answer_renewal({"error": why} if why else {"ok": True, "generation": self._state.settled})

    def _answer_renewal(self, answer: Mapping[str, object]) -> None:
        waiting, self._awaiting_renewal = self._awaiting_renewal, []
        for respond in waiting:
            respond(answer)

    # What others ask.

    def _on_request(self, request: control.Request, respond: Respond) -> None:
        match request:
            case control.Status():
                respond(describe(self._estate, self._command.folder))
            case control.Reload():
                self._awaiting_renewal.append(respond)
                self._carry_out(events.Renew(Renewal.RELOAD))
            case control.Stop(now):
                respond({"stopping": True})
                if now:
                    self._stop_now(ExitCode.STOPPED)
                else:
                    self._stop()
            case control.Scale(workers, change):
                wanted = self._state.wanted + change if workers is None else workers
                self._scale(wanted)
                if wanted == self._state.wanted:
                    respond({"workers": wanted})
                else:
                    respond(
                        {
                            "error": f"{wanted} workers are not possible: the server stops, or that is not from 1 to {MOST_WORKERS}."
                        }
                    )
            case control.Stacks():
                asked = [self._estate.handles[worker.number] for worker in self._state.of(Phase.READY, Phase.DRAINING)]
                inquiry = Inquiry(asked, respond)
                self._inquiries.append(inquiry)


def _log_no_control_socket(why: str) -> None:
    logger.warning(
        "CONTROL_SOCKET is 'auto', and there is no control socket: %s. 'flask serve status', 'stop' and 'reload' do not find this "
        "server. Set CONTROL_SOCKET (--control-socket) to a path in a directory that only this user can write to, or to 'off'",
        why,
    )
