"""What became of requests once the server began to stop, over all workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..observe import startup
from .handle import Handle


@dataclass
class EndReport:
    """The counts of ``observe.events.Drained``. *late*: GRACEFUL_TIMEOUT has cut requests."""

    finished: int = 0
    cut: int = 0
    left: int = 0
    late: bool = False
    at_once: bool = False
    """The server stops without waiting for requests."""

    def add(self, handle: Handle) -> None:
        """Add a worker that has exited."""
        if (drained := handle.drained) is not None:
            self.finished += drained.finished
            self.cut += drained.cut
            self.left += drained.left
            self.late = self.late or (drained.cut > 0 and not self.at_once)
        elif handle.report is not None:
            self.cut += handle.report.busy

    def log(self, logger: logging.Logger, graceful_timeout: float) -> None:
        startup.report_end(logger, self.finished, self.cut, self.left, graceful_timeout, late=self.late)
