"""Servers that scripts start, where test_scripts leaves off: signals, .env files, certificates, and several servers in a row."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from programs import free_ports
from serving import Command, flask, run, wait_until
from wire import Wire, get

HEAD = """
from flask import Flask
from flask_prodserve import ProdServe, serve

app = Flask("script")

@app.get("/")
def index():
    return "hello"
"""


def script(folder: Path, text: str) -> list[str]:
    (folder / "script.py").write_text(HEAD + text)
    return [sys.executable, "script.py"]


def stop(command: Command) -> None:
    command.signal(signal.SIGTERM)
    assert command.exit_code() == 0, command.output


def is_refused(command: Command) -> bool:
    try:
        Wire(command.address).socket.close()
    except ConnectionError:  # a reset, if it was closed in between
        return True
    return False


# Signals.


def test_second_sigint(tmp_path: Path) -> None:
    """A second SIGINT ends a script with 130, without waiting for what runs; what follows serve() does not run."""
    (tmp_path / "wait").touch()
    text = """
@app.get("/held")
def held():
    import pathlib, threading
    print("held", flush=True)
    while pathlib.Path("wait").exists():
        threading.Event().wait(0.01)
    return "held"

serve(app, port=0)
print("after")
"""
    with run(script(tmp_path, text), cwd=tmp_path) as command, Wire(command.address) as wire:
        wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        command.wait_for("held\n")
        command.signal(signal.SIGINT)
        wait_until(lambda: is_refused(command), "the listener to close")
        command.signal(signal.SIGINT)
        assert command.exit_code() == 128 + signal.SIGINT
        assert "after" not in command.output


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    """After serve() the script's own signal handlers are in place again."""
    text = """
import signal
before = signal.signal(signal.SIGTERM, lambda *_: None), signal.getsignal(signal.SIGINT)
mine = signal.getsignal(signal.SIGTERM)
serve(app, port=0)
print(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGINT) is before[1])
"""
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        stop(command)
        assert command.output.endswith("True True\n")


def test_one_server_after_another(tmp_path: Path) -> None:
    """serve() can be called again when it has returned: on the same port, with other settings, and each line is logged once."""
    [port] = free_ports(1)
    text = f"""
serve(app, port={port}, threads=1)
serve(app, port={port}, threads=2, access_log="off")
"""
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        command.signal(signal.SIGTERM)
        command.wait_for("threads=2")
        assert get(command.address).body == b"hello"
        stop(command)
    assert command.output.count("serving app=") == command.output.count("stopped; ") == 2
    assert command.output.count('"GET / HTTP/1.1" 200') == 1


def test_outside_of_the_main_thread(tmp_path: Path) -> None:
    """In a thread serve() serves without touching signals, which only the main thread may handle."""
    text = """
import signal, threading
before = signal.getsignal(signal.SIGTERM)
threading.Thread(target=serve, args=(app,), kwargs={"port": 0}, daemon=True).start()
input_closed = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: input_closed.set())
while not input_closed.wait(0.05):
    pass
print(f"handler kept: {signal.getsignal(signal.SIGTERM) is before}")
"""
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        command.signal(signal.SIGUSR1)
        assert command.exit_code() == 0
        assert "handler kept: True" in command.output  # an access line may come in between


# app.run() and .env files.


def test_app_run_reads_dotenv(tmp_path: Path) -> None:
    """app.run() reads .env before it resolves the settings, as Flask's does; load_dotenv=False and FLASK_SKIP_DOTENV stop that."""
    (tmp_path / ".env").write_text("PRODSERVE_THREADS=3\n")
    for call, variables, threads in [
        ("app.run(port=0)", {}, "threads=3"),
        ("app.run(port=0, load_dotenv=False)", {}, "threads=16"),
        ("app.run(port=0)", {"FLASK_SKIP_DOTENV": "1"}, "threads=16"),
    ]:
        with run(script(tmp_path, f"ProdServe(app, replace_run=True)\n{call}"), cwd=tmp_path, env=variables) as command:
            assert get(command.address).body == b"hello"
            assert f" {threads} " in command.output


@pytest.mark.parametrize(
    ("debug", "variables"),
    [
        ("True", {}),
        ("None", {"FLASK_DEBUG": "1"}),
        ("True", {"FLASK_DEBUG": "0"}),
    ],
)
def test_debug_in_every_way(tmp_path: Path, debug: str, variables: dict[str, str]) -> None:
    """The argument, or else FLASK_DEBUG, keeps the development server; the host and the options reach it."""
    [port] = free_ports(1)
    text = f"""
ProdServe(app, replace_run=True)
app.run("127.0.0.1", {port}, debug={debug}, use_reloader=False, threaded=True)
"""
    # Werkzeug leaves the closing of its sockets to the interpreter, which warns of it.
    with run(script(tmp_path, text), cwd=tmp_path, env={"PYTHONWARNINGS": "ignore", **variables}) as command:
        command.wait_for("Running on http://127.0.0.1:")
        assert "development server" in command.output
        assert "has no effect" not in command.output


