"""What one supervisor leaves to the next, which takes its place in the same process (``exec``).

A JSON document in an unlinked file whose descriptor is named in the environment, and the descriptors that the document speaks of, which
stay open. FORMAT counts up when an older release could not read it any more.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
from collections.abc import Iterator, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ProdServeError
from ..net.listeners import Listener, from_descriptor
from ..units import format_address, parse_address
from .handle import Handle
from .link import Link
from .messages import Loaded
from .offer import Offer
from .state import Phase, Renewal, State, Worker

FORMAT = 1

VARIABLE = "_FLASK_SERVE_HANDOVER"


class HandoverError(ProdServeError):
    """The supervisor before this one left what cannot be read."""


@dataclass
class Estate:
    """All that a supervisor has. *control* is the descriptor of the control socket."""

    started_at: float
    control: int | None = None
    scaled: bool = False
    """Whether the number of workers is no longer what WORKERS says."""
    state: State = field(default_factory=State)
    handles: dict[int, Handle] = field(default_factory=dict)
    offers: dict[int, Offer] = field(default_factory=dict)

    @property
    def listeners(self) -> set[Listener]:
        return {listener for offer in self.offers.values() for listener in offer.listeners}

    @property
    def loads(self) -> set[int]:
        return {offer.loads for offer in self.offers.values()}

    def descriptors(self) -> Iterator[int]:
        """Of all that the next supervisor needs."""
        yield from self.loads
        if self.control is not None:
            yield self.control
        yield from (handle.link.socket.fileno() for handle in self.handles.values() if handle.linked)
        yield from (listener.socket.fileno() for listener in self.listeners)


def leave(estate: Estate, environ: MutableMapping[str, str]) -> None:
    """Leave *estate*: what it consists of stays open across ``exec``, and *environ* says where it is described."""
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps({"format": FORMAT, **_written(estate)}).encode("ascii"))
        file.flush()
        file.seek(0)
        descriptor = os.dup(file.fileno())
    environ[VARIABLE] = str(descriptor)
    for inherited in (descriptor, *estate.descriptors()):
        os.set_inheritable(inherited, True)


def keep(estate: Estate, environ: MutableMapping[str, str]) -> None:
    """Undo :func:`leave`."""
    os.close(int(environ.pop(VARIABLE)))
    for descriptor in estate.descriptors():
        os.set_inheritable(descriptor, False)


def take(environ: MutableMapping[str, str]) -> Estate | None:
    """What has been left to this process, which brings the next generation; None where it has just been started.

    Raises HandoverError.
    """
    number = environ.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        with open(int(number), "rb") as file:
            document = json.load(file)
    except (OSError, ValueError) as error:
        raise HandoverError(f"{VARIABLE} is set, and there is nothing to take over: {error}.", "Unset it.") from error
    if document.get("format") != FORMAT:
        raise HandoverError(
            f"The running server was started by another release of flask-prodserve (format {document.get('format')}, not {FORMAT}).",
            "Restart the server instead of upgrading it.",
        )
    estate = _read(document)
    for descriptor in estate.descriptors():
        os.set_inheritable(descriptor, False)
    return estate


def _written(estate: Estate) -> dict[str, Any]:
    state = estate.state
    return {
        "started_at": estate.started_at,
        "control": estate.control,
        "scaled": estate.scaled,
        "state": {name: getattr(state, name) for name in _KEPT},
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
            for handle in estate.handles.values()
        ],
        "offers": {
            str(generation): {
                "loaded": asdict(offer.loaded),
                "loads": offer.loads,
                "listeners": [
                    {
                        "descriptor": listener.socket.fileno(),
                        "address": format_address(listener.address),
                        "file": listener.file,
                    }
                    for listener in offer.listeners
                ],
            }
            for generation, offer in estate.offers.items()
        },
    }


_KEPT = ("wanted", "last_number", "last_generation", "settled", "served", "has_once", "once")
"""What of a plan's state is for the next one. The others are about what is under way, which ends here."""


def _read(document: dict[str, Any]) -> Estate:
    found: dict[int, Listener] = {}

    def listener(descriptor: int, address: str, file: list[int] | None) -> Listener:
        if descriptor not in found:
            identity = None if file is None else (file[0], file[1])
            found[descriptor] = from_descriptor(descriptor, parse_address(address), identity)
        return found[descriptor]

    generation = document["state"]["last_generation"] + 1
    workers = tuple(Worker(**entry | {"phase": Phase(entry["phase"])}) for entry in document["workers"])
    return Estate(
        started_at=document["started_at"],
        control=document["control"],
        scaled=document["scaled"],
        state=State(
            **document["state"] | {"last_generation": generation},
            workers=workers,
            generation=generation,
            renewal=Renewal.UPGRADE,
        ),
        handles={
            entry["number"]: Handle(link=_link(entry.pop("link"), entry.pop("pending")), **entry)
            for entry in document["handles"]
        },
        offers={
            int(number): Offer.of(
                Loaded(**offer["loaded"]), [listener(**entry) for entry in offer["listeners"]], offer["loads"]
            )
            for number, offer in document["offers"].items()
        },
    )


def _link(descriptor: int | None, pending: str) -> Link:
    if descriptor is None:  # its worker has let go of it, and is about to end
        ours, theirs = Link.pair()
        theirs.close()
        return ours
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return Link(sock, base64.b64decode(pending))
