"""The control server in a real loop, with well-behaved clients and others."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlled import Controlled, Respond, controlled
from flask_prodserve.process import control
from flask_prodserve.process.control.requests import decode, encode
from flask_prodserve.process.control.server import LONGEST_LINE, MOST_CONNECTIONS
from serving import PATIENCE, wait_until

SERVER_OF_ANOTHER = """
import os, pathlib, sys
from controlled import controlled
account, path = sys.argv[1:]
os.setuid(int(account))
with controlled(pathlib.Path(path), lambda request, respond: respond({"ok": True})):
    print("serves", flush=True)
    sys.stdin.read()
"""

STATUS = b'{"command": "status"}\n'


class Server:
    """Answers Status at once, Stacks with much, and Reload when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Respond] = []

    def __call__(self, request: control.Request, respond: Respond) -> None:
        match request:
            case control.Reload():
                self.waiting.append(respond)
            case control.Stacks():
                respond({"stacks": "x" * (4 << 20)})
            case _:
                respond({"state": "serving"})


@pytest.fixture
def supervisor() -> Server:
    return Server()


@pytest.fixture
def running(tmp_path: Path, supervisor: Server) -> Iterator[Controlled]:
    with controlled(tmp_path / "control", supervisor) as running:
        yield running


class Client(socket.socket):
    """A raw client. It waits as long as patience lasts."""

    def __init__(self, running: Controlled, sent: bytes = b"") -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connect(running.path)  # without a timeout, which would refuse to wait for room in the backlog
        self.settimeout(PATIENCE)
        self.sendall(sent)

    def line(self) -> dict[str, Any]:
        """The next answer."""
        received = b""
        while not received.endswith(b"\n"):
            chunk = self.recv(1 if len(received) < 1000 else 65536)
            assert chunk, f"it ended after {received!r}"
            received += chunk
        answer: dict[str, Any] = json.loads(received)
        return answer


