"""The control socket: how ``flask serve status``, ``reload``, ``stop``, ``scale`` and ``stacks``
reach the supervisor.

``requests`` defines the requests, ``socket_path`` the path of the socket, ``server`` is the
supervisor's side, ``client`` the side of commands, and ``discovery`` finds the server that a
command means. docs/reference/control-socket describes the protocol.
"""

from __future__ import annotations

from .client import Connection, RefusedError, ServerGoneError, ask
from .discovery import key_of, locate, name_holder
from .requests import Reload, Request, Scale, Stacks, Status, Stop
from .server import ControlServer
from .socket_path import ControlSocketError, automatic_path, find, open_control_socket, remove, working_folder

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
