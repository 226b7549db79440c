"""REQUEST_TIMEOUT_RAISE: an exception comes while the app's code runs, and whatever of ours it comes into is left in order."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import pytest
from flask import Flask

from by_hand import ByHand
from flask_prodserve.clock import monotonic
from flask_prodserve.engine.connection.connection import Connection, TurnEnd
from flask_prodserve.engine.connection.table import ConnectionTable
from flask_prodserve.engine.connection.transport import TCPTransport
from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.exchange import task
from flask_prodserve.engine.exchange.peer import Peer
from flask_prodserve.errors import RequestTimedOut
from flask_prodserve.extension import resolve_for
from flask_prodserve.observe.limit_events import LimitEvents
from flask_prodserve.settings import arguments
from serving import PATIENCE

REQUEST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)
"""With a body that is kept in a file."""

logger = logging.getLogger("asked")

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


@contextlib.contextmanager
def asked(application: Application) -> Iterator[Connection]:
    """A channel with a request that is to be answered."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(socket.create_connection(listening.getsockname()))
        accepted, address = listening.accept()
        accepted.setblocking(False)
        settings = resolve_for(Flask("asked"), [arguments({"request_timeout_raise": True}, "test")]).settings
        channel = Connection(
            TCPTransport(accepted),
            Peer(*address, "127.0.0.1", 80, "http"),
            EngineContext.of(application, settings, error_logger=logger),
            ByHand(),
            table := ConnectionTable(10, 0, bool, LimitEvents(), monotonic),
        )
        table.add(channel)
        stack.callback(channel.close)
        assert channel.received(REQUEST)
        yield channel


def interrupt(channel: Connection) -> None:
    """Raise the exception here, where one can come; else nothing."""
    assert isinstance(channel.task, task.Task)
    if channel.task.interruptible is not None:
        channel.task.interruptible.interrupt(RequestTimedOut)


class InterruptingClock:
    """In place of ``time`` in the task: raises the exception in the moment in which the task looks for the *number*-th time."""

    def __init__(self, number: int) -> None:
        self.channel: Connection | None = None
        self.left = number
        self.time = time.time

    def perf_counter(self) -> float:
        self.left -= 1
        if not self.left and self.channel is not None:
            interrupt(self.channel)
        return time.perf_counter()


class Chunks:
    """What an app returns. Raises the exception in the moment in which somebody wants to close it."""

    def __init__(self, channel: Connection, ends: bool) -> None:
        self.closed = 0
        self._channel = channel
        self._ends = ends

    def __iter__(self) -> Iterator[bytes]:
        yield b""
        if not self._ends:
            raise ValueError
        yield b"first"
        yield b"last"

    @property
    def close(self) -> Callable[[], None]:
        interrupt(self._channel)
        return self._close

    def _close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("ends", [True, False])
def test_response_is_closed(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """Whenever the exception comes, the app's response is closed once, also one that fails; and so is the body of the request."""
    returned: list[Chunks] = []
    outcomes: list[list[int]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        returned.append(Chunks(channel, ends))
        return returned[-1]

    reached = True
    while reached:
        clock = InterruptingClock(len(outcomes) + 1)
        monkeypatch.setattr(task, "time", clock)
        with asked(application) as channel:
            clock.channel = channel
            assert channel.answer() is TurnEnd.DONE
        assert channel.context.spool.size == 0
        reached = clock.left <= 0
        outcomes.append([chunks.closed for chunks in returned])
        returned.clear()
    assert outcomes[0] == [], "it comes before the app is called"
    assert len(outcomes) > 5
    assert outcomes[1:] == [[1]] * (len(outcomes) - 1)


def test_file_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an app has handed over is closed if the exception comes in this moment."""
    files: list[IO[bytes]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        files.append(tempfile.TemporaryFile())  # noqa: SIM115  # whoever serves it closes it
        return environ["wsgi.file_wrapper"](files[-1])

    clock = InterruptingClock(2)
    monkeypatch.setattr(task, "time", clock)
    with asked(application) as clock.channel:
        assert clock.channel.answer() is TurnEnd.DONE
    assert clock.left == 0
    assert [file.closed for file in files] == [True]


def test_nothing_comes_while_we_log() -> None:
    """What the server has to say of a response is said in peace: an exception there could leave a lock of logging behind."""
    said: list[str] = []

    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            interrupt(channel)
            said.append(record.getMessage())

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "50")])
        file = tempfile.TemporaryFile()  # noqa: SIM115  # whoever serves it closes it
        file.write(b"less than that")
        file.seek(0)
        return environ["wsgi.file_wrapper"](file)

    handler = Interrupting()
    logger.addHandler(handler)
    try:
        with asked(application) as channel:
            assert channel.answer() is TurnEnd.DONE
    finally:
        logger.removeHandler(handler)
    assert len(said) == 1
    assert "the file is" in said[0]


def test_asking_for_the_client_takes_no_lock() -> None:
    """A view that asks whether its client is there may be interrupted at that, and holds nothing then that the loop needs."""
    answers: list[bool] = []
    held, asked_for_it = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        holder.start()
        assert held.wait(PATIENCE)
        answers.append(environ["waitress.client_disconnected"]())
        asked_for_it.set()
        holder.join()
        start_response("200 OK", [])
        return []

    def hold() -> None:
        with channel.output_lock:
            held.set()
            assert asked_for_it.wait(PATIENCE), "nobody waits for this lock"

    holder = threading.Thread(target=hold)
    with asked(application) as channel:
        channel.answer()
    assert answers == [False]
    assert channel.check_client_disconnected()
