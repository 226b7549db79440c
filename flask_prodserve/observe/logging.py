"""Configures the server's own messages: where they go if the app has not configured logging, and
when to colour them.

Rule: an app that configured logging is not overruled. Its handlers get our records; our handler is
added only if there are none.

A message is formatted in the thread that logs it, and queued for standard error, so that no slow
reader can block that thread.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from .line_writer import FLUSH_SECONDS
from .standard_streams import text_descriptor, writer_to

LOGGERS = ("flask_prodserve", "waitress")
"""The loggers of all messages of the server, with their children."""

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
    """Configure LOGGERS, with a handler for standard error if neither they nor the root logger have
    one.

    *level* is a name such as ``info``. *explicit*: a setting chose it, so it counts even if the app
    configured logging. Call it once the app is loaded. Another call starts over, with what the app
    has configured by then.
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
    """Return whether to write colours to *stream*: not with NO_COLOR (no-color.org), else with
    FORCE_COLOR, else to a terminal.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


class StandardErrorHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, because test suites and daemons replace it.

    *logger_level* is the level of its logger, kept to detect whether the app changes it later.
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

    def flush(self) -> None:
        """Wait until the messages are written. Called by logging.shutdown()."""
        if sys.stderr is not None and (descriptor := text_descriptor(sys.stderr)) is not None:
            writer_to(descriptor).flush(FLUSH_SECONDS)


def _write(stream: TextIO, text: str) -> None:
    """Queue *text* for the descriptor of *stream*. If it has none, as in test suites, write to
    *stream* itself.
    """
    descriptor = text_descriptor(stream)
    if descriptor is None:
        stream.write(text)
        stream.flush()
        return
    stream.flush()  # other output comes first
    writer_to(descriptor).put(text.encode(stream.encoding, stream.errors or "strict"))


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if coloured(sys.stderr):
            level = record.levelname
            line = line.replace(f" {level} ", f" {_LEVEL_COLOURS.get(level, '')}{level}{_RESET} ", 1)
        return line


def _start_over(logger: logging.Logger) -> None:
    """Undo an earlier :func:`configure`, unless the app has changed it since."""
    for handler in logger.handlers[:]:
        if isinstance(handler, StandardErrorHandler):
            logger.removeHandler(handler)
            handler.close()
            logger.propagate = True
            if logger.level == handler.logger_level:
                logger.setLevel(logging.NOTSET)
    # By default, logging.config.dictConfig() disables every logger that it does not name. An app
    # that configures its own logging does not mean to silence its server.
    for name, member in list(logging.root.manager.loggerDict.items()):
        if isinstance(member, logging.Logger) and f"{name}.".startswith(f"{logger.name}."):
            member.disabled = False
