"""Listeners that several processes watch."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Any, cast

import pytest

from flask_prodserve.engine.dispatch.poller import Poller
from serving import PATIENCE, wait_until

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="needs epoll")


class Listening:
    """A listener, as the poller sees it."""

    accepting = True

    def __init__(self, sock: socket.socket) -> None:
        self.descriptor = sock.fileno()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False


class NeverDefers:
    """A balancer of several processes, of which none has more connections than another."""

    defers_accepting = False


def test_a_connection_that_another_process_was_woken_for() -> None:
    """A connection whose wake-up is lost with another process is found when the listeners are armed again."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other = stack.enter_context(contextlib.closing(select.epoll()))
        other.register(listening, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        poller = Poller(cast(Any, NeverDefers()))
        stack.callback(poller.close)
        poller.watch(cast(Any, Listening(listening)))
        woken = threading.Event()
        waiting = threading.Thread(target=lambda: other.poll(PATIENCE) and woken.set())
        waiting.start()
        wait_until(lambda: _sleeps(waiting), "the other process to wait")
        stack.enter_context(socket.create_connection(listening.getsockname()))
        assert woken.wait(PATIENCE)
        waiting.join(PATIENCE)
        assert poller.poll(0) == []
        poller.rearm_listeners()
        assert poller.poll(PATIENCE) == [(listening.fileno(), select.EPOLLIN)]


def _sleeps(thread: threading.Thread) -> bool:
    """Tell whether the system has *thread* wait in epoll_wait(2)."""
    with open(f"/proc/self/task/{thread.native_id}/wchan") as file:
        return "poll" in file.read()
