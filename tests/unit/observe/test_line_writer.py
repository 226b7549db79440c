from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from flask_prodserve.observe.line_writer import ACCESS_BYTES, PIECE_BYTES, QUEUE_BYTES, LineWriter
from serving import PATIENCE, wait_until

LINE = b"x" * 1023 + b"\n"


class Destination:
    """Keeps what is written, in so many calls; takes nothing while it is blocked."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.free = threading.Event()
        self.waits = threading.Event()

    def write(self, data: bytes) -> int:
        self.waits.set()
        assert self.free.wait(PATIENCE)
        self.written.append(data)
        return len(data)

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.written).splitlines()


@contextlib.contextmanager
def blocked() -> Iterator[tuple[Destination, LineWriter]]:
    """A writer whose thread is inside a write that does not return."""
    destination = Destination()
    writer = LineWriter(destination.write, "the test's log")
    writer.put(b"first\n")
    assert destination.waits.wait(PATIENCE)
    try:
        yield destination, writer
    finally:
        destination.free.set()
        wait_until(lambda: writer.pause(PATIENCE))


def dropped(messages: list[str]) -> int:
    found = [
        re.fullmatch(r"dropped (\d+) log lines?: the test's log was (too slow|blocked for \d+s)", it) for it in messages
    ]
    return sum(int(match[1]) for match in found if match)


def test_lines_that_do_not_fit_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """While nothing is written, put() returns, the oldest lines are kept in order, and one message counts the others when it is over."""
    count = 2 * QUEUE_BYTES // len(LINE)
    with blocked() as (destination, writer):
        for number in range(count):
            writer.put(b"%05d" % number + LINE)
        assert caplog.messages == []
        destination.free.set()
        wait_until(lambda: caplog.messages, "the message")
        writer.put(b"last\n")
        assert writer.flush(PATIENCE)
    first, *kept, last = destination.lines
    assert (first, last) == (b"first", b"last")
    assert [int(line[:5]) for line in kept] == list(range(len(kept)))
    assert 0 < dropped(caplog.messages) == count - len(kept)
    assert QUEUE_BYTES - 2 * len(LINE) < sum(map(len, kept)) <= QUEUE_BYTES


def test_messages_have_room_that_access_lines_do_not_get() -> None:
    """When access lines have filled their part of the queue, a message is still kept."""
    with blocked() as (destination, writer):
        for _ in range(2 * QUEUE_BYTES // len(LINE)):
            writer.put(LINE, ACCESS_BYTES)
        writer.put(b"message\n")
    assert destination.lines[-1] == b"message"
    assert len(b"\n".join(destination.lines)) <= ACCESS_BYTES + len(b"first\nmessage\n")


def test_flush_does_not_wait_twice_for_the_same_write() -> None:
    """A flush ends at its time, and the next one does not wait for a write that one has waited for."""
    with blocked() as (destination, writer):
        assert not writer.flush(0.05)
        assert not writer.flush(3600)
        assert not writer.pause(3600)
        destination.free.set()
        wait_until(lambda: writer.flush(PATIENCE))
    assert destination.lines == [b"first"]


def test_calls_keep_their_place() -> None:
    """A function is called after the lines before it were written, and before those after it."""
    with blocked() as (destination, writer):
        writer.put(b"before\n")
        writer.call(lambda: destination.written.append(b"called\n"))
        writer.put(b"after\n")
    assert destination.lines == [b"first", b"before", b"called", b"after"]


def test_a_call_that_fails_stops_nothing() -> None:
    """Lines are written after a function that has raised an exception."""
    with blocked() as (destination, writer):
        writer.call(lambda: 1 / 0)
        writer.put(b"after\n")
    assert destination.lines == [b"first", b"after"]


def test_lines_of_many_threads() -> None:
    """The lines of each thread are all there, in its order, whenever the writer's thread ends and starts again."""
    destination = Destination()
    destination.free.set()
    writer = LineWriter(destination.write, "the test's log")

    def work(number: int) -> None:
        for index in range(300):
            writer.put(b"%d %d\n" % (number, index))
            if index % 50 == 0:
                writer.pause(PATIENCE)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(PATIENCE)
    pairs = [tuple(map(int, line.split())) for line in destination.lines]
    for number in range(4):
        assert [index for owner, index in pairs if owner == number] == list(range(300))
    assert max(map(len, destination.written)) <= PIECE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much room a pipe has")

# Processes.


