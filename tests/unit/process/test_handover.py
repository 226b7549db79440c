"""What one supervisor hands over to the next, which may be of another release."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_prodserve.process import handover
from flask_prodserve.process.handle import Handle
from flask_prodserve.process.handover import HandoverState, hand_over, take_over
from flask_prodserve.process.link import Link
from flask_prodserve.process.messages import Ready
from flask_prodserve.process.state import Renewal, State, Worker, WorkerPhase

WORKER = Worker(4, 2, WorkerPhase.READY, since=10.0, deadline=None, served=True, retiring="it is old")
STATE = State(
    wanted=3,
    workers=(WORKER,),
    last_number=7,
    generation=2,
    last_generation=5,
    ready_generation=2,
    served=True,
    has_once=True,
    once_worker=4,
)


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    """The supervisor's end and the worker's."""
    ours, theirs = Link.pair()
    yield ours, theirs
    theirs.close()


def described(document: dict[str, Any]) -> dict[str, str]:
    """An environment that names *document*."""
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(document).encode("ascii"))
        file.flush()
        file.seek(0)
        return {handover.VARIABLE: str(os.dup(file.fileno()))}


def test_everything_is_taken_over(links: tuple[Link, Link]) -> None:
    """The next supervisor has the workers, their links with what was half read, and begins a generation of its own."""
    ours, theirs = links
    ours.pending = b'{"mess'
    environ: dict[str, str] = {}
    handle = Handle(4, 2, os.getpid(), ours, slot=1, started_at=9.0)
    hand_over(HandoverState(1.0, scaled=True, state=STATE, handles={4: handle}), environ)
    taken = take_over(environ)
    assert taken is not None
    assert environ == {}
    assert (taken.started_at, taken.scaled, taken.control) == (1.0, True, None)
    assert taken.state == replace(STATE, generation=6, last_generation=6, renewal=Renewal.UPGRADE)
    link = taken.handles[4].link
    assert link.pending == b'{"mess'
    assert not os.get_inheritable(link.socket.fileno())
    assert link.send(Ready())
    assert theirs.receive() == [Ready()]
    link.socket.detach()
    ours.close()


def test_keys_are_those_of_the_first_release() -> None:
    """A document as the first release writes it is read, so that a server of that release can be upgraded."""
    state = {
        "wanted": 3,
        "last_number": 7,
        "last_generation": 5,
        "settled": 2,
        "served": True,
        "has_once": True,
        "once": 4,
    }
    worker = {
        "number": 4,
        "generation": 2,
        "phase": "ready",
        "since": 10.0,
        "deadline": None,
        "served": True,
        "retiring": "it is old",
    }
    document = {
        "format": 1,
        "started_at": 1.0,
        "control": None,
        "scaled": False,
        "state": state,
        "workers": [worker],
        "handles": [
            {"number": 4, "generation": 2, "pid": 77, "slot": 0, "started_at": 9.0, "link": None, "pending": ""}
        ],
        "offers": {},
    }
    taken = take_over(described(document))
    assert taken is not None
    assert taken.state == replace(STATE, generation=6, last_generation=6, renewal=Renewal.UPGRADE)
    assert taken.handles[4].pid == 77
    assert taken.handles[4].link.receive() is None
    taken.handles[4].link.close()


def test_another_format() -> None:
    """A document of another format is refused, with what to do."""
    with pytest.raises(handover.HandoverError, match=r"(?s)format 2, not 1\).*Restart the server"):
        take_over(described({"format": 2}))


def test_started_afresh() -> None:
    """A process that was not handed anything over is told so; a descriptor that is none is an error."""
    assert take_over({}) is None
    with pytest.raises(handover.HandoverError, match="nothing to take over"):
        take_over({handover.VARIABLE: "no number"})
