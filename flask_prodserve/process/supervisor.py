"""The supervisor: binds the listeners, starts and stops workers, and never imports the app (unless
PRELOAD).

It executes what ``plan`` decides, in one thread and one loop (``step_loop``). Only
:meth:`Supervisor.run` asks the plan and executes its decisions, so a worker is forked there, and
``run`` returns in the child too: the caller goes on as a worker, whose process ends as every Python
process does.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ..clock import Deadline, monotonic
from ..errors import ExitCode
from ..net import forked
from ..net.file_watch import FileWatch
from ..net.systemd import Inherited, Notifier
from ..settings import Settings
from . import actions, control
from .control_listener import control_listener
from .events import Event, Renew, Scale, Stop, StopNow, Tick, UpgradeChecked
from .generation_spec import GenerationSpec
from .handover import HandoverState
from .messages import Reopen
from .pidfile import remove_pidfile, write_pidfile
from .plan import decide, next_deadline
from .preflight_check import PreflightCheck, StartCommand
from .privileges import Identity
from .signals import ENDING, HANDLED, SignalInbox
from .stack_request import StackRequest
from .state import Renewal, Rules, State, WorkerPhase
from .status import describe, in_short
from .step_loop import Step, StepLoop
from .terminal import Terminal
from .upgrade import cannot_execute, replace_supervisor
from .worker import WorkerInit
from .worker_pool import MAX_WORKERS, WorkerPool

logger = logging.getLogger("flask_prodserve.supervisor")

EXIT_SECONDS = 1.0
"""How long, at least, threads and processes of a preloaded app may delay the supervisor's exit."""

CERTIFICATES_SECONDS = 1.0
"""How often the supervisor looks for new certificates if only it can read them."""

Respond = Callable[[Mapping[str, object]], None]