def ended(client: socket.socket) -> bool:
    """Whether the server closes the connection, without another word."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:  # there was something that it has not read
        return True


def is_served(running: Controlled) -> bool:
    """Whether somebody else is served."""
    return control.ask(running.path, control.Status(), PATIENCE) == {"state": "serving"}


@pytest.mark.parametrize(
    "request_",
    [
        control.Status(),
        control.Reload(),
        control.Stop(),
        control.Stop(now=True),
        control.Scale(3),
        control.Scale(change=-1),
        control.Scale(change=1),
        control.Stacks(),
    ],
    ids=str,
)
def test_requests_are_read_as_they_were_written(request_: control.Request) -> None:
    """Every request survives the way through a line."""
    line = encode(request_)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == request_


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", 'such as {"command": "status"}'),
        (b"GET / HTTP/1.1\r", 'such as {"command": "status"}'),
        (b"\xff\xfe", "such as"),
        (b"[" * 50000, "such as"),
        (b"9" * 60000, "such as"),
        (b"[]", "such as"),
        (b"{}", "such as"),
        (b'{"command": 5}', "such as"),
        (b'{"command": "quit"}', '"quit" is not a command. There are status, reload, stop, scale and stacks.'),
        (b'{"command": "%s"}' % (b"q" * 60000), "There are status"),
        (b'{"command": "status", "now": true}', "status takes nothing else."),
        (b'{"command": "stop", "now": 1}', 'stop takes nothing else but "now" (true or false)'),
        (b'{"command": "stop", "nwo": true}', '"now" (true or false)'),
        (b'{"command": "scale"}', 'scale takes either "workers"'),
        (b'{"command": "scale", "workers": true}', 'scale takes either "workers"'),
        (b'{"command": "scale", "workers": 2.5}', 'scale takes either "workers"'),
        (b'{"command": "scale", "workers": null}', 'scale takes either "workers"'),
        (b'{"command": "scale", "workers": 2, "change": 1}', 'scale takes either "workers"'),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else "",
)
def test_what_is_no_request(running: Controlled, line: bytes, words: str) -> None:
    """The answer says what would be valid, in few words, and the connection goes on."""
    with Client(running, line + b"\n") as client:
        error = client.line()["error"]
        assert words in error
        assert len(error) < 200
        client.sendall(STATUS)
        assert client.line() == {"state": "serving"}
    assert running.requests == [control.Status()]


def test_requests_in_pieces_and_in_a_row(running: Controlled) -> None:
    """Requests may come byte by byte, or several at once; each has its answer, in their order."""
    with Client(running) as client:
        for byte in STATUS:
            client.sendall(bytes([byte]))
        assert client.line() == {"state": "serving"}
        client.sendall(STATUS + b"?\n" + STATUS + b'{"command": "stop"}\n')
        assert ["error" in client.line() for _ in range(4)] == [False, True, False, False]
    assert running.requests == [control.Status()] * 3 + [control.Stop()]


def test_a_client_that_says_no_more_is_answered(running: Controlled, supervisor: Server) -> None:
    """A client that has closed its sending side gets its answers, and then the end."""
    with Client(running, STATUS + encode(control.Reload()) + STATUS) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.line() == {"state": "serving"}
        wait_until(lambda: supervisor.waiting)
        running.in_loop(lambda: supervisor.waiting[0]({"ok": True}))
        assert client.line() == {"ok": True}
        assert client.line() == {"state": "serving"}
        assert ended(client)


def test_answers_that_come_later(running: Controlled, supervisor: Server) -> None:
    """An answer may come when others have been served; only the first counts, and what is asked after it comes after it."""
    with Client(running, encode(control.Reload()) + STATUS) as client:
        wait_until(lambda: supervisor.waiting)
        assert is_served(running)
        [respond] = supervisor.waiting
        running.in_loop(lambda: (respond({"generation": 2}), respond({"generation": 3})))
        assert client.line() == {"generation": 2}
        assert client.line() == {"state": "serving"}
        running.in_loop(lambda: respond({"generation": 4}))
        client.sendall(STATUS)
        assert client.line() == {"state": "serving"}


@pytest.mark.parametrize("how", ["gone", "gone with more to say", "silent"])
def test_answers_for_clients_that_have_gone(running: Controlled, supervisor: Server, how: str) -> None:
    """An answer that nobody waits for any more is dropped with its connection."""
    client = Client(running, encode(control.Reload()) + (STATUS if how == "gone with more to say" else b""))
    wait_until(lambda: supervisor.waiting)
    if how != "silent":
        client.close()
        running.wait_for_connections(0)
    running.in_loop(lambda: supervisor.waiting[0]({"ok": True}))
    client.close()
    assert is_served(running)
    running.wait_for_connections(0)
    running.in_loop(lambda: supervisor.waiting[0]({"ok": True}))


@pytest.mark.parametrize("sent", [b"", b"x", STATUS[:-1], STATUS, STATUS * 100, b"\n" * 5000])
def test_clients_that_leave_early(running: Controlled, sent: bytes) -> None:
    """Clients that leave at any moment leave nothing behind."""
    for _ in range(20):
        Client(running, sent).close()
    assert is_served(running)
    running.wait_for_connections(0)


def test_a_line_that_does_not_end(running: Controlled) -> None:
    """A line beyond 64 KiB costs the connection; the client is told why."""
    with Client(running) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(b"x" * (LONGEST_LINE * 4))
        assert client.line() == {"error": "A request has at most 65536 bytes."}
        assert ended(client)
    assert is_served(running)


def test_a_client_that_asks_and_does_not_read(running: Controlled) -> None:
    """Requests are taken only as fast as their answers are; others are served, and in the end everything is answered."""
    sent = b""
    with Client(running) as client:
        client.setblocking(False)
        quiet = 0
        while quiet < 20:  # until nothing has fitted in for a while
            try:
                sent += STATUS[: client.send(STATUS)]
                quiet = 0
            except BlockingIOError:
                quiet += 1
                assert is_served(running)
        assert len(sent) < 4 << 20
        client.settimeout(PATIENCE)
        count = sent.count(b"\n")
        answered = 0
        while answered < count:
            answered += client.recv(1 << 16).count(b"\n")
        assert answered == count


def test_an_answer_that_nobody_reads(running: Controlled) -> None:
    """A long answer waits for its reader, and nobody else waits for it."""
    with Client(running, encode(control.Stacks())) as client:
        wait_until(lambda: running.requests)
        assert is_served(running)
        assert len(client.line()["stacks"]) == 4 << 20


def test_no_more_connections_than_allowed(running: Controlled, supervisor: Server) -> None:
    """Beyond sixteen the one that has been idle for the longest goes, and one that waits for an answer only if all do."""
    with contextlib.ExitStack() as cleanup:
        waiting = cleanup.enter_context(Client(running, encode(control.Reload())))
        wait_until(lambda: supervisor.waiting)
        idle = []
        for number in range(MOST_CONNECTIONS - 1):
            idle.append(cleanup.enter_context(Client(running, STATUS)))
            idle[-1].line()
            assert running.connections == number + 2
        idle[0].sendall(STATUS)
        idle[0].line()
        assert is_served(running)
        assert ended(idle[1])
        for client in (*idle[2:], idle[0]):
            client.sendall(encode(control.Reload()))
        wait_until(lambda: len(supervisor.waiting) == MOST_CONNECTIONS - 1)
        newcomer = cleanup.enter_context(Client(running, encode(control.Reload())))
        wait_until(lambda: len(supervisor.waiting) == MOST_CONNECTIONS)
        assert is_served(running)
        assert ended(waiting)
        running.in_loop(lambda: [respond({"ok": True}) for respond in supervisor.waiting])
        for client in (*idle[2:], idle[0], newcomer):
            assert client.line() == {"ok": True}


def test_dropped_in_the_turn_in_which_it_is_ready(tmp_path: Path) -> None:
    """A connection that is dropped for another one is not looked at any more, although the selector has found it ready before."""
    selector = selectors.DefaultSelector()
    server = control.ControlServer(control.open_control_socket(str(tmp_path / "c")), selector, Server())
    with contextlib.ExitStack() as cleanup:
        clients = []
        for _ in range(MOST_CONNECTIONS + 1):
            client = cleanup.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(tmp_path / "c"))
            clients.append(client)
        for _ in range(MOST_CONNECTIONS):
            for key, _events in selector.select(0):
                key.data()
        clients[0].sendall(STATUS)
        ready = selector.select(0)
        assert len(ready) == 2
        for key, _events in sorted(ready, key=lambda entry: entry[0].fileobj is not server.listening):
            key.data()
        assert ended(clients[0])
        server.close()
    assert not selector.get_map()
    selector.close()


def test_close(running: Controlled, supervisor: Server) -> None:
    """Closing ends every connection, and what is answered afterwards goes nowhere."""
    with Client(running, encode(control.Reload())) as waiting, Client(running, STATUS) as idle:
        idle.line()
        wait_until(lambda: supervisor.waiting)
        running.close()
        assert ended(waiting)
        assert ended(idle)
        running.in_loop(lambda: supervisor.waiting[0]({"ok": True}))
        assert not Path(running.path).exists()
        assert len(running.selector.get_map()) == 1


def test_abandon(tmp_path: Path) -> None:
    """A child lets go of everything without taking it from the parent's selector, or from its file's place."""
    selector = selectors.DefaultSelector()
    server = control.ControlServer(control.open_control_socket(str(tmp_path / "c")), selector, Server())
    listening = server.listening
    number = listening.fileno()
    server.abandon()
    assert listening.fileno() == -1
    assert list(selector.get_map()) == [number]
    assert (tmp_path / "c").is_socket()
    selector.close()


def test_what_the_supervisor_raises_passes_through(tmp_path: Path) -> None:
    """An exception of the supervisor while it serves a request is not swallowed."""

    class SupervisorError(Exception):
        pass

    def serve(request: control.Request, respond: Respond) -> None:
        server.abandon()
        raise SupervisorError

    selector = selectors.DefaultSelector()
    server = control.ControlServer(control.open_control_socket(str(tmp_path / "c")), selector, serve)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "c"))
        client.sendall(STATUS)
        for _ in range(2):  # it is accepted, and its request received
            [(key, _events)] = selector.select(PATIENCE)
            if key.fileobj is server.listening:
                key.data()
        with pytest.raises(SupervisorError):
            key.data()
    selector.close()


def test_without_descriptors(tmp_path: Path) -> None:
    """Where no file can be opened any more, a client is turned away instead of being found ready for ever."""
    selector = selectors.DefaultSelector()
    server = control.ControlServer(control.open_control_socket(str(tmp_path / "c")), selector, Server())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as cleanup:
        clients = [cleanup.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        cleanup.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            client.connect(str(tmp_path / "c"))
            [(key, _)] = selector.select(0)
            key.data()
            assert client.recv(1) == b""
            assert selector.select(0) == []
    server.close()
    selector.close()


@pytest.mark.skipif(os.geteuid() != 0 or not hasattr(socket, "SO_PEERCRED"), reason="only root can be somebody else")
def test_root_asks_a_server_of_another_account() -> None:
    """A server that does not run as root serves root as well as its own account."""
    nobody = pwd.getpwnam("nobody").pw_uid
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody, -1)
        path = os.path.join(folder, "control")
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER_OF_ANOTHER, str(nobody), path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"serves\n"
            assert os.stat(path).st_uid == nobody
            with socket.socket(socket.AF_UNIX) as client:  # control.ask() does not trust the answers of another account
                client.connect(path)
                client.sendall(STATUS)
                assert json.loads(client.makefile().readline()) == {"ok": True}
            server.communicate()
        assert server.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0 or not hasattr(socket, "SO_PEERCRED"), reason="only root can be somebody else")
def test_somebody_else(running: Controlled, tmp_path: Path) -> None:
    """Another account is not served, even where the permissions of files would let it."""
    os.chmod(running.path, 0o666)
    folder = tmp_path
    while folder != folder.parent:
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    code = (
        "import os, socket, sys\n"
        f"os.setuid({pwd.getpwnam('nobody').pw_uid})\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        "print(client.makefile().read())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, running.path], stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout) == {"error": "Only root and the server's own user may send requests."}
    assert running.requests == []
    assert is_served(running)
