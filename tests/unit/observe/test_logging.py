from __future__ import annotations

import contextlib
import io
import logging
import logging.config
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_prodserve.observe.line_writer import PIECE_BYTES, pieces
from flask_prodserve.observe.logging import LOGGERS, StandardErrorHandler, coloured, configure

ROOT = Path(__file__).parents[3]
NAMES = ("", *LOGGERS, "flask_prodserve.proxy")


@contextlib.contextmanager
def untouched_logging() -> Iterator[None]:
    """Logging as in a fresh process; within a test, since pytest attaches its handlers anew for each phase of one."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.handlers[:], logger.level, logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = []
        logger.setLevel(logging.WARNING if logger is logging.root else logging.NOTSET)
        logger.propagate, logger.disabled = True, False
    try:
        yield
    finally:
        for logger, (handlers, level, propagate, disabled) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


@pytest.fixture(autouse=True)
def _no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def own_handlers() -> list[int]:
    """How many handlers of ours each logger has."""
    return [
        sum(isinstance(handler, StandardErrorHandler) for handler in logging.getLogger(name).handlers)
        for name in LOGGERS
    ]


# Where the app has not configured logging.


@untouched_logging()
def test_messages_go_to_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Records of the server, its parts and waitress are on standard error, once each, with time, process and level."""
    configure("info", explicit=False)
    for name in ("flask_prodserve", "flask_prodserve.proxy", "waitress", "waitress.queue"):
        logging.getLogger(name).info("from %s", name)
    logging.getLogger("flask_prodserve").debug("not shown")
    output = capsys.readouterr()
    assert output.out == ""
    expected = rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}\] \[{os.getpid()}\] INFO from ([\w.]+)"
    matches = [re.fullmatch(expected, line) for line in output.err.splitlines()]
    assert [match and match[1] for match in matches] == [
        "flask_prodserve",
        "flask_prodserve.proxy",
        "waitress",
        "waitress.queue",
    ]


@untouched_logging()
def test_traceback_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that is logged comes with its traceback."""
    configure("info", explicit=False)
    try:
        raise LookupError("gone")
    except LookupError:
        logging.getLogger("flask_prodserve.engine").exception("failed")
    assert re.search(r"ERROR failed\nTraceback .*LookupError: gone\n$", capsys.readouterr().err, re.DOTALL)


@untouched_logging()
def test_calling_again_changes_the_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A second call adds no second handler, and its level counts."""
    configure("info", explicit=False)
    configure("error", explicit=False)
    logging.getLogger("flask_prodserve").warning("hidden")
    logging.getLogger("flask_prodserve").error("shown")
    assert own_handlers() == [1, 1]
    assert [line.split("] ")[-1] for line in capsys.readouterr().err.splitlines()] == ["ERROR shown"]


@untouched_logging()
def test_root_handler_that_comes_later_shows_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """A root handler that is attached after the set-up does not get the records that ours shows."""
    configure("info", explicit=False)
    logging.basicConfig(stream=sys.stderr)
    logging.getLogger("flask_prodserve").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


@untouched_logging()
def test_standard_error_is_looked_up_when_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that takes the place of standard error after the set-up gets the records."""
    configure("info", explicit=False)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.getLogger("flask_prodserve").info("here")
    assert stream.getvalue().endswith("INFO here\n")


@untouched_logging()
def test_no_standard_error_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without standard error records are dropped."""
    configure("info", explicit=False)
    monkeypatch.setattr(sys, "stderr", None)
    logging.getLogger("flask_prodserve").info("nowhere")


@untouched_logging()
def test_app_that_sets_a_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A level that the app gave our logger stands, unless LOG_LEVEL is set; our handler is still needed."""
    logging.getLogger("flask_prodserve").setLevel(logging.DEBUG)
    configure("info", explicit=False)
    logging.getLogger("flask_prodserve").debug("shown")
    configure("info", explicit=True)
    logging.getLogger("flask_prodserve").debug("hidden")
    assert [line.split("] ")[-1] for line in capsys.readouterr().err.splitlines()] == ["DEBUG shown"]


# Where it has.


@pytest.mark.parametrize(
    ("explicit", "expected"),
    [(False, ["WARNING warning"]), (True, ["DEBUG debug", "INFO info", "WARNING warning"])],
)
def test_handlers_of_the_root_logger_get_the_records(
    capsys: pytest.CaptureFixture[str], explicit: bool, expected: list[str]
) -> None:
    """An app's root handler gets our records, and no other does; the level is the app's, unless LOG_LEVEL is set."""
    with untouched_logging():
        stream = io.StringIO()
        logging.basicConfig(stream=stream, format="%(levelname)s %(message)s")
        configure("debug", explicit=explicit)
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger("flask_prodserve.access"), level)(level)
        assert stream.getvalue().splitlines() == expected
        assert capsys.readouterr().err == ""
        assert own_handlers() == [0, 0]


@untouched_logging()
def test_handler_of_one_logger_is_for_that_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A handler that the app gave to "flask_prodserve" replaces ours there, and "waitress" still gets ours."""
    stream = io.StringIO()
    logging.getLogger("flask_prodserve").addHandler(logging.StreamHandler(stream))
    configure("info", explicit=False)
    logging.getLogger("flask_prodserve").warning("ours")
    logging.getLogger("waitress").warning("theirs")
    assert own_handlers() == [0, 1]
    assert stream.getvalue() == "ours\n"
    assert capsys.readouterr().err.endswith("WARNING theirs\n")


