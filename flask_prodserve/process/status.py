"""How the server is: for ``flask serve status``, and in a few words for systemd and the log."""

from __future__ import annotations

import os

from ..clock import monotonic
from ..version import __version__
from .handover import Estate
from .messages import Report
from .state import Phase

_NOTHING_YET = Report(served=0, connections=0, busy=0, queued=0, stuck=0, healthy=True, memory=0)


def in_short(estate: Estate) -> str:
    """``2 workers, generation 3``"""
    ready = len(estate.state.of(Phase.READY))
    return f"{ready} worker{'s'[: ready != 1]}, generation {estate.state.settled}"


def describe(estate: Estate, folder: str) -> dict[str, object]:
    """All that can be told, as docs/reference/control-socket has it."""
    state = estate.state
    offer = estate.offers.get(state.settled)
    now = monotonic()
    doing = "serving" if state.renewal is None else "reloading"
    if state.exit_code is not None:
        doing = "stopping"
    return {
        "pid": os.getpid(),
        "version": __version__,
        "app": None if offer is None else offer.loaded.import_path,
        "folder": folder,
        "state": doing,
        "uptime_seconds": now - estate.started_at,
        "listen": [] if offer is None else offer.urls,
        "wanted": state.wanted,
        "generation": state.settled,
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
            for handle in (estate.handles[worker.number],)
            for report in (handle.report or _NOTHING_YET,)
        ],
    }
