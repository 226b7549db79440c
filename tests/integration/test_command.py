"""`flask serve` as people run it: finding the app, mistakes and their messages, the banner, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from certificates import make
from commands import ends, ends_here
from programs import free_ports
from serving import environment, flask, run, wait_until
from wire import get

APP = "from flask import Flask\napp = Flask(__name__)\n@app.get('/')\ndef index(): return {text!r}\n"
FACTORY = """
from flask import Flask

def create_app(text="x"):
    app = Flask(__name__)
    app.add_url_rule("/", "index", lambda: text)
    return app
"""
WHO = """
from flask import request
from werkzeug.middleware.proxy_fix import ProxyFix

@app.get("/who")
def who():
    return request.remote_addr + str("X-Forwarded-For" in request.headers)

app.wsgi_app = ProxyFix(app.wsgi_app)
"""


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def serves(folder: Path, *arguments: str, **variables: str) -> str:
    """What `/` answers under a command that serves; it is stopped then, and ends with 0."""
    with run(flask(*arguments), cwd=folder, env={"PRODSERVE_PORT": "0", **variables}) as command:
        body = get(command.address).body.decode()
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0, command.output
        return body


@pytest.mark.parametrize(
    ("files", "arguments", "variables", "answer"),
    [
        ({"app__py": APP.format(text="app.py")}, ["serve"], {}, "app.py"),
        ({"wsgi__py": APP.format(text="wsgi.py")}, ["serve"], {}, "wsgi.py"),
        ({"m__py": APP.format(text="m")}, ["--app", "m", "serve"], {}, "m"),
        ({"m__py": APP.format(text="m")}, ["--app", "m:app", "serve"], {}, "m"),
        ({"m__py": APP.format(text="m")}, ["serve"], {"FLASK_APP": "m"}, "m"),
        ({"m__py": FACTORY}, ["--app", "m:create_app('y z')", "serve"], {}, "y z"),
        ({"m__py": FACTORY}, ["--app", "m", "serve"], {}, "x"),
        ({"m__py": APP.format(text="env"), "__env": "FLASK_APP=m\n"}, ["serve"], {}, "env"),
        ({"m__py": APP.format(text="flaskenv"), "__flaskenv": "FLASK_APP=m\n"}, ["serve"], {}, "flaskenv"),
        (
            {"m__py": APP.format(text="file"), "x": "FLASK_APP=m\nPRODSERVE_THREADS=3\n"},
            ["--env-file", "x", "serve"],
            {},
            "file",
        ),
    ],
)
def test_finding_the_app(
    tmp_path: Path, files: dict[str, str], arguments: list[str], variables: dict[str, str], answer: str
) -> None:
    """The app is found as `flask run` finds it."""
    write(tmp_path, **files)
    assert serves(tmp_path, *arguments, **variables) == answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, app__py=APP.format(text="hello"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_that_name", ["ImportError was raised", "No module named 'nothing_of_that_name'"]),
        (
            "raise ValueError('no database')",
            ["Traceback", "raise ValueError('no database')", "ValueError: no database"],
        ),
        ("app = 5", ["Failed to find Flask application"]),
        ("def (", ["SyntaxError"]),
    ],
)
def test_app_that_does_not_load(tmp_path: Path, text: str, words: list[str]) -> None:
    """What is wrong with the app is shown, without a frame of this package, and the exit code is 4."""
    write(tmp_path, app__py=text)
    code, output, errors = ends_here(tmp_path, "serve", "--workers", "0", "--port", "0")
    assert (code, output) == (4, "")
    assert all(word in errors for word in words), errors
    assert "flask_prodserve" not in errors


def test_missing_app(tmp_path: Path) -> None:
    """No app is two clear lines and exit code 4."""
    code, output, errors = ends(tmp_path, "--app", "nope", "serve")
    assert (code, output) == (4, "")
    assert errors.splitlines() == [
        "Error: The app could not be loaded: Could not import 'nope'.",
        "Name the app with 'flask --app MODULE[:NAME] serve' or FLASK_APP.",
    ]


def test_own_serve_command(tmp_path: Path) -> None:
    """An app's own `serve` command is hidden, which is said once."""
    write(tmp_path, app__py=APP.format(text="x") + "@app.cli.command('serve')\ndef own(): print('own')\n")
    with run(flask("serve", "--port", "0"), cwd=tmp_path) as command:
        get(command.address)
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
        assert command.output.count("own 'serve' command is hidden") == 1


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_is_refused(folder: Path, how: str) -> None:
    """Debug mode is refused with exit code 2 and the way to what was wanted; --allow-debug overrides that."""
    arguments, variables = (["--debug", "serve"], {}) if how == "option" else (["serve"], {"FLASK_DEBUG": "1"})
    code, output, errors = ends(folder, *arguments, **variables)
    assert (code, output) == (2, "")
    assert "flask run --debug" in errors
    assert "PRODSERVE_ALLOW_DEBUG=1 (--allow-debug)" in errors
    assert serves(folder, *arguments, "--allow-debug", **variables) == "hello"


