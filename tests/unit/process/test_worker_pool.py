"""What the supervisor does with messages of its workers, without a process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flask_prodserve.process.events import FromWorker
from flask_prodserve.process.handle import Handle
from flask_prodserve.process.handover import HandoverState
from flask_prodserve.process.link import Link
from flask_prodserve.process.messages import Loaded, Serve
from flask_prodserve.process.state import State, Worker, WorkerPhase
from flask_prodserve.process.step_loop import StepLoop
from flask_prodserve.process.worker_pool import WorkerPool
from flask_prodserve.settings import resolve

BOOTING = Worker(2, 2, WorkerPhase.BOOTING, since=0.0, deadline=1.0)
LOADED = Loaded("hello", "hello:app", {"BIND": "127.0.0.1:0"}, {"LOG_LEVEL": "default"}, has_once=False)


@pytest.fixture
def loop() -> Iterator[StepLoop]:
    loop = StepLoop()
    yield loop
    loop.selector.close()


@pytest.fixture
def worker(loop: StepLoop) -> Iterator[tuple[HandoverState, Link]]:
    """The state of a supervisor with one worker, the first of generation 2, and that worker's end of its link."""
    ours, theirs = Link.pair()
    handle = Handle(2, 2, os.getpid(), ours, slot=0, started_at=0.0)
    state = State(workers=(BOOTING,), generation=2, last_generation=2, ready_generation=1)
    handover = HandoverState(0.0, state=state, handles={2: handle})
    pool = WorkerPool(
        handover,
        loop,
        resolve([]).settings,
        identity=None,
        inherited=(),
        apply=lambda spec: None,
        first_ready=lambda spec: None,
    )
    pool.listen_to(handle)
    theirs.socket.settimeout(5)
    yield handover, theirs
    handover.keep_generations(())
    ours.close()
    theirs.close()


def test_a_worker_that_has_loaded_its_app_gets_the_listeners(
    loop: StepLoop, worker: tuple[HandoverState, Link]
) -> None:
    """The first worker of a generation is told to serve on listeners that were opened for it."""
    handover, theirs = worker
    theirs.send(LOADED)
    loop.wait(None)
    assert list(loop.events()) == [FromWorker(2, LOADED)]
    assert theirs.receive() == [Serve(["127.0.0.1:0"], 0)]
    listening, loads = theirs.take_descriptors()
    [listener] = handover.listeners
    with socket.socket(fileno=listening) as theirs_too:
        assert theirs_too.getsockname() == listener.socket.getsockname()
    os.close(loads)


def test_a_worker_whose_time_is_over_when_it_has_loaded_its_app(
    loop: StepLoop, worker: tuple[HandoverState, Link]
) -> None:
    """If the plan gives a worker up because of its last message, its generation is forgotten, and it is told nothing more."""
    handover, theirs = worker
    theirs.send(LOADED)
    loop.wait(None)
    for event in loop.events():
        assert event == FromWorker(2, LOADED)
        handover.state = handover.state.updated(replace(BOOTING, phase=WorkerPhase.KILLED))
        handover.keep_generations({1})
    theirs.socket.setblocking(False)
    assert theirs.receive() == []