def test_debug_false_overrules_the_environment(tmp_path: Path) -> None:
    """debug=False in the call is stronger than FLASK_DEBUG, as in Flask."""
    text = "ProdServe(app, replace_run=True)\napp.run(port=0, debug=False)"
    with run(script(tmp_path, text), cwd=tmp_path, env={"FLASK_DEBUG": "1"}) as command:
        assert get(command.address).body == b"hello"


def test_allow_debug(tmp_path: Path) -> None:
    """serve() with allow_debug serves an app in debug mode."""
    with run(script(tmp_path, "app.debug = True\nserve(app, port=0, allow_debug=True)"), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"


def test_options_that_are_as_wished_are_not_explained(tmp_path: Path) -> None:
    """use_reloader=False is what production does anyway; an option that is not known to mean anything is named as the others are."""
    text = "ProdServe(app, replace_run=True)\napp.run(port=0, use_reloader=False, use_debugger=False, threaded=True, passthrough_errors=1)"
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        explained = [line for line in command.output.splitlines() if "has no effect" in line]
    assert explained == [
        " * app.run(threaded=...) has no effect: requests run in THREADS threads; THREADS=1 runs one at a time.",
        " * app.run(passthrough_errors=...) has no effect: it belongs to the development server.",
    ]


def test_app_run_honours_bind(tmp_path: Path) -> None:
    """Where the app's keys say BIND, app.run() without arguments listens there."""
    text = (
        "app.config['PRODSERVE_BIND'] = ['unix:app.sock', '127.0.0.1:0']\nProdServe(app, replace_run=True)\napp.run()"
    )
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert command.url == "unix:app.sock"
        assert get(str(tmp_path / "app.sock")).body == b"hello"
        stop(command)
    assert not (tmp_path / "app.sock").exists()


def test_replaced_script_under_flask_serve(tmp_path: Path) -> None:
    """The same script is served by `flask serve`, which ignores its app.run(), and honours its settings."""
    script(tmp_path, "ProdServe(app, replace_run=True, threads=3)\napp.run(port=0)")
    with run(flask("--app", "script", "serve", "--port", "0"), cwd=tmp_path) as command:
        assert get(command.address).body == b"hello"
        assert "threads=3" in command.output
        stop(command)


# Certificates.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and its self-signed certificate for 127.0.0.1."""
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    done = subprocess.run(
        ["openssl", *words.split(), "-keyout", "-", "-out", "-"], check=True, capture_output=True, text=True
    )
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize("pair", ["({0!r}, {0!r})", "({0!r}, None)", "(pathlib.Path({0!r}), pathlib.Path({0!r}))"])
def test_ssl_context_pairs(tmp_path: Path, certificate: Path, pair: str) -> None:
    """A pair of paths serves https; without a key file the key is in the certificate's, as Werkzeug reads it."""
    text = f"import pathlib\nProdServe(app, replace_run=True)\napp.run(port=0, ssl_context={pair.format(str(certificate))})"
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert command.url.startswith("https://127.0.0.1:")
        with Wire(command.address) as wire:
            context = ssl.create_default_context(cafile=certificate)
            wire.socket = context.wrap_socket(wire.socket, server_hostname="127.0.0.1")
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert wire.response().body == b"hello"


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ("'adhoc'", "'adhoc'"),
        ("__import__('ssl').create_default_context()", "SSLContext"),
        ("('a', 'b', 'c')", "tuple"),
    ],
)
def test_other_ssl_contexts_are_refused(tmp_path: Path, context: str, shown: str) -> None:
    """What is no pair of files is refused in two lines with what to do instead, and exit code 2."""
    text = f"ProdServe(app, replace_run=True)\napp.run(port=0, ssl_context={context})"
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert command.exit_code() == 2
        what, hint = command.output.splitlines()
    assert what == f"Error: app.run(ssl_context=...) is {shown}, which the production server does not support."
    assert "TLS_CERT and TLS_KEY" in hint


def test_ssl_context_files_that_do_not_exist(tmp_path: Path) -> None:
    """A file that is missing is named, in two lines, with exit code 2."""
    text = "ProdServe(app, replace_run=True)\napp.run(port=0, ssl_context=('no.pem', 'no.key'))"
    with run(script(tmp_path, text), cwd=tmp_path) as command:
        assert command.exit_code() == 2
        what, _ = command.output.splitlines()
    assert what == "Error: TLS_CERT: no.pem cannot be read: No such file or directory."
