"""The client's side of the control socket: sends a request and waits.

Every failure is an error for a person.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from typing import Any

from ...clock import Deadline
from ...errors import ProdServeError
from ...net.root_only import account_name
from . import requests
from .peer import peer_uid
from .requests import Request


class NoServerError(ProdServeError):
    """No server can be reached."""


class SeveralServersError(ProdServeError):
    """More than one server matches."""


class NotAllowedError(ProdServeError):
    """The socket belongs to another account."""


class RefusedError(ProdServeError):
    """The server has refused the request; *what* is its answer."""


class SilentServerError(ProdServeError):
    """The server does not answer, or not with a valid answer."""


class ServerGoneError(ProdServeError):
    """The server has closed the connection instead of answering."""


def ask(path: str, request: Request, timeout: float | None) -> dict[str, Any]:
    """Send *request* to the server at *path* and return the answer.

    Raises what :class:`Connection` raises.
    """
    with Connection(path) as connection:
        return connection.ask(request, timeout)


class Connection:
    """A connection to the server at *path*. Raises NoServerError and NotAllowedError.

    It refuses a server of any account but this one and root, because such a server could answer
    anything.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                raise NotAllowedError(
                    f"This user may not connect to the server at {path}.",
                    "Run this command as the user that started it.",
                ) from error
            reason = error.strerror if error.errno is not None else "the path is too long for a Unix socket"
            raise NoServerError(
                f"No server answers at {path} (CONTROL_SOCKET): {reason}.",
                "It may have stopped, or use another --control-socket.",
            ) from error
        try:
            self._check_owner()
        except BaseException:
            self._socket.close()
            raise

    def _check_owner(self) -> None:
        try:
            uid = peer_uid(self._socket)
            if uid is None:
                uid = os.lstat(self._path).st_uid
        except OSError as error:
            raise NoServerError(f"No server answers at {self._path} (CONTROL_SOCKET): {error.strerror}.") from error
        if uid not in (0, os.geteuid()):
            name = account_name(uid)
            raise NotAllowedError(
                f"The server at {self._path} (CONTROL_SOCKET) was started by {name}, so this user cannot trust its answers.",
                f"Run this command as that user, with sudo -u {shlex.quote(name)} for instance, or name another socket.",
            )

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Send *request* and return the answer; wait for at most *timeout* seconds, or without
        limit if that is None.

        Raises RefusedError for an error, and SilentServerError or ServerGoneError if there is no
        answer.
        """
        self.send(request)
        line = self._receive(timeout)
        if line is None:
            raise ServerGoneError(
                f"The server at {self._path} closed the connection before it answered.",
                "It may have stopped; see its log.",
            )
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SilentServerError(f"The answer at {self._path} is not from flask-prodserve.", "Check CONTROL_SOCKET.")
        if "error" in answer:
            raise RefusedError(str(answer["error"]))
        return answer

    def send(self, request: Request) -> None:
        """Send *request*.

        Does not raise: a server that has closed the connection may have left an answer.
        """
        try:
            self._socket.settimeout(None)
            self._socket.sendall(requests.encode(request))
        except OSError:
            pass  # it has closed; an answer may still be readable

    def ends_within(self, seconds: float) -> bool:
        """Wait for the server to close the connection, which it does last.

        Returns whether it has.
        """
        try:
            self._socket.settimeout(seconds)
            return not self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            return True

    def _receive(self, timeout: float | None) -> bytes | None:
        """Return the next line; None at the end of the stream."""
        deadline = None if timeout is None else Deadline(timeout)
        while b"\n" not in self._received:
            try:
                # 0 would make the socket non-blocking.
                self._socket.settimeout(None if deadline is None else max(0.001, deadline.remaining()))
                data = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise SilentServerError(
                    f"The server at {self._path} did not answer within {timeout:g} seconds.",
                    "Its supervisor may be stopped (SIGSTOP, a debugger), or the machine may be very busy.",
                ) from error
            except OSError:
                return None
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line
