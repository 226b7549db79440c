"""Describe the server: for ``flask serve status``, and in a few words for systemd and the log."""

from __future__ import annotations

import os

from ..clock import monotonic
from ..version import __version__
from .handover import HandoverState
from .messages import Report
from .state import WorkerPhase

_NOTHING_YET = Report(served=0, connections=0, busy=0, queued=0, stuck=0, healthy=True, memory=0)


def in_short(handover: HandoverState) -> str:
    """Return a text such as ``2 workers, generation 3``."""
    ready = len(handover.state.of(WorkerPhase.READY))
    return f"{ready} worker{'s'[: ready != 1]}, generation {handover.state.ready_generation}"


def describe(handover: HandoverState, folder: str) -> dict[str, object]:
    """Return the answer to the control request ``status``, see docs/reference/control-socket."""
    state = handover.state
    spec = handover.specs.get(state.ready_generation)
    now = monotonic()
    server_state = "serving" if state.renewal is None else "reloading"
    if state.exit_code is not None:
        server_state = "stopping"
    return {
        "pid": os.getpid(),
        "version": __version__,
        "app": None if spec is None else spec.loaded.import_path,
        "folder": folder,
        "state": server_state,
        "uptime_seconds": now - handover.started_at,
        "listen": [] if spec is None else spec.urls,
        "wanted": state.wanted,
        "generation": state.ready_generation,
        "workers": [
            {
                "number": worker.number,
                "pid": handle.pid,
                "generation": worker.generation,
                "state": worker.phase.value,
                "uptime_seconds": now - handle.started_at,
                "served": report.served,
                "connections": report.connections,
                "busy": report.busy,
                "queued": report.queued,
                "stuck": report.stuck,
                "memory_bytes": report.memory,
            }
            for worker in state.workers
            for handle in (handover.handles[worker.number],)
            for report in (handle.report or _NOTHING_YET,)
        ],
    }
