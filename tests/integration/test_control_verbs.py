"""`flask serve status`, `reload`, `stop`, `scale` and `stacks` as people run them, against a control server that says what it is told to.

What a supervisor makes of them is tested in tests/lifecycle.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import ends_here
from controlled import Controlled, Respond, controlled
from flask_prodserve.cli.status import span
from flask_prodserve.process import control
from serving import PATIENCE, environment, flask, run, wait_until

STATUS: dict[str, Any] = {
    "pid": 4711,
    "version": "0.1.0",
    "app": "hello",
    "state": "reloading",
    "uptime_seconds": 11525.5,
    "listen": ["http://127.0.0.1:8000", "unix:/run/app.sock"],
    "wanted": 2,
    "generation": 2,
    "workers": [
        {
            "number": 1,
            "pid": 4712,
            "generation": 1,
            "state": "draining",
            "uptime_seconds": 11525.0,
            "served": 1234567,
            "connections": 12,
            "busy": 3,
            "queued": 1,
            "stuck": 2,
            "memory_bytes": 50651136,
        },
        {
            "number": 12,
            "pid": 4801,
            "generation": 2,
            "state": "ready",
            "uptime_seconds": 4.2,
            "served": 0,
            "connections": 0,
            "busy": 0,
            "queued": 0,
            "stuck": 0,
            "memory_bytes": 0,
        },
    ],
}
TABLE = """\
hello on flask-prodserve 0.1.0, pid 4711
http://127.0.0.1:8000
unix:/run/app.sock
reloading for 3h 12m, generation 2, 1 of 2 workers ready

worker   pid  generation  state         up     served  connections  busy  queued  stuck  memory
     1  4712           1  draining  3h 12m  1,234,567           12     3       1      2   48MiB
    12  4801           2  ready         4s          0            0     0       0      0       -
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, and with an app that nobody may load."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "hello.py").write_text("raise RuntimeError('the app was loaded')\n")
        yield folder


def variables(folder: Path) -> dict[str, str]:
    """What the automatic place depends on."""
    return {"XDG_RUNTIME_DIR": "", "RUNTIME_DIRECTORY": "", "TMPDIR": str(folder)}


def ends(folder: Path, *arguments: str, app: str = "hello", **more: str) -> tuple[int, str]:
    """Run ``flask --app hello serve`` with *arguments*, and return its exit code and output."""
    code, output, errors = ends_here(folder, "--app", app, "serve", *arguments, **{**variables(folder), **more})
    assert "the app was loaded" not in output + errors
    assert "Traceback" not in output + errors
    return code, output + errors


@contextlib.contextmanager
def server(
    folder: Path, serve: Callable[[control.Request, Respond], object] = lambda request, respond: None, pid: int = 1
) -> Iterator[Controlled]:
    path = control.automatic_path("hello", str(folder), pid, variables(folder))
    assert path is not None
    with controlled(Path(path), serve) as running:
        yield running


def says(answer: dict[str, Any]) -> Callable[[control.Request, Respond], object]:
    return lambda request, respond: respond(answer)


def test_status(folder: Path) -> None:
    """The status is a table in human units, or everything as JSON."""
    with server(folder, says(STATUS)) as running:
        assert ends(folder, "status") == (0, TABLE)
        code, output = ends(folder, "status", "--json")
        assert code == 0
        assert json.loads(output) == STATUS
        assert running.requests == [control.Status()] * 2


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b1m"


def test_text_of_workers_gives_the_terminal_no_commands(folder: Path) -> None:
    """What comes from an app is shown with its control characters escaped: in the status, in stacks and in errors."""
    escaped = r"\x1b]0;owned\x07\x1b[2J\u202e\x9b1m"
    with server(folder, says({**STATUS, "app": HOSTILE, "listen": [f"unix:/{HOSTILE}"]})):
        code, output = ends(folder, "status")
        assert (code, output.count(escaped), HOSTILE in output) == (0, 2, False)
    with server(folder, says({"workers": [{"number": 1, "pid": 2, "stacks": f"a:\n  {HOSTILE}\n"}]})):
        assert ends(folder, "stacks") == (0, f"worker 1 (pid 2)\n\na:\n  {escaped}\n")
    with server(folder, says({"error": f"first\n{HOSTILE}"})):
        code, output = ends(folder, "reload")
        assert code != 0
        assert f"first\n{escaped}" in output


