"""Processes that the app forks from one that serves: they have nothing of the server, and do nothing in its place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Command, defaults, flask, run, wait_until
from wire import Wire

pytestmark = [
    pytest.mark.usefixtures("way"),
    pytest.mark.every_way,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at descriptors through Linux's /proc"),
]

WITHOUT_EPOLL = "import select\nvars(select).pop('epoll', None)\n"

APP = """
import concurrent.futures, multiprocessing, os, pty, signal, subprocess, sys, threading, time
from flask import Flask
from flask_prodserve import ProdServe

app = Flask(__name__)
prodserve = ProdServe(app)
fork = multiprocessing.get_context("fork")


def opened():
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink("/proc/self/fd/" + number))
        except OSError:  # that of the listing
            pass
    return names


def of_server(name):
    return name.startswith(("socket:", "anon_inode:", "/memfd:")) and name not in at_import


def look(pipe):
    pipe.send([name for name in opened() if of_server(name)])


def stay():
    time.sleep(1000)


at_import = opened()


@app.get("/")
def index():
    return "hello"


@app.get("/descriptors")
def descriptors():
    assert any(map(of_server, opened()))
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=look, args=(theirs,))
    process.start()
    found = ours.recv()
    process.join()
    return repr(found)


@app.get("/terminate")
def terminate():
    process = fork.Process(target=stay, daemon=True)
    process.start()
    process.terminate()
    process.join()
    return str(process.exitcode)


@app.get("/handlers")
def handlers():
    names = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGCHLD")

    def tell(pipe):
        found = [signal.getsignal(getattr(signal, name)) for name in names]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        pipe.send((found == EXPECTED, found, blocked, signal.set_wakeup_fd(-1)))

    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=tell, args=(theirs,))
    process.start()
    answer = ours.recv()
    process.join()
    return repr(answer)


EXPECTED = [signal.SIG_DFL, signal.default_int_handler, *[signal.SIG_DFL] * 4]


def ended(pid):
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@app.get("/through/<how>")
def through(how):
    pid = os.fork() if how != "terminal" else pty.fork()[0]
    if pid:
        return ended(pid)
    if how == "raise":
        raise RuntimeError("in the child")
    if how == "exit":
        sys.exit(7)
    return "from the child"


@app.get("/stream")
def stream():
    def chunks():
        yield "first "
        pid = os.fork()
        if pid:
            yield ended(pid)
        else:
            yield "from the child"
    return chunks()


@app.get("/stay")
def forked():
    pid = os.fork()
    if not pid:
        stay()
    return str(pid)


@app.get("/executor")
def executor():
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
        return str(sum(pool.map(abs, range(-10, 0))))


@app.get("/program")
def program():
    return subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout
"""


@pytest.fixture(params=["worker", "one process"])
def server(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Command]:
    (tmp_path / "app.py").write_text((WITHOUT_EPOLL if way == "portable" else "") + APP)
    workers = "1" if request.param == "worker" else "0"
    with run(
        flask("serve", "--workers", workers, "--port", "0", "--access-log", "off", *defaults()), cwd=tmp_path
    ) as command:
        yield command


def ask(wire: Wire, path: str) -> str:
    wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return wire.response().body.decode()


@contextlib.contextmanager
def ending(pid: int) -> Iterator[None]:
    """Kill the process *pid* in the end."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_descriptors(server: Command) -> None:
    """A child has no socket, epoll, timer or shared memory of the server."""
    with Wire(server.address) as other, Wire(server.address) as wire:
        assert ask(other, "/") == "hello"
        assert ask(wire, "/descriptors") == "[]"
        assert ask(other, "/") == ask(wire, "/") == "hello"


def test_programs(server: Command) -> None:
    """A program that is started with close_fds=False inherits no socket of the server."""
    with Wire(server.address) as wire:
        assert "socket:" not in ask(wire, "/program")


def test_signals(server: Command) -> None:
    """A child handles signals as any Python process does, and Process.terminate() ends it."""
    with Wire(server.address) as wire:
        assert ask(wire, "/terminate") == str(-signal.SIGTERM)
        assert ask(wire, "/handlers").startswith("(True, "), ask(wire, "/handlers")
        assert ask(wire, "/handlers").endswith(", set(), -1)")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/through/return", "0"),
        ("/through/terminal", "0"),
        ("/through/raise", "0"),  # for Flask has answered it
        ("/through/exit", "7"),
        ("/stream", "first 0"),
        ("/executor", "55"),
    ],
)
def test_child_that_comes_back(server: Command, path: str, answer: str) -> None:
    """A child that returns from the view, or raises, ends; the client gets one response, the parent's, and goes on."""
    with Wire(server.address) as wire:
        assert ask(wire, path) == answer
        assert ask(wire, "/") == "hello"
        assert ask(wire, path) == answer
    if path == "/through/raise":
        wait_until(lambda: server.output.count("RuntimeError: in the child") == 2, "the tracebacks of the children")
    assert server.output.count("Exception on") == (2 if path == "/through/raise" else 0)  # Flask's, in the children


def test_stop(server: Command) -> None:
    """While a child lives on, the server stops, its clients' connections are closed, and its port is free."""
    address = server.address
    assert isinstance(address, tuple)
    with Wire(address) as other, Wire(address) as wire:
        assert ask(other, "/") == "hello"
        pid = int(ask(wire, "/stay"))
        with ending(pid):
            server.signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
            os.kill(pid, 0)
            assert other.closed()
            assert wire.closed()
            with socket.create_server(address):
                pass
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{pid}/fd").exists() or not _descriptors(pid), "the child to end")


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []


def test_end_of_a_child_disturbs_nobody(server: Command) -> None:
    """When a child ends, the connections that were open when it was forked go on."""
    with Wire(server.address) as other, Wire(server.address) as wire:
        assert ask(other, "/") == "hello"
        pid = int(ask(wire, "/stay"))
        with ending(pid):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not _descriptors(pid), "the child to end")
            assert ask(other, "/") == ask(wire, "/") == "hello"
