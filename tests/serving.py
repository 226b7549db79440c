"""Real servers for tests: ``in_thread`` runs an engine in this process, ``command`` runs ``flask serve`` in one of its own.

Nothing sleeps for a fixed time: everything waits for a condition, up to a deadline that TEST_PATIENCE scales.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask_prodserve.apps.main_app import MainApp
from flask_prodserve.clock import Clock
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.table import ConnectionTable
from flask_prodserve.engine.engine import Engine
from flask_prodserve.extension import resolve_for
from flask_prodserve.net.listeners import Listener, open_listeners
from flask_prodserve.net.loads import Loads
from flask_prodserve.net.tls import Certificates
from flask_prodserve.observe.events import Activity, Drained, RequestDone
from flask_prodserve.service import engine_for
from flask_prodserve.settings import arguments
from internals import books, checks_are_at_work, has_leader, queued

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

PATIENCE = 20.0 * float(os.environ.get("TEST_PATIENCE", "1"))
"""Seconds to wait for what must happen. Never part of an expectation."""


DEFAULTS: dict[str, object] = {}
"""Settings of every server that :func:`in_thread` runs, unless it is given others."""


def wait_until(condition: Callable[[], object], what: str = "a condition") -> None:
    """Return as soon as *condition* holds."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f}s for {what}"
        pause.wait(0.01)


class ManualClock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Served:
    """An engine that runs in a thread. *address* is where its first listener is, *done* what it says of its requests, *activities* what
    it says every half second.
    """

    engine: Engine
    listeners: list[Listener]
    addresses: list[tuple[str, int] | str]
    done: list[RequestDone] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)
    drained: Drained | None = None

    @property
    def address(self) -> tuple[str, int] | str:
        return self.addresses[0]

    # What the engine has inside. Tests look it up here and in ``internals`` only.

    @property
    def table(self) -> ConnectionTable:
        return self.engine._table

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return list(self.engine._table.connections.values())

    @property
    def loop(self) -> Any:
        return self.engine._dispatcher

    @property
    def has_leader(self) -> bool:
        """Whether the event loop is the one for epoll, and not the portable one."""
        return has_leader(self.engine)

    @property
    def stuck(self) -> int:
        """Threads that have been given up and have not come back."""
        return self.engine._dispatcher.stuck

    @property
    def is_draining(self) -> bool:
        """Whether the listeners are closed."""
        return self.engine._context.drain.active

    def soon(self, function: Callable[[], object]) -> None:
        """Have *function* called in the thread of the event loop."""
        self.engine._dispatcher.soon(function)

    @staticmethod
    def wait_until(condition: Callable[[], object]) -> None:
        wait_until(condition)

    def wait_for_queue(self, count: int) -> None:
        """Until *count* requests wait for a thread or for others of their endpoint, and the server knows since when."""
        wait_until(lambda: queued(self.engine) == count, f"{count} requests to be queued")
        self.settle()

    def look(self) -> None:
        """Have the server look at its deadlines, as it does every half second, and return when it has done what is due."""
        self.settle()
        self._in_loop(self.check)
        while checks_are_at_work(self.engine):
            self.settle()
        self.settle()

    def check(self) -> None:
        """Check all deadlines and queues. To be called in the thread of the event loop."""
        self.engine._check()

    def settle(self) -> None:
        """Return when the server has accepted the clients and read the bytes that have reached this system so far."""
        for _ in range(3):  # each begins after all that was there before the one before it is done
            self._in_loop(lambda: None)

    def call(self, function: Callable[[], object]) -> None:
        """Call *function* in the thread of the event loop, and return when that is done."""
        self._in_loop(function)

    def _in_loop(self, function: Callable[[], object]) -> None:
        done = threading.Event()
        failures: list[BaseException] = []

        def called() -> None:
            try:
                function()
            except BaseException as error:  # in the loop it would only be logged
                failures.append(error)
            finally:
                done.set()

        self.soon(called)
        assert done.wait(PATIENCE), "the loop does not come round"
        if failures:
            raise failures[0]


