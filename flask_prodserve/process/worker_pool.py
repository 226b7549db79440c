"""The workers, as the supervisor's loop sees them: forks them, opens what they serve, and turns
what they send into events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..errors import ExitCode, ProdServeError
from ..net.listeners import exchange_listeners
from ..net.loads import Loads
from ..net.processors import available
from ..net.systemd import Inherited
from ..observe.events import Drained
from ..settings import Settings
from ..settings.for_root import refuse_from_app
from . import messages
from .end_report import EndReport
from .events import Exited, FromWorker, Scale, Unservable
from .forking import ForkError, fork_worker
from .generation_spec import GenerationSpec, read_settings
from .handle import Handle
from .handover import HandoverState
from .privileges import Identity
from .state import State, WorkerPhase
from .step_loop import Step, StepLoop
from .worker import WorkerInit

logger = logging.getLogger("flask_prodserve.supervisor")

MAX_WORKERS = 1000

SLOTS = 2 * MAX_WORKERS
"""Entries of a load table: one for each worker, and for those that drain or boot beside them."""


class WorkerPool:
    """Keeps the handles and generations in *handover*.

    *early* are the settings that are known without the app. *apply* is called with a generation
    when its settings take effect, *first_ready* once the first worker of all is ready.
    """

    def __init__(
        self,
        handover: HandoverState,
        loop: StepLoop,
        early: Settings,
        *,
        identity: Identity | None,
        inherited: Sequence[Inherited],
        apply: Callable[[GenerationSpec], None],
        first_ready: Callable[[GenerationSpec], None],
    ) -> None:
        self._handover = handover
        self._loop = loop
        self._early = early
        self._identity = identity
        self._inherited = inherited
        self._apply = apply
        self._first_ready = first_ready
        self.failure: ProdServeError | None = None
        """Why the listeners of the first worker of all could not be opened."""
        self.end_report = EndReport()

    @property
    def _state(self) -> State:
        return self._handover.state

    def spawn(self, number: int, generation: int, abandon: Callable[[], None]) -> WorkerInit | Exited | None:
        """Fork a worker.

        Returns its WorkerInit in the worker, and an event if no process could be started.

        *abandon* closes what belongs to the supervisor; it is called in the worker.
        """
        try:
            forked = fork_worker(
                number,
                generation,
                self._handover.free_slot(),
                first_of_generation=generation not in self._handover.specs,
                others_ready=bool(self._state.ready_generation),
                abandon=abandon,
            )
        except ForkError as error:
            return Exited(number, ExitCode.FAILURE, error.what)
        if isinstance(forked, WorkerInit):
            return forked
        self._handover.handles[number] = forked
        self.listen_to(forked)
        return None

    def listen_to(self, handle: Handle) -> None:
        """Turn the messages of a worker into events from now on."""
        self._loop.watch(handle.link.socket, lambda: self._hear(handle))

    def reaped(self, pid: int, status: int) -> Step:
        """Take note that process *pid*, which may be no worker, has exited."""
        for handle in [handle for handle in self._handover.handles.values() if handle.pid == pid]:
            if handle.linked:
                for message in handle.last_messages():
                    yield from self._understand(handle, message)
                self._unlink(handle)
            handle.deliver_stacks("(it has exited)")
            if dump := handle.take_dump():
                logger.error("worker %d (pid %d) wrote its stacks when it died:\n%s", handle.number, pid, dump)
            if self._state.exit_code is not None:
                self.end_report.add(handle)
            if (spec := self._handover.specs.get(handle.generation)) is not None:
                Loads.clear(spec.loads, handle.slot)
            yield Exited(handle.number, status, handle.error)
            del self._handover.handles[handle.number]

    def _hear(self, handle: Handle) -> Step:
        if not handle.linked:
            return  # reaped since the loop found its link ready
        for message in handle.messages():
            yield from self._understand(handle, message)
        if not handle.linked:
            self._unlink(handle)

    def _unlink(self, handle: Handle) -> None:
        self._loop.unwatch(handle.link.socket)
        handle.link.close()

    def _understand(self, handle: Handle, message: messages.WorkerMessage) -> Step:
        match message:
            case messages.Loaded() if self._is_booting(handle):
                yield from self._serve(handle, message)
            case messages.Ready() if self._is_booting(handle):
                yield from self._ready(handle)
            case messages.Failed(error):
                handle.error = error
            case messages.Stacks(text):
                handle.deliver_stacks(text)
            case Drained():
                handle.drained = message
            case messages.Report():
                handle.report = message
                yield FromWorker(handle.number, message)
            case messages.Ready() | messages.Retire() | messages.Released():
                # Ready, although not booting: it was told to exit meanwhile, and the plan lets it
                # drain.
                yield FromWorker(handle.number, message)

    def _is_booting(self, handle: Handle) -> bool:
        """Return whether the worker is still to start.

        If it was told to exit while it booted, nothing is opened for it.
        """
        worker = self._state.worker(handle.number)
        return worker is not None and worker.phase is WorkerPhase.BOOTING

    def _serve(self, handle: Handle, loaded: messages.Loaded) -> Step:
        """Start a worker that has loaded the app.

        For the first of a generation, open what its settings name.
        """
        specs = self._handover.specs
        if handle.generation not in specs:
            try:
                specs[handle.generation] = self._open(loaded)
            except ProdServeError as error:
                if not self._state.ready_generation:
                    self.failure = error
                yield Unservable(handle.number, str(error), error.exit_code)
                return
        yield FromWorker(handle.number, loaded)
        # If BOOT_TIMEOUT has just passed, the generation is closed and forgotten.
        if self._is_booting(handle):
            handle.link.send(*specs[handle.generation].serve_message(handle.slot))

    def _open(self, loaded: messages.Loaded) -> GenerationSpec:
        settings = read_settings(loaded)
        if self._identity is not None and self._identity.uid != 0:
            refuse_from_app(self._early, settings)
        specs = self._handover.specs
        last = specs.get(max(specs, default=0))
        opened, _ = exchange_listeners(
            () if last is None else last.listeners,
            settings.addresses,
            backlog=settings.bind.backlog,
            unix_socket_mode=settings.bind.unix_socket_mode,
            inherited=self._inherited,
            owner=None if self._identity is None else self._identity.owner,
        )
        # Only workers on the same listeners share a load table: others cannot take the connections
        # that a worker leaves to them.
        same = last is not None and last.listeners == tuple(opened)
        return GenerationSpec.of(loaded, opened, last.loads if last is not None and same else Loads.create(SLOTS))

    def _ready(self, handle: Handle) -> Step:
        first = not self._state.ready_generation
        spec = self._handover.specs[handle.generation]
        if handle.generation > self._state.ready_generation:
            self._apply(spec)
            if not self._handover.scaled:
                workers = spec.settings.workers.workers
                yield Scale(available() if workers == "auto" else max(1, int(workers)))
        yield FromWorker(handle.number, messages.Ready())
        if first:
            self._first_ready(spec)
