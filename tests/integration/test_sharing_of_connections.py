"""Connections of several processes that listen together: who takes which, when some have more to do than others, and when one is gone."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import PATIENCE, environment
from wire import Wire

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the balance needs epoll")

PROCESSES = 4
CLIENTS = 64
TESTS = Path(__file__).parents[1]


class Processes:
    """The program ``processes``, and its clients."""

    def __init__(self, program: subprocess.Popen[str], stack: contextlib.ExitStack) -> None:
        self._program = program
        self._stack = stack
        host, port = self._line().split()
        self._address = host, int(port)
        self.clients: list[tuple[Wire, int]] = []
        """Each with the number of the process that has its connection."""

    def _line(self) -> str:
        assert self._program.stdout is not None
        readable, _, _ = select.select([self._program.stdout], [], [], PATIENCE)
        assert readable, "no answer"
        return self._program.stdout.readline()

    def obey(self, command: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(f"{command}\n")
        self._program.stdin.flush()
        assert self._line() == f"{command}\n"

    def connect(self, clients: int) -> None:
        """All at once; then ask who is there."""
        wires = [self._stack.enter_context(Wire(self._address)) for _ in range(clients)]
        for wire in wires:
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        self.clients += [(wire, int(wire.response().body)) for wire in wires]

    def disconnect(self, number: int) -> int:
        """Those that process *number* has. Returns how many these are."""
        theirs = [wire for wire, process in self.clients if process == number]
        self.clients = [(wire, process) for wire, process in self.clients if process != number]
        for wire in theirs:
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.closed()  # from now on they are not counted
        return len(theirs)

    def assert_even(self) -> None:
        """Each process has its share, give or take 20 %."""
        share = len(self.clients) / PROCESSES
        counts = Counter(process for _, process in self.clients)
        assert all(abs(counts[number] - share) <= share / 5 for number in range(PROCESSES)), counts


@pytest.fixture
def processes() -> Iterator[Processes]:
    with (
        contextlib.ExitStack() as stack,
        subprocess.Popen(
            [sys.executable, str(TESTS / "forked.py"), str(PROCESSES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=str(TESTS.parent)),
        ) as program,
    ):
        yield Processes(program, stack)
        assert program.stdin is not None
        program.stdin.close()
        assert program.wait(PATIENCE) == 0


def test_a_crowd_is_shared(processes: Processes) -> None:
    """Of clients that come all at once, every process gets as many."""
    processes.connect(CLIENTS)
    processes.assert_even()


def test_single_clients_are_shared(processes: Processes) -> None:
    """Of clients that come one after another, every process gets as many, and none of them waits until something is looked at again."""
    for _ in range(CLIENTS):
        processes.connect(1)
    processes.assert_even()


def test_a_new_process_gets_its_share(processes: Processes) -> None:
    """After one process has been replaced, most clients that it had come to the new one; with a crowd on top, all have as many."""
    processes.connect(CLIENTS)
    processes.obey("stop 0")
    lost = sum(process == 0 for _, process in processes.clients)
    processes.clients = [client for client in processes.clients if client[1] != 0]
    processes.obey("start 0")
    before = len(processes.clients)
    processes.connect(lost)
    assert [process for _, process in processes.clients[before:]].count(
        0
    ) > lost / 2  # others take one until they have seen it
    processes.connect(CLIENTS)
    processes.assert_even()


def test_clients_of_a_process_that_has_ended(processes: Processes) -> None:
    """Nothing is left to a process that is not there any more."""
    processes.connect(CLIENTS)
    processes.obey("stop 0")
    before = len(processes.clients)
    processes.connect(CLIENTS)
    assert {process for _, process in processes.clients[before:]} == {1, 2, 3}


def test_a_process_that_does_not_come_round(processes: Processes) -> None:
    """What is left to a process that has few connections, and does not take them, is taken by others after a while."""
    processes.connect(CLIENTS)
    processes.disconnect(0)
    processes.obey("freeze 0")
    for _ in range(5):
        processes.connect(1)
    assert {process for _, process in processes.clients[-5:]} <= {1, 2, 3}