def test_address_in_use(folder: Path) -> None:
    """An address in use is two clear lines and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = ends(folder, "serve", "--port", str(port))
    assert (code, output) == (1, "")
    assert errors.splitlines()[0] == f"Error: 127.0.0.1:{port} is already in use."
    assert len(errors.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--threads", "0"], {}, ["--threads is '0'", "THREADS takes at least 1"]),
        (["--bind", "8000"], {}, ["--bind", "127.0.0.1:8000"]),
        (["--bind", ":1", "--port", "2"], {}, ["--bind and --port both set the address to listen on"]),
        (["--port", "70000"], {}, ["PORT takes a port from 0 to 65535"]),
        ([], {"PORT": "web"}, ["PORT in the environment is 'web'"]),
        (
            [],
            {"PRODSERVE_THREDS": "4"},
            ["PRODSERVE_THREDS in the environment is not a setting", "Did you mean PRODSERVE_THREADS?"],
        ),
        ([], {"FLASK_PRODSERVE_PROT": "4"}, ["FLASK_PRODSERVE_PROT", "Did you mean FLASK_PRODSERVE_PORT?"]),
        (["--max-body-size", "10XB"], {}, ["MAX_BODY_SIZE takes a size such as 8190"]),
        (["--graceful-timeout", "soon"], {}, ["GRACEFUL_TIMEOUT takes a duration such as 30s"]),
        (["--trusted-proxies", "10.0.0.1/8"], {}, ["10.0.0.0/8"]),
        (["--proxy-headers", "x-real-ip"], {}, ["x-forwarded-for"]),
        (["--log-level", "loud"], {}, ["debug, info, warning, error or critical"]),
        (["--access-log-format", "xml"], {}, ["combined or json"]),
        (["--unix-socket-mode", "rw"], {}, ["three octal digits such as 0o660"]),
    ],
)
def test_misconfiguration(folder: Path, arguments: list[str], variables: dict[str, str], words: list[str]) -> None:
    """Each mistake is exit code 2 and a message that says what, where and what would be right; no traceback."""
    _check_misconfigured(ends_here(folder, "serve", *arguments, **variables), words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tls-cert", "cert.pem"], ["--tls-cert is set, but TLS_KEY is not"]),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], ["TLS_CERT: no.pem cannot be read"]),
        (["--max-request-line", "64KiB"], ["MAX_REQUEST_LINE (--max-request-line) is larger than MAX_HEADER_SIZE"]),
        (["--access-log", "no/such/folder/log"], ["no/such/folder/log", "ACCESS_LOG"]),
    ],
)
def test_misconfiguration_that_a_worker_finds(folder: Path, arguments: list[str], words: list[str]) -> None:
    """The same for mistakes that only show with the app's own settings, or when files are read."""
    _check_misconfigured(ends(folder, "serve", *arguments), words)


def _check_misconfigured(ended: tuple[int, str, str], words: list[str]) -> None:
    code, output, errors = ended
    assert (code, output) == (2, ""), errors
    assert errors.startswith("Error: ")
    assert all(word in errors for word in words), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("extension", [False, True])
