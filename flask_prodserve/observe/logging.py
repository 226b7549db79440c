"""The server's own messages: where they go when the app has not said, and when to colour them.

Rule: an app that has configured logging is not overruled. Its handlers get our records; ours is attached only where there are none.

Several processes write to one standard error. Their lines are not mixed: they are written as the system writes at once, and together.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

LOGGERS = ("flask_prodserve", "waitress")
"""All messages of the server come from these and their children."""

PIECE_BYTES = 4096
"""What is written at a time: as much as a pipe takes without anything in between (PIPE_BUF of Linux; POSIX says 512 at least)."""

_FORMAT = "[%(asctime)s] [%(process)d] %(levelname)s %(message)s"
_DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"

_RESET = "\033[0m"
_LEVEL_COLOURS = {
    "DEBUG": "\033[2m",
    "INFO": "\033[32m",
    "WARNING": "\033[33m",
    "ERROR": "\033[31m",
    "CRITICAL": "\033[1;31m",
}


def configure(level: str, *, explicit: bool) -> None:
    """Set up LOGGERS: with a handler for standard error, if neither they nor the root logger have one.

    *level* is a name such as ``info``; *explicit* says that somebody chose it, and then it counts even where the app has configured
    logging. To be called once the app is loaded; calling it again starts over, with what the app has configured by then.
    """
    root_has_handlers = bool(logging.getLogger().handlers)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        _start_over(logger)
        configured_by_app = root_has_handlers or bool(logger.handlers)
        if explicit or (not configured_by_app and logger.level == logging.NOTSET):
            logger.setLevel(level.upper())
        if not configured_by_app:
            logger.addHandler(StandardErrorHandler(logger.level))
            logger.propagate = False


def coloured(stream: TextIO) -> bool:
    """Whether to write colours to *stream*: NO_COLOR says no (no-color.org), else FORCE_COLOR says yes, else a terminal gets them."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


class StandardErrorHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment, since test suites and daemons exchange it.

    *logger_level* is the level of the logger that it is attached to, kept to tell later whether the app has changed it.
    """

    def __init__(self, logger_level: int) -> None:
        super().__init__()
        self.logger_level = logger_level
        self.setFormatter(_Formatter(_FORMAT, _DATE_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:  # pythonw, and daemons that closed it
            return
        try:
            _write(sys.stderr, self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def _write(stream: TextIO, text: str) -> None:
    """Write *text* past the buffers of *stream* if it is an ordinary file, or to whatever has been put in the place of one."""
    descriptor = _descriptor(stream)
    if descriptor is None:
        stream.write(text)
        stream.flush()
        return
    stream.flush()  # what others have written comes first
    for piece in _pieces(text.encode(stream.encoding, stream.errors or "strict")):
        unwritten = piece
        while unwritten:
            try:
                unwritten = unwritten[os.write(descriptor, unwritten) :]
            except BlockingIOError:  # whoever shares the file has said that it must not block
                select.select([], [descriptor], [])


def _descriptor(stream: TextIO) -> int | None:
    # A wrapper that passes its text on may have the descriptor of what is behind it. A console of Windows takes text only.
    if not isinstance(stream, io.TextIOWrapper) or os.name == "nt":
        return None
    try:
        return stream.fileno()
    except OSError:
        return None


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut *data* where lines end; lines that are too long, anywhere."""
    begin = 0
    while begin < len(data):
        end = begin + PIECE_BYTES
        if end < len(data):
            end = data.rfind(b"\n", begin, end) + 1 or end
        yield data[begin:end]
        begin = end


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if coloured(sys.stderr):
            level = record.levelname
            line = line.replace(f" {level} ", f" {_LEVEL_COLOURS.get(level, '')}{level}{_RESET} ", 1)
        return line


def _start_over(logger: logging.Logger) -> None:
    """Undo an earlier :func:`configure`, as far as the app has not changed it since."""
    for handler in logger.handlers[:]:
        if isinstance(handler, StandardErrorHandler):
            logger.removeHandler(handler)
            handler.close()
            logger.propagate = True
            if logger.level == handler.logger_level:
                logger.setLevel(logging.NOTSET)
    # logging.config.dictConfig() switches off every logger that it is not told of, unless told not to. An app that configures logging
    # for itself does not mean to silence its server.
    for name, member in list(logging.root.manager.loggerDict.items()):
        if isinstance(member, logging.Logger) and f"{name}.".startswith(f"{logger.name}."):
            member.disabled = False
