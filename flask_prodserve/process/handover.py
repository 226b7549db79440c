"""What one supervisor hands over to the next, which takes its place in the same process (``exec``).

A JSON document in an unlinked file, whose descriptor is named in the environment, and the
descriptors that the document names, which stay open. The document is read by other releases: its
keys stay, whatever the fields are called here. FORMAT counts up when an older release could no
longer read it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
from collections.abc import Collection, Iterator, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ProdServeError
from ..net.listeners import Listener, from_descriptor
from ..units import format_address, parse_address
from .generation_spec import GenerationSpec
from .handle import Handle
from .link import Link
from .messages import Loaded
from .state import Renewal, State, Worker, WorkerPhase

FORMAT = 1

VARIABLE = "_FLASK_SERVE_HANDOVER"

_KEPT = {
    "wanted": "wanted",
    "last_number": "last_number",
    "last_generation": "last_generation",
    "settled": "ready_generation",
    "served": "served",
    "has_once": "has_once",
    "once": "once_worker",
}
"""The fields of the plan's state that are handed over, by their keys.

The others describe work in progress, which ends here.
"""


class HandoverError(ProdServeError):
    """The previous supervisor has handed over what cannot be read."""


@dataclass
class HandoverState:
    """All that a supervisor has. *control* is the descriptor of the control socket."""

    started_at: float
    control: int | None = None
    scaled: bool = False
    """Whether the number of workers differs from WORKERS on request."""
    state: State = field(default_factory=State)
    handles: dict[int, Handle] = field(default_factory=dict)
    specs: dict[int, GenerationSpec] = field(default_factory=dict)
    """By generation."""

    @property
    def listeners(self) -> set[Listener]:
        return {listener for spec in self.specs.values() for listener in spec.listeners}

    @property
    def loads(self) -> set[int]:
        return {spec.loads for spec in self.specs.values()}

    def free_slot(self) -> int:
        """Return the lowest entry of the load table that no worker has."""
        slots = {handle.slot for handle in self.handles.values()}
        return next(slot for slot in range(len(slots) + 1) if slot not in slots)

    def keep_generations(self, kept: Collection[int]) -> None:
        """Forget all generations but those *kept*, and close what only they used."""
        listeners, loads = self.listeners, self.loads
        self.specs = {number: spec for number, spec in self.specs.items() if number in kept}
        for listener in listeners - self.listeners:
            listener.close()
        for descriptor in loads - self.loads:
            os.close(descriptor)

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors that the next supervisor needs."""
        yield from self.loads
        if self.control is not None:
            yield self.control
        yield from (handle.link.socket.fileno() for handle in self.handles.values() if handle.linked)
        yield from (listener.socket.fileno() for listener in self.listeners)


def hand_over(handover: HandoverState, environ: MutableMapping[str, str]) -> None:
    """Keep the descriptors of *handover* open across ``exec``, and name its description in
    *environ*.
    """
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps({"format": FORMAT, **_written(handover)}).encode("ascii"))
        file.flush()
        file.seek(0)
        descriptor = os.dup(file.fileno())
    environ[VARIABLE] = str(descriptor)
    for inherited in (descriptor, *handover.descriptors()):
        os.set_inheritable(inherited, True)


def take_back(handover: HandoverState, environ: MutableMapping[str, str]) -> None:
    """Undo :func:`hand_over`."""
    os.close(int(environ.pop(VARIABLE)))
    for descriptor in handover.descriptors():
        os.set_inheritable(descriptor, False)


def take_over(environ: MutableMapping[str, str]) -> HandoverState | None:
    """Return what was handed over to this process, which starts a new generation; None if the
    process was started afresh.

    Raises HandoverError.
    """
    number = environ.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        with open(int(number), "rb") as file:
            document = json.load(file)
    except (OSError, ValueError) as error:
        raise HandoverError(f"{VARIABLE} is set, but there is nothing to take over: {error}.", "Unset it.") from error
    if document.get("format") != FORMAT:
        raise HandoverError(
            f"The running server was started by another release of flask-prodserve (format {document.get('format')}, not {FORMAT}).",
            "Restart the server instead of upgrading it.",
        )
    handover = _read(document)
    for descriptor in handover.descriptors():
        os.set_inheritable(descriptor, False)
    return handover


def _written(handover: HandoverState) -> dict[str, Any]:
    state = handover.state
    return {
        "started_at": handover.started_at,
        "control": handover.control,
        "scaled": handover.scaled,
        "state": {key: getattr(state, name) for key, name in _KEPT.items()},
        "workers": [asdict(worker) | {"phase": worker.phase.value} for worker in state.workers],
        "handles": [
            {
                "number": handle.number,
                "generation": handle.generation,
                "pid": handle.pid,
                "slot": handle.slot,
                "started_at": handle.started_at,
                "link": handle.link.socket.fileno() if handle.linked else None,
                "pending": base64.b64encode(handle.link.pending).decode("ascii"),
            }
            for handle in handover.handles.values()
        ],
        "offers": {
            str(generation): {
                "loaded": asdict(spec.loaded),
                "loads": spec.loads,
                "listeners": [
                    {
                        "descriptor": listener.socket.fileno(),
                        "address": format_address(listener.address),
                        "file": listener.file,
                    }
                    for listener in spec.listeners
                ],
            }
            for generation, spec in handover.specs.items()
        },
    }


def _read(document: dict[str, Any]) -> HandoverState:
    found: dict[int, Listener] = {}

    def listener(descriptor: int, address: str, file: list[int] | None) -> Listener:
        if descriptor not in found:
            identity = None if file is None else (file[0], file[1])
            found[descriptor] = from_descriptor(descriptor, parse_address(address), identity)
        return found[descriptor]

    kept = {name: document["state"][key] for key, name in _KEPT.items()}
    generation = kept["last_generation"] + 1
    workers = tuple(Worker(**entry | {"phase": WorkerPhase(entry["phase"])}) for entry in document["workers"])
    return HandoverState(
        started_at=document["started_at"],
        control=document["control"],
        scaled=document["scaled"],
        state=State(
            **kept | {"last_generation": generation},
            workers=workers,
            generation=generation,
            renewal=Renewal.UPGRADE,
        ),
        handles={
            entry["number"]: Handle(link=_link(entry.pop("link"), entry.pop("pending")), **entry)
            for entry in document["handles"]
        },
        specs={
            int(number): GenerationSpec.of(
                Loaded(**spec["loaded"]), [listener(**entry) for entry in spec["listeners"]], spec["loads"]
            )
            for number, spec in document["offers"].items()
        },
    )


def _link(descriptor: int | None, pending: str) -> Link:
    if descriptor is None:  # the worker has closed its end and is exiting
        ours, theirs = Link.pair()
        theirs.close()
        return ours
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return Link(sock, base64.b64decode(pending))