def test_all_mistakes_at_once(tmp_path: Path, extension: bool) -> None:
    """Mistakes of the command line, the environment, app.config and ProdServe's arguments are listed together."""
    lines = ["app.config.update(PRODSERVE_BACKLOG='x', PRODSERVE_TREADS=3)"]
    if extension:
        lines.append("import flask_prodserve; flask_prodserve.ProdServe(app, keepalive_timeout='never', thread=3)")
    write(tmp_path, app__py=APP.format(text="x") + "\n".join(lines))
    code, output, errors = ends_here(tmp_path, "serve", "--threads", "many", PRODSERVE_HOST="a b", PORT="x")
    assert (code, output) == (2, "")
    expected = [
        "--threads",
        "PRODSERVE_HOST in the env",
        "PORT in the env",
        '["PRODSERVE_BACKLOG"]',
        '["PRODSERVE_TREADS"]',
    ]
    if extension:
        expected += ["ProdServe(keepalive_timeout=...)", "ProdServe(thread=...)"]
    assert f"Error: {len(expected)} settings are wrong:" in errors
    for word in expected:
        assert errors.count(word) == 1, (word, errors)


def test_config(folder: Path) -> None:
    """`flask serve config` shows values and origins as a table, as JSON and as variables that mean the same when given back."""
    arguments = ["serve", "--threads", "5", "--bind", "127.0.0.1:0,[::1]:0", "config"]
    code, output, _ = ends(folder, *arguments, PRODSERVE_MAX_BODY_SIZE="1MiB")
    assert code == 0
    assert ["THREADS", "5", "--threads"] in [line.split() for line in output.splitlines()]
    _, output, _ = ends_here(folder, *arguments, "--format", "json", PRODSERVE_MAX_BODY_SIZE="1MiB")
    shown = json.loads(output)
    assert shown["MAX_BODY_SIZE"] == {"value": "1MiB", "origin": "PRODSERVE_MAX_BODY_SIZE in the environment"}
    assert shown["TLS_CERT"]["value"] is None
    _, output, _ = ends_here(folder, *arguments, "--format", "env", PRODSERVE_MAX_BODY_SIZE="1MiB")
    write(folder, again=output)
    _, output, _ = ends_here(folder, "--env-file", "again", "serve", "config", "--format", "json")
    assert {name: row["value"] for name, row in json.loads(output).items()} == {
        name: row["value"] for name, row in shown.items()
    }


def test_explain(folder: Path) -> None:
    """--explain says what a setting bounds, why its default is what it is, and all its names; an unknown one is refused."""
    code, output, _ = ends_here(folder, "serve", "config", "--explain", "max-body-size")
    assert code == 0
    for word in (
        "MAX_BODY_SIZE = 32MiB  (default)",
        "413",
        "MAX_CONTENT_LENGTH",
        "PRODSERVE_MAX_BODY_SIZE",
        "--max-body-size SIZE",
    ):
        assert word in output
    code, _, errors = ends_here(folder, "serve", "config", "--explain", "nothing")
    assert code == 2
    assert "nothing is not a setting" in errors


def on_terminal(folder: Path, *options: str, **variables: str) -> str:
    """What `flask serve` prints on a terminal, from its start to its end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        flask("serve", "--port", "0", "--access-log", "off", *options),
        cwd=folder,
        env={**environment(**variables), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    output = b""

    def read() -> bool:
        nonlocal output
        try:
            output += os.read(ours, 65536)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the terminal's other side is closed
            return True
        return b"CTRL+C" in output

    try:
        wait_until(read, "the banner")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: read() and process.poll() is not None, "the end")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0
    return output.decode().replace("\r\n", "\n")


def test_banner(folder: Path) -> None:
    """On a terminal there is a banner in Flask's style, coloured unless NO_COLOR says no."""
    plain = on_terminal(folder, NO_COLOR="1").splitlines()
    assert plain[0].startswith(" * Serving Flask app 'app' from app (flask-prodserve ")
    assert plain[1].startswith(" * Running on http://127.0.0.1:")
    assert plain[2:4] == [" * 1 process x 16 threads (default)", " * Trusted proxies: none"]
    assert plain[4].startswith(" * Press CTRL+C to stop")
    assert "\033[" not in "".join(plain)
    assert "\033[" in on_terminal(folder)