@untouched_logging()
def test_app_that_configures_logging_later_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    """If logging is configured between two calls, the second one hands our records over, and their level."""
    configure("debug", explicit=False)
    stream = io.StringIO()
    logging.basicConfig(stream=stream, format="%(levelname)s %(message)s")
    configure("debug", explicit=False)
    logging.getLogger("flask_prodserve").info("hidden")
    logging.getLogger("flask_prodserve").warning("shown")
    assert own_handlers() == [0, 0]
    assert stream.getvalue() == "WARNING shown\n"
    assert capsys.readouterr().err == ""


@untouched_logging()
def test_level_that_the_app_set_between_two_calls_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """A level that the app has set since an earlier call is not undone by the next."""
    configure("info", explicit=False)
    logging.getLogger("flask_prodserve").setLevel(logging.ERROR)
    configure("info", explicit=False)
    logging.getLogger("flask_prodserve").warning("hidden")
    assert capsys.readouterr().err == ""


@untouched_logging()
def test_dict_config_of_the_app_does_not_silence_the_server() -> None:
    """dictConfig() disables the loggers that it is not told of; ours, which it was not meant for, speak again."""
    stream = io.StringIO()
    logging.getLogger("flask_prodserve.proxy")
    logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {"stream": {"class": "logging.StreamHandler", "stream": stream}},
            "root": {"level": "INFO", "handlers": ["stream"]},
        }
    )
    assert logging.getLogger("flask_prodserve.proxy").disabled
    configure("info", explicit=False)
    logging.getLogger("flask_prodserve.proxy").warning("proxy")
    logging.getLogger("waitress").info("waitress")
    assert stream.getvalue() == "proxy\nwaitress\n"


# Colours.


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "0"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_coloured(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], terminal: bool, expected: bool) -> None:
    """A terminal gets colours; FORCE_COLOR gives them to anything, and NO_COLOR, if not empty, to nothing."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert coloured(Terminal() if terminal else io.StringIO()) is expected


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_level_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """On a terminal the level is coloured, and nothing else, even if the message has the same word."""
    with untouched_logging():
        configure("debug", explicit=False)
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        logging.getLogger("flask_prodserve").log(getattr(logging, level), "the %s message", level)
    assert re.fullmatch(rf"\[[^]]+\] \[\d+\] \033\[[\d;]+m{level}\033\[0m the {level} message\n", stream.getvalue())


def test_level_of_another_name_is_not_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that has no colour of its own is shown all the same."""
    with untouched_logging():
        configure("debug", explicit=False)
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        logging.getLogger("flask_prodserve").log(25, "message")
    assert "Level 25" in stream.getvalue()
    assert stream.getvalue().endswith(" message\n")


# Several processes.

WRITER = """
import logging, os, sys
from flask_prodserve.observe.logging import configure

configure("info", explicit=True)
logger = logging.getLogger("flask_prodserve")
for number in range(4):
    if os.fork() == 0:
        for message in range(100):
            logger.error("\\n".join(f"<{number}.{message}.{line}.{'x' * (line * 7 % 400)}>" for line in range(150)))
        os._exit(0)
for _ in range(4):
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("blocking", [True, False])
def test_lines_of_several_processes_are_whole(blocking: bool) -> None:
    """Long messages that several processes write to one pipe may be in pieces between one another, but each of their lines is whole."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)
    with subprocess.Popen([sys.executable, "-c", WRITER], stderr=write_end, cwd=ROOT) as process:
        os.close(write_end)
        output = b"".join(iter(lambda: os.read(read_end, 65536), b"")).decode()
    os.close(read_end)
    assert process.returncode == 0
    lines = []
    for line in output.splitlines():
        match = re.fullmatch(r"(?:\[\d[-+: \d]*\] \[\d+\] ERROR )?<(\d)\.(\d+)\.(\d+)\.(x*)>", line)
        assert match is not None, line
        assert len(match[4]) == int(match[3]) * 7 % 400
        lines.append((int(match[1]), int(match[2]), int(match[3])))
    for number in range(4):
        assert [line for line in lines if line[0] == number] == [
            (number, message, line) for message in range(100) for line in range(150)
        ]


def test_pieces() -> None:
    """A message is cut where lines end, and a line only if it is longer than a piece."""
    message = b"a" * (PIECE_BYTES - 2) + b"\nb\n" + b"c" * (2 * PIECE_BYTES) + b"\nd\n"
    cut = list(pieces(message))
    assert b"".join(cut) == message
    assert [(piece[:1], len(piece)) for piece in cut] == [
        (b"a", PIECE_BYTES - 1),
        (b"b", 2),
        (b"c", PIECE_BYTES),
        (b"c", PIECE_BYTES),
        (b"\n", 3),
    ]


@untouched_logging()
def test_what_others_have_written_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Text that is in the buffer of standard error stays in front, and characters are encoded as the stream has it."""
    path = tmp_path / "log"
    with path.open("w", encoding="ascii", errors="backslashreplace") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure("info", explicit=False)
        stream.write("before\n")
        logging.getLogger("flask_prodserve").info("first ä")
        stream.write("between\n")
        logging.getLogger("flask_prodserve").info("second")
    assert [line.split("] ")[-1] for line in path.read_text().splitlines()] == [
        "before",
        "INFO first \\xe4",
        "between",
        "INFO second",
    ]


class Tee(io.StringIO):
    """Something that an app has put in the place of standard error."""

    encoding = "utf-8"

    def fileno(self) -> int:
        return 2


@untouched_logging()
def test_a_wrapper_gets_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has replaced standard error gets the records, even if it has a descriptor."""
    monkeypatch.setattr(sys, "stderr", tee := Tee())
    configure("info", explicit=False)
    logging.getLogger("flask_prodserve").info("here")
    assert tee.getvalue().endswith("INFO here\n")