def test_status_of_a_server_that_begins(folder: Path) -> None:
    """Before the first worker has loaded the app there is no table and no name."""
    beginning = {**STATUS, "app": None, "state": "serving", "listen": [], "wanted": 1, "generation": 0, "workers": []}
    with server(folder, says(beginning)):
        assert ends(folder, "status") == (
            0,
            "The app on flask-prodserve 0.1.0, pid 4711\nserving for 3h 12m, generation 0, 0 of 1 worker ready\n",
        )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (3599, "59m 59s"),
        (3600, "1h 0m"),
        (86399, "23h 59m"),
        (100 * 86400 + 7200, "100d 2h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """A time is told in its two largest units, cut off and not rounded."""
    assert span(seconds) == text


def test_colours(folder: Path) -> None:
    """On a terminal the table is coloured and still aligned, unless NO_COLOR says no."""

    def on_terminal(**more: str) -> str:
        ours, theirs = pty.openpty()
        with server(folder, says(STATUS)):
            done = subprocess.run(
                flask("--app", "hello", "serve", "status"),
                cwd=folder,
                env=environment(**variables(folder), **more),
                stdout=theirs,
                timeout=PATIENCE,
                check=True,
            )
        assert done.returncode == 0
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # EIO is the end
            while chunk := terminal.read(65536):
                output += chunk
        return output.decode().replace("\r\n", "\n")

    coloured = on_terminal()
    assert "\033[32mready   \033[0m" in coloured
    assert "\033[33mdraining\033[0m" in coloured
    assert "\033[31m    2\033[0m" in coloured
    assert on_terminal(NO_COLOR="1") == TABLE


def test_reload(folder: Path) -> None:
    """It waits until the new code serves."""
    waiting: list[Respond] = []
    with (
        server(folder, lambda request, respond: waiting.append(respond)) as running,
        run(flask("--app", "hello", "serve", "reload"), cwd=folder, env=variables(folder)) as command,
    ):
        wait_until(lambda: waiting)
        assert command.process.poll() is None
        assert command.output == ""
        running.in_loop(lambda: waiting[0]({"ok": True, "generation": 2}))
        assert command.exit_code() == 0
        assert command.output == "Reloaded: generation 2 serves.\n"
        assert running.requests == [control.Reload()]


def test_reload_that_fails(folder: Path) -> None:
    """Why the new code does not serve is the error message, and the exit code is 1."""
    with server(folder, says({"error": "SyntaxError: invalid syntax"})):
        assert ends(folder, "reload") == (
            1,
            "Error: Reload failed: SyntaxError: invalid syntax\nThe previous workers keep serving.\n",
        )


def test_reload_without_waiting(folder: Path) -> None:
    """--no-wait asks and leaves."""
    with server(folder) as running:
        assert ends(folder, "reload", "--no-wait") == (0, "Reloading.\n")
        wait_until(lambda: running.requests == [control.Reload()])


@pytest.mark.parametrize("now", [False, True])
def test_stop(folder: Path, now: bool) -> None:
    """It tells what is still running, once a change, and ends when the server is gone."""
    looks = 0

    def serve(request: control.Request, respond: Respond) -> None:
        nonlocal looks
        if isinstance(request, control.Status):
            looks += 1
            respond({**STATUS, "workers": STATUS["workers"][:1] if looks > 2 else STATUS["workers"]})
        else:
            respond({"stopping": True})

    with (
        server(folder, serve) as running,
        run(
            flask("--app", "hello", "serve", "stop", *(["--now"] if now else [])), cwd=folder, env=variables(folder)
        ) as command,
    ):
        command.wait_for("in 1 worker")
        assert command.process.poll() is None
        running.close()
        assert command.exit_code() == 0
        assert command.output.splitlines() == [
            "Stopping: 4 requests in 2 workers to finish",
            "Stopping: 4 requests in 1 worker to finish",
            "Stopped.",
        ]
        assert running.requests[0] == control.Stop(now)


@pytest.mark.parametrize(
    ("argument", "request_", "workers"),
    [
        ("4", control.Scale(4), "4 workers"),
        ("+1", control.Scale(change=1), "3 workers"),
        ("-1", control.Scale(change=-1), "1 worker"),
    ],
)
def test_scale(folder: Path, argument: str, request_: control.Request, workers: str) -> None:
    """A number is how many there are to be; with a sign it is how many more or fewer."""
    with server(folder, says({"workers": int(workers[0])})) as running:
        assert ends(folder, "scale", argument) == (0, f"Set to {workers}.\n")
        assert running.requests == [request_]


@pytest.mark.parametrize("argument", ["", "x", "1.5", "--1", "+", "-x", "1000000000"])
def test_scale_to_what_is_no_number(folder: Path, argument: str) -> None:
    """What is no number of workers is refused without asking the server."""
    with server(folder) as running:
        code, output = ends(folder, "scale", argument)
        assert code == 2
        assert "use a number of workers such as 4, or a change such as +1 or -1" in output
        assert running.requests == []


def test_stacks(folder: Path) -> None:
    """Every worker's stacks stand below its name."""
    told = {
        "workers": [
            {"number": 1, "pid": 4712, "stacks": "prodserve-1:\n  File x"},
            {"number": 2, "pid": 4713, "stacks": "(no answer)"},
        ]
    }
    with server(folder, says(told)):
        assert ends(folder, "stacks") == (
            0,
            "worker 1 (pid 4712)\n\nprodserve-1:\n  File x\n\nworker 2 (pid 4713)\n\n(no answer)\n",
        )


VERBS = [["status"], ["reload"], ["reload", "--no-wait"], ["stop"], ["scale", "2"], ["stacks"]]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_server(folder: Path, verb: list[str]) -> None:
    """Without a server every verb says so and how one would be found, and ends with 1."""
    code, output = ends(folder, *verb, app=f"{folder.name}_that_nobody_serves")  # others may serve a 'hello' meanwhile
    assert code == 1
    assert output.startswith("Error: No server of this app seems to be running.")
    assert "--control-socket PATH (CONTROL_SOCKET)" in output


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "--no-wait" not in verb], ids=" ".join)
def test_errors_of_the_server(folder: Path, verb: list[str]) -> None:
    """What the server refuses is an error message with exit code 1; one that goes away is told, too."""
    with server(folder, says({"error": "At least one worker has to stay."})):
        code, output = ends(folder, *verb)
        assert code == 1
        assert output.startswith("Error: ")
        assert "At least one worker has to stay." in output
    with server(folder, lambda request, respond: running.server.close()) as running:
        running.closed = True
        code, output = ends(folder, *verb)
        assert code == 1
        assert "closed the connection before it answered" in output


