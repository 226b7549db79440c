"""How other threads reach the loop's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from waitress import trigger as waitress_trigger

logger = logging.getLogger("flask_prodserve.engine")


class Trigger(waitress_trigger.trigger):  # type: ignore[misc]  # waitress is not annotated
    """waitress's, with two differences. What is to be called is called without its lock: it may pull the trigger itself, or want a lock
    that somebody has who pulls it. And once closed, it is not written to: its number could be another file's by then.
    """

    thunks: list[Callable[[], object]]
    _closed: bool

    def __init__(self, map: dict[int, Any]) -> None:
        self._pull_lock = threading.RLock()  # a signal handler may want it while its thread has it
        super().__init__(map)

    def _physical_pull(self) -> None:
        with self._pull_lock:
            if not self._closed:
                super()._physical_pull()

    def close(self) -> None:
        with self._pull_lock:
            super().close()

    def abandon(self) -> None:
        """Close the descriptors in a child process, where a lock may never be free again."""
        if not self._closed:
            self._closed = True
            self._close()

    def handle_read(self) -> None:
        try:
            self.recv(8192)
        except OSError:
            return
        with self.lock:
            functions, self.thunks = self.thunks, []
        for function in functions:
            try:
                function()
            except Exception:
                logger.exception("the loop cannot do what it was asked for")
