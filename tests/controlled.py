"""A control server in a loop like the supervisor's, which runs in a thread of this process; only the supervisor is not there."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flask_prodserve.process import control
from serving import PATIENCE, wait_until

Respond = Callable[[Mapping[str, object]], None]


@dataclass
class Controlled:
    """*path* is where it listens, *requests* what it has been asked."""

    path: str
    server: control.ControlServer
    selector: selectors.BaseSelector
    requests: list[control.Request]
    _soon: Callable[[Callable[[], object]], None]
    closed: bool = field(default=False)

    def in_loop(self, function: Callable[[], object]) -> None:
        """Call *function* between two turns of the loop, and return when that is done."""
        done = threading.Event()

        def called() -> None:
            try:
                function()
            finally:
                done.set()

        self._soon(called)
        assert done.wait(PATIENCE), "the loop does not come round"

    def close(self) -> None:
        """Close it as a supervisor does at its end."""
        self.in_loop(self.server.close)
        self.closed = True

    @property
    def connections(self) -> int:
        """How many the loop looks at."""
        return len(self.selector.get_map()) - 2  # the listener, and what in_loop needs

    def wait_for_connections(self, count: int) -> None:
        wait_until(lambda: self.connections == count, f"{count} connections, {self.connections} are there")


@contextlib.contextmanager
def controlled(path: Path, serve: Callable[[control.Request, Respond], object]) -> Iterator[Controlled]:
    """Have *serve* answer what is asked at *path*. Whatever the loop raises is raised at the end."""
    requests: list[control.Request] = []
    calls: list[Callable[[], object]] = []
    ours, theirs = socket.socketpair()
    selector = selectors.DefaultSelector()
    failures: list[BaseException] = []
    ended = False

    def soon(function: Callable[[], object]) -> None:
        calls.append(function)
        ours.send(b"!")

    def woken() -> None:
        theirs.recv(1)
        calls.pop(0)()

    def end() -> None:
        nonlocal ended
        ended = True

    def note(request: control.Request, respond: Respond) -> None:
        requests.append(request)
        serve(request, respond)

    def run() -> None:
        try:
            while not ended:
                for key, _ in selector.select():
                    key.data()
        except BaseException as error:
            failures.append(error)

    selector.register(theirs, selectors.EVENT_READ, woken)
    running = Controlled(
        str(path),
        control.ControlServer(control.open_control_socket(str(path)), selector, note),
        selector,
        requests,
        soon,
    )
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        if thread.is_alive():
            if not running.closed:
                running.close()
            soon(end)
        thread.join(PATIENCE)
        for closable in (ours, theirs, selector):
            closable.close()
    assert not thread.is_alive(), "the loop did not end"
    if failures:
        raise failures[0]
