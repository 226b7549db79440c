"""The supervisor's loop: steps run in order, and each sees what its own events have changed."""

from __future__ import annotations

import socket

from flask_prodserve.process.events import Scale, Tick
from flask_prodserve.process.step_loop import Step, StepLoop


def test_an_event_is_executed_before_its_step_goes_on() -> None:
    """A step that has yielded an event continues only after the caller has executed it, and before any other step begins."""
    loop = StepLoop()
    seen: list[object] = []

    def step(name: str) -> Step:
        yield Scale(2)
        seen.append(f"{name} goes on")
        yield Tick()

    loop.append(step("first"))
    loop.append(step("second"))
    for event in loop.events():
        seen.append(event)
    assert seen == [Scale(2), "first goes on", Tick(), Scale(2), "second goes on", Tick()]
    assert list(loop.events()) == []
    loop.selector.close()


def test_a_step_that_is_appended_by_a_step() -> None:
    """A step may append another one, which runs in the same turn."""
    loop = StepLoop()

    def first() -> Step:
        loop.append(iter([Scale(3)]))
        yield Tick()

    loop.append(first())
    assert list(loop.events()) == [Tick(), Scale(3)]
    loop.selector.close()


def test_waiting() -> None:
    """What is watched has its step appended once for each time it is found ready, and nothing runs while the loop waits."""
    loop = StepLoop()
    runs: list[int] = []
    ours, theirs = socket.socketpair()

    def step() -> Step:
        runs.append(len(ours.recv(1)))
        yield Tick()

    with ours, theirs:
        loop.watch(ours, step)
        loop.wait(0)
        assert list(loop.events()) == []
        theirs.sendall(b"xy")
        loop.wait(None)
        assert runs == []
        assert list(loop.events()) == [Tick()]
        loop.wait(None)
        assert list(loop.events()) == [Tick()]
        assert runs == [1, 1]
        theirs.sendall(b"z")
        loop.unwatch(ours)
        loop.wait(0)
        assert list(loop.events()) == []
    loop.selector.close()
