"""Has the event loop's thread call a function. From any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..waitress_parts import trigger

logger = logging.getLogger("flask_prodserve.engine")


class Trigger(trigger):  # type: ignore[misc]  # waitress is not annotated
    """waitress's trigger, with two differences.

    - It calls functions without holding its lock: a function may pull the trigger itself, or wait
      for a lock that another thread holds while it pulls the trigger.
    - It writes nothing after it was closed: its descriptor may be another file's by then.
    """

    accepting = False
    descriptor: int
    thunks: list[Callable[[], object]]
    _closed: bool

    def __init__(self) -> None:
        # Reentrant: a signal handler may interrupt the thread that holds it.
        self._pull_lock = threading.RLock()
        super().__init__({})
        self.descriptor = self._fileno

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
                logger.exception("a call in the event loop failed")