def test_several_servers(folder: Path) -> None:
    """Of several servers one has to be chosen, with --control-socket or the environment."""
    with server(folder, says(STATUS)), server(folder, says({**STATUS, "pid": 5000}), pid=2) as second:
        code, output = ends(folder, "status")
        assert code == 1
        assert output.startswith("Error: 2 servers of this app are running:\n  - pid 1: app hello, ")
        assert f", socket {second.path}\n" in output
        assert "pid 5000" in ends(folder, "--control-socket", second.path, "status")[1]
        assert "pid 5000" in ends(folder, "status", PRODSERVE_CONTROL_SOCKET=second.path)[1]


def test_settings_of_which_the_app_has_the_rest(folder: Path) -> None:
    """A verb finds the server although settings in the environment are complete only with those of the app, which it does not load."""
    code, output = ends(folder, "status", PRODSERVE_TLS_CERT="cert.pem")
    assert code == 1
    assert "No server of this app" in output
    with server(folder, says(STATUS)):
        assert ends(folder, "status", PRODSERVE_TLS_CERT="cert.pem")[0] == 0


def test_mistakes_in_settings(folder: Path) -> None:
    """A setting that is off or wrong is told as everywhere."""
    assert ends(folder, "--control-socket", "off", "status")[0] == 1
    code, output = ends(folder, "status", PRODSERVE_CONTROL_SOKET="auto")
    assert code == 2
    assert "Did you mean PRODSERVE_CONTROL_SOCKET?" in output