class Supervisor:
    """Supervises the workers of one server.

    *early* are the settings that are known without the app. *configure* sets logging up for the
    settings of a generation. *announce* logs that the server is ready, with the number of workers.
    """

    def __init__(
        self,
        early: Settings,
        command: StartCommand,
        *,
        identity: Identity | None,
        inherited: Sequence[Inherited],
        notifier: Notifier,
        control_path: str | None,
        configure: Callable[[GenerationSpec], None],
        announce: Callable[[GenerationSpec, int], None],
        handed_over: HandoverState | None,
    ) -> None:
        self._early, self._command, self._identity, self._inherited = early, command, identity, inherited
        self._notifier, self._control_path = notifier, control_path
        self._configure, self._announce = configure, announce
        self._rules = Rules(boot_timeout=early.workers.boot_timeout, preload=early.workers.preload)
        self._handover = handed_over or HandoverState(monotonic())
        self._taken_over = handed_over is not None
        self._loop = StepLoop()
        self._pool = WorkerPool(
            self._handover,
            self._loop,
            early,
            identity=identity,
            inherited=inherited,
            apply=self._apply_settings,
            first_ready=self._first_ready,
        )
        self._events: deque[Event] = deque()
        self._exit_code: int | None = None
        self._preflight: PreflightCheck | None = None
        self._stack_requests: list[StackRequest] = []
        self._awaiting_renewal: list[Respond] = []
        self._next_watchdog = Deadline(0)
        # Workers that have given up root's rights can no longer read certificates.
        self._certificates = FileWatch(early.tls.files) if identity is not None and early.tls.pairs else None
        self._next_certificate_check = Deadline(0)
        self._inbox = SignalInbox()
        self._terminal = Terminal(ignores_hangup=any(number.name == "SIGHUP" for number in self._inbox.ignored))
        self._control: control.ControlServer | None = None
        self._graceful: Deadline | None = None
        forked.call_in_child(self._abandon)  # now: with PRELOAD the app is loaded before run()
        # Before a preloaded app is imported. After an upgrade the previous supervisor has left all
        # signals blocked, and processes that the app starts would inherit that. At a start the
        # signals in ENDING end the process, and the others wait for run().
        self._inbox.open(HANDLED if self._taken_over else HANDLED - ENDING)

    @property
    def time_to_exit(self) -> Deadline:
        """Until when the process may live on after :meth:`run`, for what a preloaded app started."""
        graceful = None if self._pool.end_report.at_once else self._graceful
        return Deadline(max(EXIT_SECONDS, 0.0 if graceful is None else graceful.remaining()))

    @property
    def _state(self) -> State:
        return self._handover.state

    def run(self) -> int | WorkerInit:
        """Run the server and return its exit code; or, in a worker, return what the worker must
        know.

        Raises ProdServeError if PIDFILE, CONTROL_SOCKET or the first worker's addresses cannot be
        had.
        """
        self._begin()
        self._loop.append(self._reap())
        while self._exit_code is None:
            self._loop.append(self._check_time())
            for event in self._loop.events():
                if (init := self._carry_out(event)) is not None:
                    return init
            if self._exit_code is None:
                self._loop.wait(self._timeout())
        self._end()
        if self._pool.failure is not None:
            raise self._pool.failure
        return self._exit_code

    # The beginning and the end.

    def _begin(self) -> None:
        if self._taken_over:
            self._apply_settings(self._handover.specs[self._state.ready_generation])
            for handle in self._handover.handles.values():
                self._pool.listen_to(handle)
            self._notifier.main_pid(os.getpid())
            logger.info("supervisor upgraded; replacing workers")
        elif self._early.process.pidfile is not None:
            write_pidfile(self._early.process.pidfile)
        automatic = self._early.observe.control_socket == "auto"
        listening = control_listener(self._handover, self._control_path, automatic=automatic)
        if listening is not None:
            self._control = control.ControlServer(
                listening,
                self._loop.selector,
                lambda request, respond: self._loop.append(self._answer_request(request, respond)),
            )
        self._loop.watch(self._inbox.socket, self._take_signals)
        self._inbox.open()

    def _end(self) -> None:
        for listener in self._handover.listeners:
            listener.socket.close()
            listener.remove_path()
        if self._early.process.pidfile is not None:
            remove_pidfile(self._early.process.pidfile)
        self._inbox.close()
        if self._preflight is not None:
            self._preflight.kill()
        if self._control is not None:
            # Last: it tells `flask serve stop` that nothing is in the way of the next server.
            self._control.close()

    def _abandon(self) -> None:
        """Close everything in a child, which is no supervisor: a worker, or a process that the app
        has forked (see ``net.forked``).

        Nothing is removed or unregistered: paths and selector belong to the parent.
        """
        self._loop.selector.close()
        self._inbox.close()
        for handle in self._handover.handles.values():
            handle.link.close()
            handle.close_dump()
        for listener in self._handover.listeners:
            listener.socket.close()
        if self._control is not None:
            self._control.abandon()
        elif self._handover.control is not None:
            os.close(self._handover.control)
        for descriptor in (*self._handover.loads, *(given.descriptor for given in self._inherited)):
            os.close(descriptor)

    # The loop.

    def _timeout(self) -> float | None:
        deadlines = [request.deadline for request in self._stack_requests]
        if self._notifier.watchdog_interval is not None:
            deadlines.append(self._next_watchdog)
        if self._certificates is not None:
            deadlines.append(self._next_certificate_check)
        if self._preflight is not None:
            deadlines.append(self._preflight.deadline)
        times = [deadline.remaining() for deadline in deadlines]
        if (at := next_deadline(self._state, self._rules)) is not None:
            times.append(at - monotonic())
        return max(0.0, min(times)) if times else None

    def _check_time(self) -> Step:
        self._terminal.check()
        if (interval := self._notifier.watchdog_interval) is not None and self._next_watchdog.passed():
            self._next_watchdog = Deadline(interval)
            self._notifier.watchdog()
        if self._certificates is not None and self._next_certificate_check.passed():
            self._next_certificate_check = Deadline(CERTIFICATES_SECONDS)
            if self._certificates.changed():
                logger.info("the files of TLS_CERT, TLS_KEY or TLS_CLIENT_CA have changed; reloading")
                yield Renew(Renewal.RELOAD)
        if self._preflight is not None and self._preflight.deadline.passed():
            self._preflight.kill()
        for request in [request for request in self._stack_requests if request.deadline.passed()]:
            self._stack_requests.remove(request)
            request.answer()
        yield Tick()

    def _carry_out(self, event: Event) -> WorkerInit | None:
        """Let the plan decide on *event*, execute that, and go on with the events that follow."""
        self._events.append(event)
        while self._events and self._exit_code is None:
            event = self._events.popleft()
            self._handover.state, decided = decide(self._state, event, monotonic(), self._rules)
            for action in decided:
                if not isinstance(action, actions.Spawn):
                    self._do(action)
                    continue
                outcome = self._pool.spawn(action.number, action.generation, self._abandon)
                if isinstance(outcome, WorkerInit):
                    return outcome
                if outcome is not None:
                    self._events.append(outcome)
        return None

    def _do(self, action: actions.Action) -> None:
        handles = self._handover.handles
        match action:
            case actions.ToWorker(number, message):
                handles[number].link.send(message)
            case actions.Kill(number, kind):
                handles[number].send_signal(kind)
            case actions.CheckUpgrade():
                self._check_upgrade()
            case actions.ReplaceSupervisor():
                # Connections of those who wait are not handed over, so they get the answer now.
                self._answer_renewal({"ok": True, "generation": self._state.last_generation + 1, "replaced": True})
                error = replace_supervisor(self._handover, self._command, self._inbox)
                self._events.append(UpgradeChecked(error))
            case actions.RenewalBegan(renewal):
                logger.info("%s requested", renewal.value)
                if self._certificates is not None:
                    self._certificates.accept()  # the new workers read them
                self._notifier.reloading()
            case actions.RenewalEnded(error):
                self._renewal_ended(error)
            case actions.RenewalRejected(reason):
                logger.warning("reload rejected: %s", reason)
                self._answer_renewal({"error": f"{reason}."})
            case actions.Log(level, text, number):
                worker = f"worker {number} (pid {handles[number].pid}) " if number in handles else ""
                logger.log(getattr(logging, level.upper()), "%s%s", worker, text)
            case actions.Exit(code):
                if code != ExitCode.BOOT and self._state.ready_generation:
                    settings = self._handover.specs[self._state.ready_generation].settings
                    self._pool.end_report.log(logger, settings.timeouts.graceful_timeout)
                self._exit_code = code

    # Signals, and the exit of processes.

    def _take_signals(self) -> Step:
        for number in self._inbox.received():
            match number.name:
                case "SIGCHLD":
                    yield from self._reap()
                case "SIGTERM":
                    yield from self._stop()
                case "SIGINT":
                    if self._state.interrupted:
                        yield from self._stop_now(128 + number)
                    yield from self._stop(interrupted=True)
                case "SIGQUIT":
                    yield from self._stop_now(128 + number)
                case "SIGHUP" if self._terminal.was_closed:
                    logger.info("the terminal was closed; stopping")
                    yield from self._stop()
                case "SIGHUP":
                    yield Renew(Renewal.RELOAD)
                case "SIGUSR2":
                    yield Renew(Renewal.UPGRADE)
                case "SIGUSR1":
                    for handle in self._handover.handles.values():
                        handle.link.send(Reopen())
                case "SIGTTIN":
                    yield from self._scale(self._state.wanted + 1)
                case "SIGTTOU":
                    yield from self._scale(self._state.wanted - 1)

    def _stop(self, *, interrupted: bool = False) -> Step:
        if self._state.exit_code is None:
            self._notifier.stopping()
            self._graceful = Deadline(self._rules.drain_delay + self._rules.graceful_timeout)
            for listener in self._handover.listeners:
                # Only here: workers accept until they drain, and the last one must leave none open.
                listener.socket.close()
        yield Stop(interrupted)

    def _stop_now(self, exit_code: int) -> Step:
        self._pool.end_report.at_once = True
        yield StopNow(exit_code)

    def _scale(self, workers: int) -> Step:
        if not 1 <= workers <= MAX_WORKERS:
            logger.warning("cannot run %d workers; the number must be from 1 to %d", workers, MAX_WORKERS)
        elif self._state.exit_code is None and workers != self._state.wanted:
            logger.info("changing the number of workers from %d to %d", self._state.wanted, workers)
            self._handover.scaled = True
            yield Scale(workers)

    def _reap(self) -> Step:
        """Reap every child that has exited: workers, and as process 1 also processes of others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if self._preflight is not None and self._preflight.pid == pid:
                error = self._preflight.result(code)
                self._preflight = None
                yield UpgradeChecked(error)
            yield from self._pool.reaped(pid, code)

    # Generations.

    def _apply_settings(self, spec: GenerationSpec) -> None:
        """Follow the settings of a generation from now on: it has a ready worker."""
        self._rules = spec.apply_to(self._rules)
        self._configure(spec)

    def _first_ready(self, spec: GenerationSpec) -> None:
        self._announce(spec, self._state.wanted)
        self._notifier.ready(in_short(self._handover))

    def _check_upgrade(self) -> None:
        try:
            self._preflight = PreflightCheck(self._command, self._identity, self._rules.boot_timeout)
        except OSError as error:
            self._events.append(UpgradeChecked(cannot_execute(self._command, error)))

    def _renewal_ended(self, error: str) -> None:
        alive = self._state.of(WorkerPhase.BOOTING, WorkerPhase.READY)
        self._handover.keep_generations({self._state.ready_generation, *(worker.generation for worker in alive)})
        if error:
            logger.error("reload failed; the previous workers keep serving: %s", error)
        else:
            logger.info("reloaded: %s", in_short(self._handover))
        self._notifier.ready(in_short(self._handover))
        self._answer_renewal({"error": error} if error else {"ok": True, "generation": self._state.ready_generation})

    def _answer_renewal(self, answer: Mapping[str, object]) -> None:
        waiting, self._awaiting_renewal = self._awaiting_renewal, []
        for respond in waiting:
            respond(answer)

    # The control socket.

    def _answer_request(self, request: control.Request, respond: Respond) -> Step:
        match request:
            case control.Status():
                respond(describe(self._handover, self._command.folder))
            case control.Reload():
                self._awaiting_renewal.append(respond)
                yield Renew(Renewal.RELOAD)
            case control.Stop(now):
                respond({"stopping": True})
                yield from (self._stop_now(ExitCode.STOPPED) if now else self._stop())
            case control.Scale(workers, change):
                wanted = self._state.wanted + change if workers is None else workers
                yield from self._scale(wanted)
                if wanted == self._state.wanted:
                    respond({"workers": wanted})
                elif self._state.exit_code is not None:
                    respond({"error": "Cannot change the number of workers: the server is stopping."})
                else:
                    respond({"error": f"Cannot run {wanted} workers: the number must be from 1 to {MAX_WORKERS}."})
            case control.Stacks():
                serving = self._state.of(WorkerPhase.READY, WorkerPhase.DRAINING)
                handles = [self._handover.handles[worker.number] for worker in serving]
                self._stack_requests.append(StackRequest(handles, respond))
