"""A program: several processes that run engines on one listener, with nothing of a supervisor. ``python forked.py COUNT``.

It writes the address when all of them serve, and obeys lines on standard input: ``stop N`` ends process N, ``start N`` starts it again,
``freeze N`` has the system hold it. Each is answered with the same line when it is done. All end with the input.

The app says by which process it is run.
"""

from __future__ import annotations

import os
import signal
import sys

from flask import Flask

from flask_prodserve.apps.main_app import MainApp
from flask_prodserve.extension import resolve_for
from flask_prodserve.net.listeners import Listener, open_listeners
from flask_prodserve.net.loads import Loads
from flask_prodserve.service import engine_for
from flask_prodserve.settings import Settings, arguments


class Processes:
    def __init__(self, count: int, settings: Settings) -> None:
        self._settings = settings
        self._listeners = open_listeners(settings.bind.addresses, backlog=512, unix_socket_mode=0o600)
        self._loads = Loads.create(count)
        self._running: dict[int, int] = {}
        for number in range(count):
            self.start(number)
        print(*self._listeners[0].socket.getsockname()[:2], flush=True)

    def start(self, number: int) -> None:
        serving, told = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                _serve(number, self._settings, self._listeners, Loads(self._loads, number), told)
            finally:
                os._exit(0)
        os.close(told)
        os.read(serving, 1)
        os.close(serving)
        self._running[number] = pid

    def stop(self, number: int) -> None:
        self._end(number, signal.SIGTERM)
        Loads.clear(self._loads, number)

    def freeze(self, number: int) -> None:
        os.kill(self._running[number], signal.SIGSTOP)

    def end(self) -> None:
        for number in list(self._running):
            self._end(number, signal.SIGKILL)
        for listener in self._listeners:
            listener.close()

    def _end(self, number: int, how: int) -> None:
        pid = self._running.pop(number)
        os.kill(pid, how)
        os.waitpid(pid, 0)


def _serve(number: int, settings: Settings, listeners: list[Listener], loads: Loads, told: int) -> None:
    app = Flask("processes")
    app.add_url_rule("/", view_func=lambda: str(number))
    engine = engine_for(MainApp.of(app), settings, listeners, loads=loads)
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    engine.start()
    os.write(told, b"!")
    engine.run()


if __name__ == "__main__":
    processes = Processes(int(sys.argv[1]), resolve_for(Flask("none"), [arguments({"port": 0}, "processes")]).settings)
    for line in sys.stdin:
        verb, number = line.split()
        {"start": processes.start, "stop": processes.stop, "freeze": processes.freeze}[verb](int(number))
        print(line, end="", flush=True)
    processes.end()
