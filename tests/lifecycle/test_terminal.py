"""A server that is started from a real terminal, which is closed; and SIGHUP by hand."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from server import children, deploy, is_alive, kill, supervised

from programs import program
from serving import PATIENCE, environment, flask, wait_until
from wire import Wire, get

pytestmark = supervised

MODELS = [("--workers", "0"), ("--workers", "2"), ("--preload",)]
SUPERVISED = MODELS[1:]


class Screen:
    """The other side of a terminal. It takes all output: a terminal that nobody reads blocks whoever writes."""

    def __init__(self, master: int) -> None:
        self.text = b""
        self._master = master
        self._closing, self._close = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def type(self, line: str) -> None:
        os.write(self._master, f"{line}\n".encode())

    def close(self) -> None:
        """Close the terminal."""
        if self._thread.is_alive():
            os.write(self._close, b"x")
            self._thread.join(PATIENCE)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: no process has it open, as under nohup
            while self._closing not in select.select([self._master, self._closing], [], [])[0]:
                self.text += os.read(self._master, 65536)
        select.select([self._closing], [], [])
        os.close(self._master)


@dataclass
class OnTerminal:
    """A server on a terminal. *process* is the session's leader: the server itself, or a shell."""

    process: subprocess.Popen[bytes]
    screen: Screen
    folder: Path

    @property
    def address(self) -> str:
        return str(self.folder / "socket")

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return get(self.address, "/echo/1").status == 200
        return False

    def version(self) -> str:
        return get(self.address, "/echo/1").body.decode().split()[2]

    def workers(self) -> set[int]:
        return children(self.pid)


@contextlib.contextmanager
def on_terminal(*options: str, before: tuple[str, ...] = (), shell: str = "") -> Iterator[OnTerminal]:
    """Serve on a terminal of its own, which all output goes to. *before* is a command that runs the server; *shell* one that is typed
    into an interactive shell, where ``{}`` stands for the server's.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        deploy(folder, "1")
        command = [*before, *flask("serve", "--bind", f"unix:{folder}/socket", "--pidfile", f"{folder}/pid", *options)]
        master, slave = pty.openpty()
        leader = [program("bash"), "--norc", "--noprofile", "-i"] if shell else command
        process = subprocess.Popen(
            [program("setsid"), "--ctty", *leader],
            cwd=folder,
            env=environment(PYTHONDONTWRITEBYTECODE="1", HISTFILE=""),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        running = OnTerminal(process, Screen(master), folder)
        if shell:
            running.screen.type(shell.format(" ".join(command)))
        try:
            wait_until(running.answers, "an answer")
            yield running
        except BaseException:
            print(running.screen.text.decode())  # which pytest shows
            raise
        finally:
            running.screen.close()
            with contextlib.suppress(OSError, ValueError):
                for pid in (running.pid, *children(running.pid)):
                    kill(pid)
            kill(process.pid)
            process.wait(PATIENCE)


@pytest.mark.parametrize("options", MODELS, ids=" ".join)
def test_closed_terminal(options: tuple[str, ...]) -> None:
    """A closed terminal stops the server as CTRL+C does: a running request is answered, and the exit code is 0."""
    with on_terminal(*options) as server, Wire(server.address) as wire:
        wire.send(b"POST /slow/1 HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n")
        server.screen.close()
        wire.send(b"x")
        assert wire.response().status == 200
        assert server.process.wait(PATIENCE) == 0
        assert not (server.folder / "pid").exists()
        assert not (server.folder / "socket").exists()


@pytest.mark.parametrize("options", MODELS, ids=" ".join)
@pytest.mark.parametrize("typed", ["{}", "{} &"], ids=["foreground", "background"])
def test_closed_terminal_of_a_shell(options: tuple[str, ...], typed: str) -> None:
    """A job of an interactive shell ends with the terminal of the shell, in the foreground and in the background."""
    with on_terminal(*options, shell=typed) as server:
        pid = server.pid
        server.screen.close()
        wait_until(lambda: not is_alive(pid), "the server to end")
        assert not (server.folder / "socket").exists()


@pytest.mark.parametrize("options", SUPERVISED, ids=" ".join)
def test_sighup_by_hand(options: tuple[str, ...]) -> None:
    """While the terminal is there, SIGHUP reloads."""
    with on_terminal(*options) as server:
        deploy(server.folder, "2")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: server.version() == "2", "the new version")
        server.screen.close()
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("options", SUPERVISED, ids=" ".join)
def test_nohup(options: tuple[str, ...]) -> None:
    """Under nohup the server outlives its terminal, and still reloads, also after an upgrade has replaced the supervisor."""
    with on_terminal(*options, before=(program("nohup"),)) as server:
        first = server.workers()
        deploy(server.folder, "2")
        os.kill(server.pid, signal.SIGUSR2)
        wait_until(lambda: server.workers() and not first & server.workers(), "the upgrade")
        wait_until(lambda: server.version() == "2", "the new version")
        second = server.workers()
        server.screen.close()
        wait_until(lambda: not second & server.workers(), "the reload that the terminal's SIGHUP asks for")
        deploy(server.folder, "3")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: server.version() == "3", "the new version")
        assert server.process.poll() is None


def test_one_process_under_nohup() -> None:
    """One process without a supervisor lives on under nohup as well."""
    with on_terminal("--workers", "0", before=(program("nohup"),)) as server:
        server.screen.close()
        os.kill(server.pid, signal.SIGHUP)
        assert server.answers()
        os.kill(server.pid, signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def test_outliving_the_terminal(tmp_path: Path) -> None:
    """Where no SIGHUP comes with the end of the terminal, one that comes later is not the terminal's."""
    script = """
import os, signal, sys, time
from flask_prodserve.process import terminal

watched = terminal.Terminal(ignores_hangup=False)
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the session's leader always gets it
output = open("said", "w", buffering=1)
watched.check()
output.write(f"{watched.was_closed}\\n")
while not watched.was_closed:
    time.sleep(0.01)
watched.check()
output.write(f"{watched.was_closed}\\n")
terminal.GRACE_SECONDS = 0.0
watched._grace = None
watched.check()
output.write(f"{watched.was_closed}\\n")
"""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [program("setsid"), "--ctty", sys.executable, "-c", script],
        cwd=tmp_path,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    said = tmp_path / "said"
    wait_until(lambda: said.exists() and said.read_text() == "False\n", "the terminal to be watched")
    os.close(master)
    assert process.wait(PATIENCE) == 0
    assert said.read_text() == "False\nTrue\nFalse\n"