def test_redirect_is_told_apart(folder: Path, tmp_path: Path) -> None:
    """Where plain HTTP is only redirected is not where the app runs: the banner and the line say so."""
    pair = make(tmp_path, "localhost", names="DNS:localhost")
    [port] = free_ports(1)
    options = ["--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-redirect-bind", f"127.0.0.1:{port}"]
    lines = on_terminal(folder, *options, NO_COLOR="1").splitlines()
    assert lines[1].startswith(" * Running on https://127.0.0.1:")
    assert lines[2] == f" * Redirecting http://127.0.0.1:{port} to https"
    assert "Running on http:" not in "".join(lines)
    with run(flask("serve", "--port", "0", *options), cwd=folder) as command:
        command.wait_for("serving app=")
        assert f" listen={command.url} redirect=http://127.0.0.1:{port} processes=1 " in command.output
        assert command.url.startswith("https://127.0.0.1:")


def test_line_without_a_terminal(folder: Path) -> None:
    """Elsewhere there is one line of name=value pairs; FORCE_COLOR colours its level."""
    with run(flask("serve", "--port", "0", "--threads", "2"), cwd=folder) as command:
        port = command.address[1]
        assert (
            f"serving app=app listen=http://127.0.0.1:{port} processes=1 threads=2 threads_from=--threads"
            in command.output
        )
        lines = [line for line in command.output.splitlines() if "the app runs as root" not in line]
        assert len(lines) == 1
        assert "\033[" not in command.output
    with run(flask("serve", "--port", "0"), cwd=folder, env={"FORCE_COLOR": "1"}) as command:
        command.wait_for("serving app=")
        assert "\033[" in command.output


def test_platform_port(folder: Path) -> None:
    """PORT alone means every interface; a host that was named stays, and our own settings come first."""
    [port] = map(str, free_ports(1))
    with run(flask("serve"), cwd=folder, env={"PORT": port}) as command:
        assert f"listen=http://0.0.0.0:{port},http://[::]:{port}" in command.url + command.output
    with run(flask("serve", "--host", "127.0.0.1"), cwd=folder, env={"PORT": port}) as command:
        assert command.url == f"http://127.0.0.1:{port}"
    with run(flask("serve"), cwd=folder, env={"PORT": port, "PRODSERVE_BIND": "[::1]:0"}) as command:
        assert command.url.startswith("http://[::1]:")


def test_proxy_fix(tmp_path: Path) -> None:
    """An app with ProxyFix gets the fields where no proxy is trusted, and the server says so once; with one, it gets none."""
    write(tmp_path, app__py=APP.format(text="x") + WHO)
    for variables, answer, word in [
        ({}, b"6.6.6.6True", "so it gets X-Forwarded-* fields from every peer"),
        ({"PRODSERVE_TRUSTED_PROXIES": "127.0.0.1"}, b"6.6.6.6False", "can be removed"),
        ({"PRODSERVE_TRUSTED_PROXIES": "10.0.0.1"}, b"127.0.0.1False", "can be removed"),
    ]:
        with run(flask("serve", "--port", "0"), cwd=tmp_path, env=variables) as command:
            assert get(command.address, "/who", "X-Forwarded-For: 6.6.6.6").body == answer
            assert command.output.count(word) == 1


def test_access_log_and_errors(tmp_path: Path) -> None:
    """A request is one line in the access log, with its times; an exception is logged once, with its traceback; LOG_LEVEL is heeded."""
    write(
        tmp_path, app__py=APP.format(text="x") + "@app.get('/broken')\ndef broken(): raise RuntimeError('on purpose')\n"
    )
    with run(
        flask("serve", "--port", "0", "--access-log", "access.log", "--access-log-format", "json"), cwd=tmp_path
    ) as command:
        get(command.address, '/?a=%0A"', 'User-Agent: a"b\\')
        assert get(command.address, "/broken").status == 500
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
        assert command.output.count("RuntimeError: on purpose") == 1
    # A response has come before its line is written.
    lines = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    first, second = sorted(lines, key=lambda line: line["status"])
    assert (first["target"], first["user_agent"], first["status"]) == ('/?a=%0A"', 'a"b\\', 200)
    assert second["status"] == 500
    assert first["total_ms"] >= first["app_ms"] > 0
    with run(flask("serve", "--bind", "unix:app.sock", "--log-level", "error"), cwd=tmp_path) as command:
        wait_until((tmp_path / "app.sock").is_socket)
        wait_until(lambda: get(str(tmp_path / "app.sock")).body == b"x")
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0
        assert "INFO" not in command.output
        assert "app=" in command.output
