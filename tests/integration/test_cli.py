"""The command line's corners: what it shows of an app that fails, bad listeners, every option, streams, colours, and `config`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from commands import ends, ends_here
from flask_prodserve.settings import TABLE
from serving import PATIENCE, Command, environment, flask, run, wait_until
from wire import Wire, get

APP = "from flask import Flask\napp = Flask(__name__)\n@app.get('/')\ndef index(): return 'hello'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


# Apps that fail.


def test_traceback_begins_in_the_app(tmp_path: Path) -> None:
    """An app that raises is shown from its own first frame on, with what caused it; one line repeats the error."""
    (tmp_path / "app.py").write_text(
        "def connect():\n"
        "    try:\n"
        "        open('/no/such/file')\n"
        "    except OSError as error:\n"
        "        raise RuntimeError('no database') from error\n"
        "def create_app():\n"
        "    connect()\n"
    )
    code, output, errors = ends(tmp_path, "serve")
    assert (code, output) == (4, "")
    frames = re.findall(r'File "([^"]+)", line \d+, in (\w+)', errors)
    assert [function for _, function in frames] == ["connect", "create_app", "connect"]
    assert {Path(path).name for path, _ in frames} == {"app.py"}
    assert "No such file or directory" in errors
    assert errors.splitlines()[-1] == "Error: The app could not be loaded: RuntimeError: no database"


def test_syntax_error_is_shown_alone(tmp_path: Path) -> None:
    """A syntax error has no frame of the app, and no other frame is shown."""
    (tmp_path / "app.py").write_text("def f(:\n")
    code, _, errors = ends_here(tmp_path, "serve", "--workers", "0")
    assert code == 4
    assert errors.count('File "') == 1
    assert "Traceback" not in errors
    assert "    def f(:" in errors


def test_import_error_is_not_a_matter_of_names(tmp_path: Path) -> None:
    """An ImportError inside the app is shown as Flask shows it, and nobody is told to name the app: it was found."""
    (tmp_path / "app.py").write_text("import helpers_of_mine\n")
    (tmp_path / "helpers_of_mine.py").write_text("import nothing_of_that_name\n")
    code, _, errors = ends_here(tmp_path, "serve", "--workers", "0")
    assert code == 4
    assert errors.startswith(
        "Error: The app could not be loaded: While importing 'app', an ImportError was raised:\n\nTraceback"
    )
    assert errors.splitlines()[-1] == "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert "FLASK_APP" not in errors


@pytest.mark.parametrize(
    ("text", "name", "word"),
    [
        (APP, "app:other", "Failed to find attribute 'other'"),
        (APP, "app:app(", "Failed to parse 'app('"),
        ("def create_app(a, b): pass", "app", "could not call it without arguments"),
        ("def create_app(a): pass", "app:create_app(1, 2)", "could not be called with the specified arguments"),
        ("from flask import Flask\na, b = Flask('a'), Flask('b')", "app", "Detected multiple Flask applications"),
        ("", "app", "Failed to find Flask application or factory"),
    ],
)
def test_naming_the_app_wrongly(tmp_path: Path, text: str, name: str, word: str) -> None:
    """Flask's words for a name that is no app, and one line on how to give a name; no traceback."""
    (tmp_path / "app.py").write_text(text)
    code, output, errors = ends_here(tmp_path, "--app", name, "serve", "--workers", "0")
    assert (code, output) == (4, "")
    first, second = errors.splitlines()
    assert first.startswith("Error: ")
    assert word in first
    assert second == "Name the app with 'flask --app MODULE[:NAME] serve' or FLASK_APP."


def test_no_app_anywhere(tmp_path: Path) -> None:
    """In a folder without an app, Flask's explanation, and exit code 4."""
    code, _, errors = ends_here(tmp_path, "serve", "--workers", "0")
    assert code == 4
    assert errors.startswith("Error: The app could not be loaded: Could not locate a Flask application.")
    assert len(errors.splitlines()) == 2


def test_app_that_exits(tmp_path: Path) -> None:
    """An app that exits while it is imported decides on the exit code itself."""
    (tmp_path / "app.py").write_text("raise SystemExit('no config')\n")
    assert ends(tmp_path, "serve") == (1, "", "no config\n")


