"""What tests look up inside a running engine. Each private name of the engine that a new test needs is used here, in one function."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from flask_prodserve.engine import engine as engine_module
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.tls_transport import TLSTransport
from flask_prodserve.engine.dispatch.admission import Share
from flask_prodserve.engine.dispatch.leadership import Leadership
from flask_prodserve.engine.dispatch.steward import Steward
from flask_prodserve.engine.engine import Engine
from flask_prodserve.engine.exchange.request import RECEIVE_BODY_BYTES
from flask_prodserve.engine.guard import clients, guard, shedding
from flask_prodserve.engine.guard.guard import Guard
from flask_prodserve.engine.spool import Spool
from flask_prodserve.net.tls import Certificates


@dataclass(frozen=True)
class Books:
    """What an engine counts. All of it is zero when the last request has ended."""

    shares: int
    """Requests that count against a ``max_concurrency``, and those that wait for that."""
    queued: int
    busy: int
    """Slots that are taken."""
    streams: int
    stuck: int
    orphaned: int
    """Closed connections whose request still runs."""
    spool: int
    """Bytes that are kept for clients."""

    @property
    def open(self) -> dict[str, int]:
        """The entries that are not zero."""
        return {name: count for name, count in asdict(self).items() if count}


def books(engine: Engine) -> Books:
    """Read what *engine* counts. Consistent only while nothing runs."""
    loop: Any = engine._dispatcher
    return Books(
        shares=sum(share.running + len(share.waiting) for share in shares(engine)),
        queued=queued(engine),
        busy=loop._budget.busy,
        streams=loop._budget.streams,
        stuck=loop.stuck,
        orphaned=len(engine._table.orphaned),
        spool=spool(engine).size,
    )


def queued(engine: Engine) -> int:
    """Count the requests that wait for a thread or for others of their endpoint."""
    return engine._guard.queued


def shares(engine: Engine) -> list[Share]:
    """List what endpoints with a ``max_concurrency`` use of it."""
    admission = engine._guard._shedding._admission
    return [] if admission is None else list(admission._shares.values())


def spool(engine: Engine) -> Spool:
    """Return what counts the bytes that are kept for clients."""
    return engine._guard._memory_pressure._spool


def check_deadlines(engine: Engine) -> None:
    """Check all deadlines and queues now. To be called in the thread of the event loop."""
    engine._guard.check()


def checks_are_at_work(engine: Engine) -> bool:
    """Tell whether the last check of deadlines and queues has left work for later."""
    return engine._guard.has_work


def find_late_clients_only(patch: pytest.MonkeyPatch) -> None:
    """Have engines check one connection per turn, and never come to cut its client."""
    patch.setattr(Guard, "_work", lambda self: self._unchecked and self._check_one(self._unchecked.popleft()))


def has_found_late_clients(engine: Engine) -> bool:
    """Tell whether clients are late and not yet cut."""
    return bool(engine._guard._due)


def hide_running_requests(patch: pytest.MonkeyPatch) -> None:
    """Have engines find no request that runs, as if all threads were between two requests."""
    patch.setattr(shedding, "Task", _Nothing)


def keep_requests_of_clients_that_left(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have engines keep queued requests of clients that stopped sending for so many *seconds*."""
    patch.setattr(shedding, "GONE_SECONDS", seconds)


class _Nothing:
    """No object is an instance of this."""


def has_leader(engine: Engine) -> bool:
    """Tell whether *engine* runs the event loop for epoll. Otherwise it runs the portable one."""
    return isinstance(engine._dispatcher, Leadership)


def accepts(engine: Engine) -> list[bool]:
    """Tell for each listener whether the event loop for epoll watches it now."""
    loop: Any = engine._dispatcher
    return [bool(loop._poller._interests[acceptor.descriptor]) for acceptor in engine._acceptors]


def service_threads(engine: Engine) -> int:
    """Count the threads that there are for requests."""
    loop: Any = engine._dispatcher
    return int(loop._thread_count)


def channels(engine: Engine) -> list[Connection]:
    """List the open connections."""
    return list(engine._table.connections.values())


def moved_streams(engine: Engine) -> int:
    """Count the streams that have moved from THREADS to MAX_STREAMS."""
    return sum(engine._dispatcher.is_stream(channel) for channel in channels(engine))


def threads_that_wait_for_clients(engine: Engine) -> int:
    """Count the responses whose thread waits until the client takes something."""
    return sum(clients.holds_thread(channel) for channel in channels(engine))


def certificates(engine: Engine) -> Certificates | None:
    """Return the certificates that the first listener shows."""
    return engine._acceptors[0]._tls


def last_taken(channel: Connection) -> float:
    """Tell when the client last took a part of the response that it takes."""
    taking = channel.progress._taking
    assert taking is not None
    return taking.progress.moved


def fill_spool_for_a_moment(engine: Engine) -> None:
    """Fill MAX_SPOOL, have the engine choose which connections it will reset for that, and empty it before any of them is reset.

    To be called in the thread of the event loop, which resets them later.
    """
    counted = spool(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "WORK_SECONDS", 0.0)
        counted.add(counted.most)
        engine._guard.relieve_spool()
        assert checks_are_at_work(engine)
        counted.remove(counted.most)


def check_rarely(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have engines check their deadlines and queues every so many *seconds* only: each check would hide a missed wake-up."""
    patch.setattr(engine_module, "CHECK_SECONDS", seconds)
    patch.setattr(engine_module, "CHECK_QUEUE_SECONDS", seconds)


def take_all_for_computing(patch: pytest.MonkeyPatch) -> None:
    """Have stewards take the lead at once from any leader that is in a request, as from one that computes."""
    patch.setattr(Steward, "_waits", lambda steward, claim, clock: False)


def remembers(engine: Engine, kind: str) -> bool:
    """Tell whether *engine* hands requests of this *kind* over before it runs them, since they are known to wait."""
    return kind in _slow_kinds(engine)


def forget_kind(engine: Engine, kind: str) -> None:
    """Forget that requests of this *kind* wait."""
    _slow_kinds(engine).forget(kind)


def _slow_kinds(engine: Engine) -> Any:
    loop: Any = engine._dispatcher
    return loop._slow_kinds


def close_in_loop(channel: Connection) -> None:
    """Close a connection as the engine does at the end. To be called in the thread of the event loop."""
    channel.close()


def reads_before_an_answer(channel: Connection) -> int:
    """Read from a TLS connection, where OpenSSL's answer to the first record has to wait, and count how often the system is asked.

    To be called in the thread of the event loop, when something can be read. What is read is lost.
    """
    reads = 0
    receive_some = TLSTransport._receive_some

    def counted(self: TLSTransport, size: int) -> bytes | None:
        nonlocal reads
        reads += 1
        data = receive_some(self, size)
        self.waits = True
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TLSTransport, "_receive_some", counted)
        assert channel.transport.receive(RECEIVE_BODY_BYTES)
        channel.transport.waits = False
    return reads


def loads_in_use(descriptor: int) -> int:
    """Count the processes of which the memory behind *descriptor* (``Loads.create``) says that they take connections."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    numbers = memoryview(content).cast("q")
    return sum(numbers[at] != 0 for at in range(8, len(numbers), 8))
