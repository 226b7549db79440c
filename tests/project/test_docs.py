"""The documentation is in step with the code, and its code blocks do what they say.

Blocks: ``python`` is executed, a page's blocks in one namespace; one with the class ``serves`` is run as a script until it serves, then
stopped. Every ``flask`` command is run, be it a line of an ``sh`` block, of a Procfile, of a unit or of a Dockerfile, but with a port of
its own. What has the class ``shown`` needs what a test machine does not have (port 443, somebody's library): of a command only the options
are checked, of Python that it compiles. ``console`` is a command after ``$`` and its output, in which ``...`` stands for any lines. The
banner and the access line in ``text`` blocks are compared with real ones.
"""

from __future__ import annotations

import configparser
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_prodserve.errors import ExitCode
from flask_prodserve.settings import TABLE
from flask_prodserve.settings.render import as_reference
from serving import PATIENCE, environment, flask, run, wait_until
from wire import get

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(?:\{code-block\} )?(\w+)\n((?::\w+: [^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block:
    def __init__(self, page: Path, match: re.Match[str]) -> None:
        self.language, options, self.code = match.groups()
        self.serves = ":class: serves" in options
        self.shown = ":class: shown" in options
        self.name = f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}"


def _blocks(page: Path) -> Iterator[Block]:
    return (Block(page, match) for match in _BLOCK.finditer(page.read_text()) if "_build" not in page.parts)


BLOCKS = [block for page in PAGES for block in _blocks(page)]
HELLO = next(block.code for block in BLOCKS if block.name.startswith("docs/tutorials/quickstart"))


def _command(line: str) -> str:
    """The command in *line*: as a shell has it, after a Procfile's or a unit's key, or in a Dockerfile's exec form."""
    if line.startswith("CMD ["):
        return shlex.join(json.loads(line.removeprefix("CMD ")))
    return re.sub(r"^(\w+: |ExecStart=/\S+/(?=flask ))", "", line)


COMMANDS = [
    pytest.param(_command(line), id=f"{block.name}-{number}")
    for block in BLOCKS
    if block.language not in ("python", "console") and not block.shown
    for number, line in enumerate(block.code.splitlines())
    if "flask --app hello" in _command(line)
]
CONSOLES = [block for block in BLOCKS if block.language == "console"]
BANNERS = [block for block in BLOCKS if block.code.startswith(" * Serving")]
ACCESS_LINES = [block for block in BLOCKS if " total=" in block.code]
LINKS = [
    pytest.param(page.parent / target, id=f"{page.name}-{target}")
    for page in (*PAGES, ROOT / "CHANGES.md", ROOT / "CONTRIBUTING.md")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


def test_blocks_are_found() -> None:
    """The expression that finds code blocks finds as many as there are fences."""
    for page in PAGES:
        if "_build" not in page.parts:
            fences = len(re.findall(r"^```", page.read_text(), re.MULTILINE)) // 2
            other = len(re.findall(r"^```\{(?!code-block)", page.read_text(), re.MULTILINE))
            assert len(list(_blocks(page))) == fences - other, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks run as they stand, but for those that are only shown, which compile."""
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in _blocks(page):
        if block.language == "python" and not block.serves:
            code = compile(block.code, block.name, "exec")
            if not block.shown:
                exec(code, namespace)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.serves], ids=lambda block: block.name)
def test_scripts_that_serve(block: Block, folder: Path) -> None:
    """Scripts serve, and stop on SIGTERM."""
    (folder / "script.py").write_text(block.code)
    with run([sys.executable, "script.py"], cwd=folder, env={"PRODSERVE_PORT": "0"}) as command:
        assert get(command.address).status in (200, 404)
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0, command.output


def test_shown_heartbeat(folder: Path) -> None:
    """What the heartbeat of the page on hooks writes is in the log."""
    [block] = [block for block in BLOCKS if "heartbeat" in block.code]
    assert "wait(60)" in block.code
    (folder / "script.py").write_text(block.code.replace("wait(60)", "wait(0.01)"))
    with run([sys.executable, "script.py"], cwd=folder, env={"PRODSERVE_PORT": "0"}) as command:
        command.wait_for("still there")
        command.signal(signal.SIGTERM)
        assert command.exit_code() == 0, command.output


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line: str, folder: Path) -> None:
    """Commands that serve answer a request and stop on SIGTERM with exit code 0; others end with it."""
    line = re.sub(r"unix:/\S+/", "unix:", re.sub(r"--(bind|port) (?!unix:)\S+", "--bind 127.0.0.1:0", line))
    arguments, variables = _parsed(line)
    if "--bind" not in arguments:
        variables["PRODSERVE_PORT"] = "0"
    with run(flask(*arguments), cwd=folder, env=variables) as command:
        if "config" not in arguments:
            response = get(
                command.address if not str(command.address).endswith(".sock") else str(folder / str(command.address))
            )
            assert (response.status, response.body) == (200, b"Hello, production!")
            command.signal(signal.SIGTERM)
        assert command.exit_code() == 0, command.output


def _parsed(line: str) -> tuple[list[str], dict[str, str]]:
    """The arguments of ``flask`` and the variables before it."""
    words = shlex.split(line)
    variables = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    assert words[0] == "flask"
    return words[1:], variables


@pytest.mark.parametrize("block", CONSOLES, ids=lambda block: block.name)
def test_shown_output(block: Block, folder: Path) -> None:
    """A command that is shown with its output says exactly that."""
    line, _, shown = block.code.partition("\n")
    arguments, variables = _parsed(line.removeprefix("$ "))
    with run(flask(*arguments), cwd=folder, env=variables) as command:
        command.exit_code()
        pattern = re.escape(shown).replace(re.escape("...\n"), r"(?:.*\n)*")
        assert re.fullmatch(pattern, command.output), command.output


def test_shown_banner(folder: Path) -> None:
    """The banner on a terminal is the one shown, but for the port."""
    assert BANNERS
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        flask("--app", "hello", "serve", "--port", "0"), cwd=folder, env=environment(NO_COLOR="1"), stderr=stderr
    )
    os.close(stderr)
    said = ""
    try:
        while "to finish\r\n" not in said:
            assert select.select([terminal], [], [], PATIENCE)[0], said
            said += os.read(terminal, 65536).decode()  # raises if the command ends without
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, "the end")
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    said = said[: said.index("to finish\r\n")] + "to finish\n"  # a warning may follow, about who runs the tests
    banner = re.sub(r"(?<=127\.0\.0\.1:)\d+", "8000", said.replace("\r\n", "\n"))
    for block in BANNERS:
        assert block.code == banner, block.name


def test_shown_access_line(folder: Path) -> None:
    """The access line of a request is the one shown, but for the date and the numbers."""
    assert ACCESS_LINES
    with run(flask("--app", "hello", "serve", "--port", "0"), cwd=folder) as command:
        get(command.address, "/", "User-Agent: curl/1")
        command.wait_for("total=")
        command.signal(signal.SIGTERM)
        command.exit_code()
        [written] = [line for line in command.output.splitlines() if " total=" in line]
    for block in ACCESS_LINES:
        assert _without_numbers(block.code) == _without_numbers(written), block.name


def _without_numbers(line: str) -> str:
    return re.sub(r"[\d.]+", "0", re.sub(r"\[.*?\]", "[]", line.strip()))


def test_other_blocks() -> None:
    """JSON, INI and TOML blocks can be read by their parsers; languages nobody checks are only those known here."""
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.code)
        elif block.language == "ini":
            parser = configparser.ConfigParser(strict=False)
            parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
            parser.read_string(block.code)
        else:
            assert block.language in ("python", "sh", "console", "text", "nginx", "dockerfile"), block.name


def test_settings_reference_is_in_step() -> None:
    """docs/reference/settings.md is what the table says. If not: make settings."""
    assert (ROOT / "docs/reference/settings.md").read_text() == as_reference()


FOREIGN_NAMES = {
    "ALLOWED_HOSTS",
    "APPLICATION_ROOT",
    "CONN_MAX_AGE",
    "CSRF_TRUSTED_ORIGINS",
    "DJANGO_SETTINGS_MODULE",
    "FLASK_APP",
    "FLASK_DEBUG",
    "FORWARDED_ALLOW_IPS",
    "LOGIN_REDIRECT_URL",
    "LOGIN_URL",
    "MAX_CONTENT_LENGTH",
    "MIDDLEWARE",
    "SEND_FILE_MAX_AGE_DEFAULT",
    "USE_X_SENDFILE",
    "PORT",
    "SECRET_KEY",
    "SECURE_PROXY_SSL_HEADER",
    "SESSION_COOKIE_NAME",
    "STATIC_ROOT",
    "TMPDIR",
    "TRUSTED_HOSTS",
    "WEB_CONCURRENCY",
}
"""Names in the text that are no settings, beside those of a WSGI environment."""


_BARE_NAME = re.compile(r"`(?:(?:FLASK_)?PRODSERVE_)?([A-Z]+(?:_[A-Z]+)*)`")
ENVIRON = ROOT / "docs/reference/environ.md"


@pytest.mark.parametrize("page", [page for page in PAGES if page != ENVIRON], ids=lambda page: page.name)
def test_bare_names_exist(page: Path) -> None:
    """Names in capitals are settings of the table, keys that the page of the WSGI environment has, or known as somebody else's."""
    known = TABLE.keys() | FOREIGN_NAMES | set(_BARE_NAME.findall(ENVIRON.read_text()))
    assert set(_BARE_NAME.findall(page.read_text())) <= known


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_somewhere(target: Path) -> None:
    """A link to a file of the repository leads to one."""
    assert target.is_file() or target.is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_texts(page: Path) -> None:
    """A link says where it leads, also where nobody fills in the title of the page: a forge does not."""
    assert "[](" not in page.read_text()


def test_every_how_to_is_in_the_readme() -> None:
    """The README links the quickstart and each how-to: the index of the documentation is none on a forge."""
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("how-to/*.md"):
        assert f"](docs/how-to/{page.name})" in readme
    assert "](docs/tutorials/quickstart.md)" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page: Path) -> None:
    """Every PRODSERVE_ name and every option of `flask serve` in the text is one of the table's, but for mistakes shown as such."""
    text = page.read_text()
    known = {row.key for row in TABLE.values()} | {"PRODSERVE_THREDS", "PRODSERVE_"}
    assert set(re.findall(r"PRODSERVE_[A-Z_]*", text)) <= known
    options = {row.option for row in TABLE.values()} | {
        *(row.option.replace("--", "--no-", 1) for row in TABLE.values() if row.declaration.kind.flag),
        "--app",
        "--env-file",
        "--debug",
        "--help",
        "--name",
    }
    options |= {"--format", "--explain", "--json", "--no-wait", "--now"}
    served = re.findall(
        r"(?<=[ `/])--[a-z][a-z-]+", "\n".join(line for line in text.splitlines() if "pip install" not in line)
    )
    assert set(served) <= options


def test_exit_codes_are_complete() -> None:
    """The page of exit codes has every code with its name."""
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", (ROOT / "docs/reference/exit-codes.md").read_text(), re.MULTILINE)
    assert {(int(code), name) for code, name in rows} == {(code.value, code.name) for code in ExitCode}