@contextlib.contextmanager
def in_thread(
    app: WSGIApplication,
    *,
    beside: Sequence[Listener] = (),
    loads: Loads | None = None,
    clock: Clock = time.monotonic,
    leaves: Collection[str] = (),
    **settings: object,
) -> Iterator[Served]:
    """Serve *app* on a port of its own with *settings*, which may name a ``bind``; or on those listeners that
    others have, *beside* them, as processes do.

    Checks at the end that the server has released everything that it counts. *leaves* names the entries of ``Books`` that the test
    leaves open on purpose.
    """
    settings = {**DEFAULTS, **settings}
    if "bind" not in settings:
        settings.setdefault("port", 0)
    main = MainApp.of(app)
    resolved = resolve_for(main.flask, [arguments(settings, "in_thread")]).settings
    tls = Certificates(resolved.tls) if resolved.tls.pairs else None
    listeners = [Listener(listener.socket.dup(), listener.address) for listener in beside] or open_listeners(
        resolved.addresses, backlog=128, unix_socket_mode=resolved.bind.unix_socket_mode
    )
    done: list[RequestDone] = []
    activities: list[Activity] = []
    engine = engine_for(
        main,
        resolved,
        listeners,
        tls=tls,
        request_done=done.append,
        loads=loads,
        checked=activities.append,
        clock=clock,
    )
    names = [listener.socket.getsockname() for listener in listeners]
    addresses = [name if isinstance(name, str) else name[:2] for name in names]
    served = Served(engine, listeners, addresses, done, activities)

    engine.start()

    def run() -> None:
        served.drained = engine.run()

    thread = threading.Thread(
        target=run, daemon=True
    )  # a server that does not stop is a failure, and not the end of all tests
    thread.start()
    try:
        yield served
    finally:
        engine.stop()
        thread.join(PATIENCE)
        for listener in listeners:
            listener.close()
    assert not thread.is_alive(), "the engine did not stop"
    check_books(engine, leaves)


def check_books(engine: Engine, leaves: Collection[str] = ()) -> None:
    """Wait until *engine*, which has stopped, counts nothing any more, apart from the entries of ``Books`` that *leaves* names.

    A thread that was stuck may still come back.
    """

    def left() -> dict[str, int]:
        return {name: count for name, count in books(engine).open.items() if name not in leaves}

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not left())
    assert left() == {}, "the server has stopped and still counts these"


class Command:
    """A running command whose output, of both streams, is collected as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            self._chunks.append(chunk)

    @property
    def output(self) -> str:
        return b"".join(self._chunks).decode()

    def wait_for(self, text: str) -> None:
        """Until *text* is in the output."""
        wait_until(lambda: text in self.output or self.process.poll() is not None, f"{text!r} in {self.output!r}")
        if text not in self.output:
            self._reader.join(PATIENCE)
        assert text in self.output, f"no {text!r} in: {self.output}"

    @property
    def url(self) -> str:
        """The first URL that it says it listens on."""
        self.wait_for("serving app=")
        match = re.search(r"listen=([^ ,]+)", self.output)
        assert match is not None, self.output
        return match[1]

    @property
    def address(self) -> tuple[str, int] | str:
        url = self.url
        if url.startswith("unix:"):
            return url.removeprefix("unix:")
        host, _, port = url.partition("://")[2].rpartition(":")
        return host.strip("[]"), int(port)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end; the output is complete then."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


def environment(**variables: str) -> dict[str, str]:
    """The environment of this process without anything that would configure Flask or this server."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASK_", "PRODSERVE_"))
        and name not in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "NO_COLOR", "FORCE_COLOR")
    }
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error", **variables}


@contextlib.contextmanager
def run(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Command]:
    """Run a command until the block ends."""
    process = subprocess.Popen(
        arguments,
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    command = Command(process)
    try:
        yield command
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        command.exit_code()
        assert process.stdout is not None
        process.stdout.close()


def defaults() -> list[str]:
    """DEFAULTS, as ``flask serve`` takes them."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in DEFAULTS.items()]


def flask(*arguments: str) -> list[str]:
    """The ``flask`` command of the Python that runs the tests."""
    return [sys.executable, "-m", "flask", *arguments]
