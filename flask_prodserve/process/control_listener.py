"""The listener of the control socket: taken over from the previous supervisor, or opened."""

from __future__ import annotations

import logging
import socket

from ..errors import ProdServeError
from .control import open_control_socket
from .handover import HandoverState

logger = logging.getLogger("flask_prodserve.supervisor")


def control_listener(handover: HandoverState, path: str | None, *, automatic: bool) -> socket.socket | None:
    """Return the listener of the control socket at *path*, and note it in *handover*; None if there
    is to be none.

    *automatic*: CONTROL_SOCKET is ``auto``. Then the server runs without one if it cannot be
    opened, and logs why; otherwise that raises ControlSocketError.
    """
    if handover.control is not None:
        return socket.socket(fileno=handover.control)
    if path is None:
        if automatic:
            _log_missing("$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and $TMPDIR (/tmp) are missing, read-only or not safe")
        return None
    try:
        listening = open_control_socket(path)
    except ProdServeError as error:
        if not automatic:
            raise
        _log_missing(error.what)
        return None
    handover.control = listening.fileno()
    return listening


def _log_missing(reason: str) -> None:
    logger.warning(
        "CONTROL_SOCKET is 'auto', but no control socket could be created: %s. 'flask serve status', 'stop' and 'reload' cannot find "
        "this server. Set CONTROL_SOCKET (--control-socket) to a path in a directory that only this user can write to, or to 'off'",
        reason,
    )