def output(script: str, code: int = 0) -> str:
    """What a Python program with *script* writes to standard output and standard error, which are one pipe that is read at its end."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARED + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


PREPARED = """
import atexit, logging, os, sys, time
from flask_prodserve.observe import line_writer
from flask_prodserve.observe.access_log import open_access_log
from flask_prodserve.observe.events import RequestDone
from flask_prodserve.observe.logging import configure
from flask_prodserve.observe.standard_streams import queue_streams

queue_streams()
configure("info", explicit=True)
logger = logging.getLogger("flask_prodserve")
access = open_access_log("stdout", "combined")

def log(target):
    access.log(RequestDone(0.0, "203.0.113.9", "GET", target, "HTTP/1.1", 200, 0, "", "", "", 0.0, 0.0))
"""


def test_standard_streams_that_are_one_file_keep_their_order() -> None:
    """Access lines, messages and what the app prints to either stream are in one order if both streams are the same pipe."""
    lines = output(
        "for number in range(100):\n"
        "    log(f'/<{number}.0>'); logger.info(f'<{number}.1>'); print(f'<{number}.2>'); print(f'<{number}.3>', file=sys.stderr)\n"
    )
    assert re.findall(r"<(\d+\.\d)>", lines) == [f"{number}.{part}" for number in range(100) for part in range(4)]


def test_nothing_is_lost_at_the_end() -> None:
    """All that was logged is written when the interpreter ends, also by functions that run then, and after an exception."""
    text = output(
        "atexit.register(lambda: (log('/end'), print('printed'), logger.info('logged')))\n"
        "log('/begin')\nraise SystemExit(3)\n",
        code=3,
    )
    assert [part in text for part in ("/begin", "/end", "printed", "logged")] == [True] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_write_their_own_lines_once() -> None:
    """A child that ends with os._exit() writes its own lines, and none that its parent has in the queue."""
    text = output(
        "for number in range(20):\n"
        "    log(f'/<parent {number}>'); print(f'<printed {number}>')\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        log(f'/<child {number}>'); print(f'<child printed {number}>'); logger.info(f'<child logged {number}>')\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    ).replace("\\x20", " ")
    kinds = ("parent", "printed", "child", "child printed", "child logged")
    assert sorted(re.findall("<([a-z ]+ [0-9]+)>", text)) == sorted(
        f"{kind} {number}" for kind in kinds for number in range(20)
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_has_paused_has_one_thread() -> None:
    """After pause() all is written and there is no thread, so that a fork copies a process with one thread; then it goes on."""
    text = output(
        "import threading\n"
        "log('/before')\n"
        f"line_writer.pause({PATIENCE})\n"
        "assert threading.active_count() == 1\n"
        "log('/after')\n"
        f"assert line_writer.flush({PATIENCE})\n"
        "os._exit(0)\n"
    )
    assert re.findall("/(before|after)", text) == ["before", "after"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs exec in the same process")
def test_exec_loses_nothing() -> None:
    """What was logged before flush() is written, in front of what the next program writes."""
    text = output(
        "for number in range(100): log(f'/<{number}>')\n"
        f"line_writer.flush({PATIENCE})\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'print(\"<next>\")'])\n"
    )
    assert re.findall("<([a-z0-9]+)>", text) == [*map(str, range(100)), "next"]


def test_a_process_ends_though_nobody_reads() -> None:
    """With a full pipe that nobody reads a process logs, prints and ends with its own exit code."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, LINE)
    os.set_blocking(writer, True)
    script = "for number in range(5000): log('/' + 1000 * 'x'); print(1000 * 'x'); logger.error(1000 * 'x')\nraise SystemExit(3)"
    done = subprocess.run([sys.executable, "-c", PREPARED + script], stdout=writer, stderr=writer, timeout=PATIENCE)
    assert done.returncode == 3
    os.close(reader)
    os.close(writer)


def test_streams_are_what_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard streams that queue have the descriptor, the encoding and the buffer that programs expect, and a child program gets them."""
    lines = output(
        "import faulthandler, subprocess\n"
        "assert (sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.isatty()) == (1, 2, False)\n"
        "faulthandler.enable()\n"
        "sys.stdout.buffer.write('ä\\n'.encode()); sys.stdout.write('ö'); sys.stdout.flush(); print()\n"
        "sys.stderr.reconfigure(errors='replace')\n"
        f"line_writer.flush({PATIENCE})\n"
        "subprocess.run(['echo', 'child'], stdout=sys.stdout, check=True)\n"
    ).splitlines()
    assert lines == ["ä", "ö", "child"]
