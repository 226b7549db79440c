"""The connection between the supervisor and one worker: messages both ways, and descriptors to the
worker.

A pair of stream sockets. The supervisor's end never blocks. The worker's end blocks, except for
reports, which are dropped if the supervisor does not read.

The end of the stream is not the end of a process: a child that the app has forked, or a program
that it has started, may hold the same end. The supervisor learns of a worker's exit from
``waitpid``, and a worker of its supervisor's exit from its parent's process id.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from typing import Any

from .messages import SupervisorMessage, WorkerMessage, decode, encode

MOST_BYTES = 4 << 20
"""Upper bound for a line. The longest messages are stacks."""

MOST_DESCRIPTORS = 253
"""How many descriptors one message can carry (SCM_MAX_FD of Linux)."""


class Broken(Exception):
    """The other end has sent something that is no message, or too long."""


class Link:
    """One end. *pending* is the beginning of a message whose rest has not arrived."""

    def __init__(self, sock: socket.socket, pending: bytes = b"") -> None:
        self.socket = sock
        self.pending = pending
        self._descriptors: list[int] = []
        self._sending = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Return the supervisor's end and the worker's."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        return cls(ours), cls(theirs)

    def send(self, message: WorkerMessage | SupervisorMessage, descriptors: list[int] | None = None) -> bool:
        """Send *message*. Returns False if the other end is closed or does not read."""
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

    def offer(self, message: WorkerMessage) -> bool:
        """Send *message* if that does not block. Returns whether it was sent."""
        with self._sending, contextlib.suppress(OSError):
            # A report is so short that a socket buffer takes it whole or not at all.
            self.socket.send(encode(message), socket.MSG_DONTWAIT)
            return True
        return False

    def receive(self) -> list[Any] | None:
        """Return the messages that have arrived; None at the end of the stream.

        An end that blocks waits for some. Raises Broken.
        """
        data = self._read()
        if data is None:
            return []
        return self._parse(data) if data else None

    def receive_rest(self) -> list[Any]:
        """Return all messages that have arrived at an end that does not block. Raises Broken."""
        messages: list[Any] = []
        left = MOST_BYTES  # a child that holds the other end may keep sending
        while left > 0 and (data := self._read()):
            left -= len(data)
            messages += self._parse(data)
        return messages

    def _read(self) -> bytes | None:
        """Return what has arrived, ``b""`` at the end of the stream, and None if nothing has
        arrived.
        """
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
        """Return the descriptors that have arrived. The caller closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        self.socket.close()