@pytest.mark.parametrize("variables", [{}, {"PRODSERVE_USER": "nobody"}], ids=["option", "variable"])
def test_app_for_another_user_is_not_loaded_to_complete_an_error(tmp_path: Path, variables: dict[str, str]) -> None:
    """With USER the app is not imported to find more mistakes: that would run it as the user who starts the server, who is root."""
    (tmp_path / "app.py").write_text(f"open('imported', 'w').close()\n{APP}")
    options = [] if variables else ["--user", "nobody"]
    code, _, error = ends_here(tmp_path, "serve", *options, "--threads", "nonsense", **variables)
    assert code == 2
    assert "'nonsense'" in error
    assert not (tmp_path / "imported").exists()
    assert ends_here(tmp_path, "serve", "--threads", "nonsense")[0] == 2
    assert (tmp_path / "imported").exists(), "without USER it is"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has rights to give up")
def test_app_is_not_loaded_as_root_if_user_is_misspelt(tmp_path: Path) -> None:
    """A name that is no setting may be a misspelt USER, so root does not import the app to find more mistakes."""
    (tmp_path / "app.py").write_text(f"open('imported', 'w').close()\n{APP}")
    code, _, error = ends_here(tmp_path, "serve", PRODSERVE_USR="nobody")
    assert code == 2
    assert "Did you mean PRODSERVE_USER?" in error
    assert not (tmp_path / "imported").exists()


def test_settings_of_an_app_that_refuses_its_own(tmp_path: Path) -> None:
    """Where ProdServe refuses the app's keys at import, mistakes of the command line and the environment are listed as well, once."""
    (tmp_path / "app.py").write_text(
        APP
        + "from flask_prodserve import ProdServe\napp.config['PRODSERVE_REPLACE_RUN'] = 'perhaps'\nProdServe(app, prot=1)\n"
    )
    code, _, errors = ends_here(
        tmp_path, "serve", "--threads", "many", PRODSERVE_REPLACE_RUN="maybe", PRODSERVE_TLS_CERT="cert.pem"
    )
    assert code == 2
    assert errors.splitlines() == [
        "Error: 5 settings are wrong:",
        "  - --threads is 'many', which is not valid.",
        "    THREADS takes a whole number such as 16.",
        "  - PRODSERVE_REPLACE_RUN in the environment is 'maybe', which is not valid.",
        "    REPLACE_RUN takes true or false (also yes, no, on, off, 1, 0).",
        "  - PRODSERVE_TLS_CERT in the environment is set, but TLS_KEY is not.",
        "    HTTPS needs both, as two PEM files.",
        "  - app.config[\"PRODSERVE_REPLACE_RUN\"] is 'perhaps', which is not valid.",
        "    REPLACE_RUN takes true or false (also yes, no, on, off, 1, 0).",
        "  - ProdServe(prot=...) is not a setting.",
        "    Did you mean port?",
    ]


# Listeners that cannot be had.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "203.0.113.1"], "203.0.113.1:8000 is not an address of this machine."),
        (["--host", "nothing.invalid"], "The host name of nothing.invalid:8000 cannot be resolved."),
        (["--host", "x" * 70 + ".invalid"], "cannot be resolved."),
        (["--host", "a..b"], "The host name of a..b:8000 cannot be resolved."),
        (["--bind", "unix:no/such/folder/app.sock"], "Cannot create unix:no/such/folder/app.sock: No such file"),
        (["--bind", "unix:" + "x" * 200], "is too long for a Unix socket."),
        (["--bind", "unix:app.py"], "app.py exists and is not a socket."),
        (["--bind", "unix:new.sock,203.0.113.1:1"], "203.0.113.1:1 is not an address of this machine."),
    ],
)
def test_listeners(folder: Path, arguments: list[str], words: str) -> None:
    """A listener that cannot be opened is two clear lines and exit code 1, and nothing is left behind."""
    before = sorted(folder.iterdir())
    code, output, errors = ends_here(folder, "serve", "--workers", "0", *arguments)
    assert (code, output) == (1, "")
    first, _ = errors.splitlines()
    assert first.startswith("Error: ")
    assert words in first
    assert sorted(folder.iterdir()) == before


