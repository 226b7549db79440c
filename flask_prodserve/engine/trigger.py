"""How other threads reach the loop's."""

from __future__ import annotations

import logging
from collections.abc import Callable

from waitress import trigger as waitress_trigger

logger = logging.getLogger("flask_prodserve.engine")


class Trigger(waitress_trigger.trigger):  # type: ignore[misc]  # waitress is not annotated
    """waitress's, but what is to be called is called without its lock: it may pull the trigger itself, or want a lock that somebody has
    who pulls it.
    """

    thunks: list[Callable[[], object]]

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
