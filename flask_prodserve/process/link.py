"""The connection between a supervisor and one of its workers: messages both ways, and descriptors to the worker.

A stream socket of a pair. The supervisor's end never blocks; the worker's does, but for reports, which are dropped where the supervisor
does not read.

The end of the stream is not the end of a process: a child that the app has forked, or a program that it has started, may hold the same
end. The supervisor learns from ``waitpid`` that a worker has ended, and a worker from its parent's id that the supervisor has.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from typing import Any

from .messages import FromSupervisor, FromWorker, decode, encode

MOST_BYTES = 4 << 20
"""A line that does not end within so many bytes is no message; the longest are stacks."""

MOST_DESCRIPTORS = 253
"""As many as one message can carry (SCM_MAX_FD of Linux)."""


class Broken(Exception):
    """The other end says what is no message, or more than it may."""


class Link:
    """One end. *pending* is what has been read without being a whole message yet."""

    def __init__(self, sock: socket.socket, pending: bytes = b"") -> None:
        self.socket = sock
        self.pending = pending
        self._descriptors: list[int] = []
        self._sending = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """The supervisor's end and the worker's."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        return cls(ours), cls(theirs)

    def send(self, message: FromWorker | FromSupervisor, descriptors: list[int] | None = None) -> bool:
        """Send *message*. Returns False where the other end has gone, or does not read."""
        line = encode(message)
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
        )
        with self._sending, contextlib.suppress(OSError):
            sent = self.socket.sendmsg([line], rights)
            if sent < len(line):
                self.socket.sendall(line[sent:])
            return True
        return False

    def offer(self, message: FromWorker) -> bool:
        """Send *message* if that goes without waiting."""
        with self._sending, contextlib.suppress(OSError):
            # Short enough for a socket's buffer to take it whole or not at all.
            self.socket.send(encode(message), socket.MSG_DONTWAIT)
            return True
        return False

    def receive(self) -> list[Any] | None:
        """The messages that have arrived, after waiting for some where the end blocks; None at the end of the stream. Raises Broken."""
        data = self._read()
        if data is None:
            return []
        return self._parse(data) if data else None

    def receive_rest(self) -> list[Any]:
        """The messages that have arrived at an end that does not block, without waiting for the end of the stream. Raises Broken."""
        messages: list[Any] = []
        left = MOST_BYTES  # a child that holds the other end may go on sending
        while left > 0 and (data := self._read()):
            left -= len(data)
            messages += self._parse(data)
        return messages

    def _read(self) -> bytes | None:
        """What has arrived, ``b""`` at the end of the stream, None where there is nothing now."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 18, socket.CMSG_SPACE(MOST_DESCRIPTORS * 4))
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                for number in numbers:
                    os.set_inheritable(number, False)
                self._descriptors.extend(numbers)
        return data

    def _parse(self, data: bytes) -> list[Any]:
        *lines, self.pending = (self.pending + data).split(b"\n")
        if len(self.pending) > MOST_BYTES:
            raise Broken("a message that does not end")
        try:
            return [decode(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise Broken(str(error)) from error

    def take_descriptors(self) -> list[int]:
        """The descriptors that have come so far. The caller's to close."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        self.socket.close()