def test_live_unix_socket(folder: Path) -> None:
    """A Unix socket on which a server answers is refused, and left alone."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(folder / "app.sock"))
        live.listen()
        code, _, errors = ends_here(folder, "serve", "--workers", "0", "--bind", "unix:app.sock")
    assert code == 1
    assert errors.splitlines()[0] == "Error: Another server is listening on app.sock."
    assert (folder / "app.sock").is_socket()


WITHOUT_PRIVILEGED_PORTS = """
import ctypes, os, sys
# prctl(2): PR_CAPBSET_DROP is 24, CAP_NET_BIND_SERVICE 10. Who is not root has no such capability to drop.
ctypes.CDLL(None).prctl(24, 10, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "flask", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ports are reserved in other ways elsewhere")
def test_port_without_permission(folder: Path) -> None:
    """A reserved port without the right to it is two clear lines that name the limit and a way around, and exit code 1."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first < 2:
        pytest.skip("no port is reserved on this machine")
    arguments = [sys.executable, "-c", WITHOUT_PRIVILEGED_PORTS, "serve", "--port", str(first - 1)]
    with run(arguments, cwd=folder) as command:
        assert command.exit_code() == 1
        what, hint = command.output.splitlines()
    assert what.startswith(f"Error: This user may not listen on 127.0.0.1:{first - 1}")
    assert "setcap" in hint


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that holds")
def test_more_threads_than_the_system_gives(folder: Path) -> None:
    """Where the system refuses to start so many threads, a warning names the setting, and all requests are answered by those it gave."""
    (folder / "app.py").write_text(
        APP
        + "import threading\nfrom pathlib import Path\n"
        + "@app.get('/held')\n"
        + "def held():\n    while not Path('release').exists(): threading.Event().wait(0.05)\n    return 'held'\n"
    )
    # Large stacks, so that there is still room for everything else when there is none for another one.
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_STACK, (2**29, 2**29)); "
        "resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34)); os.execv(sys.executable, sys.argv[1:])"
    )
    options = ["--port", "0", "--threads", "500", "--queue-timeout", f"{10 * PATIENCE}s"]
    arguments = [sys.executable, "-c", limited, *flask("serve", *options)]
    with run(arguments, cwd=folder) as command, contextlib.ExitStack() as connections:
        wires = [connections.enter_context(Wire(command.address)) for _ in range(100)]
        for wire in wires:
            wire.send(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        command.wait_for("cannot start another thread")
        (folder / "release").touch()
        assert [wire.response().body for wire in wires] == [b"held"] * 100
        stopped(command)
    assert "lower THREADS" in command.output


# Options.


def test_help(tmp_path: Path) -> None:
    """--help needs no app, and has every setting with its summary and default, and the verbs."""
    code, output, _ = ends_here(tmp_path, "serve", "--help", COLUMNS="200")
    assert code == 0
    text = "".join(output.split())  # folded anywhere
    for row in TABLE.values():
        told = row.declaration
        if not told.on_command_line:
            assert row.option not in text
            continue
        default = told.unset if told.default is None else told.default
        assert row.option in text
        assert f"{told.summary}[default:{default}]".replace(" ", "") in text
    assert "Commands:compressWrite" in text
    assert "configShoweverysetting" in text
    assert "FLASK_SERVE" not in text


def test_short_and_repeated_options(folder: Path) -> None:
    """-b may be given several times, each with several addresses; -h and -p are the short forms that `flask run` has."""
    arguments = ["serve", "-b", "127.0.0.1:0", "-b", "[::1]:0,unix:app.sock"]
    with run(flask(*arguments), cwd=folder) as command:
        command.wait_for("serving app=")
        match = re.search(r"listen=(\S+)", command.output)
        assert match is not None
        first, second, third = match[1].split(",")
        assert first.startswith("http://127.0.0.1:")
        assert second.startswith("http://[::1]:")
        assert third == "unix:app.sock"
        for address in (command.address, ("::1", int(second.rpartition(":")[2])), str(folder / "app.sock")):
            assert get(address).body == b"hello"
    with run(flask("serve", "-h", "::1", "-p", "0"), cwd=folder) as command:
        assert command.url.startswith("http://[::1]:")


def test_flags_can_be_switched_off(folder: Path) -> None:
    """--no-allow-debug overrules the environment, since a flag has three states: on, off, not given."""
    values = [
        json.loads(ends_here(folder, "serve", *flag, "config", "--format", "json", PRODSERVE_ALLOW_DEBUG="1")[1])[
            "ALLOW_DEBUG"
        ]
        for flag in ([], ["--no-allow-debug"], ["--allow-debug"])
    ]
    assert [value["value"] for value in values] == ["true", "false", "true"]
    assert [value["origin"] for value in values][1:] == ["--allow-debug"] * 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["serve", "--treads", "1"], "--treads"),
        (["serve", "nothing"], "No such command 'nothing'"),
        (["serve", "--threads"], "Option '--threads' requires an argument"),
        (["serve", "--replace-run"], "--replace-run"),
        (["serve", "config", "--format", "xml"], "'xml' is not one of 'table', 'json', 'env'"),
        (["serve", "--host", ""], "--host is '', which is not valid."),
        (["serve", "--server-header", ""], "--server-header is '', which is not valid."),
        (["serve", "--backlog", "99999999999"], "BACKLOG takes at most 2147483647."),
        (["serve", "--access-log", " "], "ACCESS_LOG takes stdout, stderr, off or the path of a file."),
        (["serve", "config", "--explain", ""], "is not a setting"),
    ],
)
def test_usage(folder: Path, arguments: list[str], word: str) -> None:
    """Wrong usage is exit code 2 and says what; an empty text, as from an empty shell variable, is nothing that is guessed at."""
    code, output, errors = ends_here(folder, *arguments)
    assert (code, output) == (2, "")
    assert word in errors
    assert "Traceback" not in errors


def test_variables_that_mean_nothing(folder: Path) -> None:
    """Empty variables count as not set, and there is one spelling: click's FLASK_SERVE_* is not a second one."""
    variables = {"PRODSERVE_THREADS": "", "PORT": "", "FORWARDED_ALLOW_IPS": "", "FLASK_SERVE_THREADS": "7"}
    told = json.loads(ends_here(folder, "serve", "config", "--format", "json", **variables)[1])
    assert {entry["origin"] for entry in told.values()} == {"default"}


def test_dotenv_files(folder: Path) -> None:
    """Settings in .env and .flaskenv count as the environment: what is really there is stronger, and .env is stronger than .flaskenv."""
    (folder / ".flaskenv").write_text("PRODSERVE_THREADS=1\nPRODSERVE_BACKLOG=1\nPRODSERVE_LOG_LEVEL=debug\n")
    (folder / ".env").write_text("PRODSERVE_THREADS=2\nPRODSERVE_BACKLOG=2\nPORT=0\n")
    told = json.loads(ends_here(folder, "serve", "config", "--format", "json", PRODSERVE_THREADS="3")[1])
    assert [told[name]["value"] for name in ("THREADS", "BACKLOG", "LOG_LEVEL", "PORT", "HOST")] == [
        "3",
        "2",
        "debug",
        "0",
        "*",
    ]
    assert told["BACKLOG"]["origin"] == "PRODSERVE_BACKLOG in a .env file"


# `flask serve config`.


@pytest.mark.parametrize("name", ["MAX_BODY_SIZE", "max_body_size", "--max-body-size", "PRODSERVE_MAX_BODY_SIZE"])
def test_explain_in_every_spelling(folder: Path, name: str) -> None:
    """--explain knows a setting by the name that stands in whatever place the reader has before them."""
    code, output, errors = ends_here(folder, "serve", "config", "--explain", name)
    assert (code, errors) == (0, "")
    assert output.startswith("MAX_BODY_SIZE = 32MiB  (default)\n")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("THREDS", "Did you mean THREADS?"),
        ("--thredz", "Did you mean THREADS?"),
        ("PRODSERVE_THREDS", "Did you mean THREADS?"),
        ("nothing", "`flask serve --help` lists all settings."),
    ],
)
def test_explain_what_is_no_setting(folder: Path, name: str, hint: str) -> None:
    """--explain says which setting may have been meant, as everywhere else."""
    code, output, errors = ends_here(folder, "serve", "config", "--explain", name)
    assert (code, output) == (2, "")
    assert errors.splitlines()[-1] == f"Error: Invalid value for --explain: {name} is not a setting. {hint}"


