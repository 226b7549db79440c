"""The control socket: how ``flask serve status``, ``reload``, ``stop``, ``scale`` and ``stacks`` reach the supervisor.

``requests`` is what can be asked, ``place`` where the socket is, ``server`` the supervisor's side, ``client`` the other one, and
``discovery`` finds the server that a command means. The
protocol is described in docs/reference/control-socket.
"""

from __future__ import annotations

from .client import Connection, RefusedError, ServerGoneError, ask
from .discovery import key_of, locate, name_holder
from .place import ControlSocketError, automatic_path, find, open_control_socket, remove, working_folder
from .requests import Reload, Request, Scale, Stacks, Status, Stop
from .server import ControlServer

__all__ = [
    "Connection",
    "ControlServer",
    "ControlSocketError",
    "RefusedError",
    "Reload",
    "Request",
    "Scale",
    "ServerGoneError",
    "Stacks",
    "Status",
    "Stop",
    "ask",
    "automatic_path",
    "find",
    "key_of",
    "locate",
    "name_holder",
    "open_control_socket",
    "remove",
    "working_folder",
]