def test_config_of_the_app(tmp_path: Path) -> None:
    """`config` shows what the app itself says, with origins that name the place in the code."""
    (tmp_path / "app.py").write_text(
        APP + "app.config.update(MAX_CONTENT_LENGTH=1024, PRODSERVE_THREADS=3)\n"
        "import flask_prodserve\nflask_prodserve.ProdServe(app, keepalive_timeout='90s')\n"
    )
    code, output, errors = ends_here(tmp_path, "serve", "config")
    assert (code, errors) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in output.splitlines()}
    assert rows.keys() == TABLE.keys()
    assert rows["MAX_BODY_SIZE"] == ["1KiB", 'app.config["MAX_CONTENT_LENGTH"]']
    assert rows["THREADS"] == ["3", 'app.config["PRODSERVE_THREADS"]']
    assert rows["KEEPALIVE_TIMEOUT"] == ["90s", "ProdServe(keepalive_timeout=...)"]


def test_config_refuses_what_serve_refuses(folder: Path) -> None:
    """`config` with a mistake is the same message and exit code that `serve` would give, and prints no settings."""
    refused = [ends_here(folder, "serve", *verb, PRODSERVE_TREADS="1") for verb in ([], ["config"])]
    assert refused[0] == refused[1]
    assert refused[0][0] == 2
    assert refused[0][1] == ""


def test_config_in_debug_mode(folder: Path) -> None:
    """`config` looks at an app in debug mode without serving it, so it is not refused."""
    code, output, _ = ends_here(folder, "--debug", "serve", "config")
    assert code == 0
    assert output.startswith("BIND")


# What goes where.


def test_own_serve_command_does_not_spoil_output(tmp_path: Path) -> None:
    """The remark on the app's own `serve` command goes to standard error: what `config` prints can still be parsed."""
    (tmp_path / "app.py").write_text(APP + "@app.cli.command('serve')\ndef own(): print('own')\n")
    code, output, errors = ends_here(tmp_path, "serve", "config", "--format", "json")
    assert code == 0
    assert json.loads(output).keys() == TABLE.keys()
    assert errors.count("own 'serve' command is hidden") == 1
    assert ends_here(tmp_path, "serve", "--help")[2] == ""


def test_streams(folder: Path) -> None:
    """Access lines are all there is on standard output; start and stop are told on standard error."""
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            flask("serve", "--port", "0"), cwd=folder, env=environment(), stdout=out, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        with process, process.stderr as errors:
            line = errors.readline().decode()
            match = re.search(r"listen=http://127\.0\.0\.1:(\d+) ", line)
            assert match is not None, line
            get(("127.0.0.1", int(match[1])), "/?a")
            process.terminate()
            rest = errors.read().decode()
            assert process.wait() == 0
    assert re.search(r"INFO stopped; [01] requests? finished, 0 cut\n$", rest)
    written = (folder / "out").read_text()
    assert written.count("\n") == 1
    assert '"GET /?a HTTP/1.1" 200 5 ' in written


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_without_standard_error(folder: Path) -> None:
    """A process that was started without standard error, as daemons are, serves, and ends with the codes that say why."""
    closed = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh"]
    with run([*closed, *flask("serve", "--bind", "unix:app.sock")], cwd=folder) as command:
        wait_until((folder / "app.sock").is_socket, "the listener")
        assert get(str(folder / "app.sock")).body == b"hello"
        stopped(command)
    with run([*closed, *flask("serve", "--threads", "x")], cwd=folder) as command:
        assert command.exit_code() == 2


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_of_errors(folder: Path, variables: dict[str, str], coloured: bool) -> None:
    """Errors are coloured as the log is: on a terminal, or where FORCE_COLOR says so, and never against NO_COLOR."""
    _, _, errors = ends(folder, "serve", "--threads", "x", **variables)
    assert ("\033[31mError: One setting is wrong:\033[0m" in errors) == coloured
    assert ("\033[" in errors) == coloured


def test_middleware_that_refers_back(folder: Path) -> None:
    """Middleware that keeps the app, whose wsgi_app it has become, is no endless chain to look for ProxyFix in."""
    (folder / "app.py").write_text(
        APP + "class Middleware:\n"
        "    def __init__(self, app):\n"
        "        self.app, self.inner = app, app.wsgi_app\n"
        "    def __call__(self, environ, start_response):\n"
        "        return self.inner(environ, start_response)\n"
        "app.wsgi_app = Middleware(app)\n"
    )
    with run(flask("serve", "--port", "0"), cwd=folder) as command:
        assert get(command.address).body == b"hello"


@pytest.mark.parametrize("word", ["OFF", "off"])
def test_access_log_off(folder: Path, word: str) -> None:
    """ACCESS_LOG=OFF means off, and is not a file of that name."""
    with run(flask("serve", "--port", "0"), cwd=folder, env={"PRODSERVE_ACCESS_LOG": word}) as command:
        assert get(command.address).body == b"hello"
        stopped(command)
        assert "GET /" not in command.output
    assert not (folder / word).exists()


def stopped(command: Command) -> None:
    command.process.terminate()
    assert command.exit_code() == 0
