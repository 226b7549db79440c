"""Writes one line per request, to standard output or a file.

Rules:

- Logging never blocks: lines are queued (see ``line_writer``), and nothing is raised. A line that
  cannot be written is dropped. The first one is reported, and their number once writing works
  again.
- Lines never mix: each is short enough for a pipe to take it whole, even if other processes write
  there.
- Lines cannot be forged: what a client sent stays inside its field, and the field inside the line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import weakref
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TextIO

from ..errors import LogFileError
from .events import RequestDone
from .line_writer import ACCESS_BYTES, FLUSH_SECONDS, LineWriter
from .standard_streams import text_descriptor, writer_to

logger = logging.getLogger("flask_prodserve.access")

MAX_LINE = 4096
"""Longest line in bytes, with the newline: PIPE_BUF of Linux, up to which a pipe takes a write
whole (pipe(7)).

The rest of a longer line could follow another writer's newline, so that a client could forge a
line.
"""

_KEPT = {"remote_addr": 270, "method": 60, "target": 1800, "referer": 800, "user_agent": 500, "host": 255}
"""How many characters of each text are kept if a line is too long. Together they fit in a line.

If escaping makes that too long as well, a sixth of them fits, which is enough for any address and
the usual methods.
"""

_LONGEST_ESCAPE = len(r"\u00ff")

_UNSAFE = re.compile(r'[^\x20-\x7e]|["\\]')

# Windows has no O_CLOEXEC, and children do not inherit descriptors there.
_FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_FILE_MODE = 0o640  # it contains clients' addresses

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Not from strftime(), which follows the locale of the process."""


def open_access_log(destination: str, format: str) -> AccessLog | None:
    """Open the *destination* of ACCESS_LOG: ``stdout`` (or ``-``), ``stderr``, a file's path, or
    ``off`` (returns None).

    *format* is ``combined`` or ``json``. Raises LogFileError if the file or stream cannot be
    opened.
    """
    if destination == "off":
        return None
    compose = _FORMATS[format]
    if destination in ("stdout", "-", "stderr"):
        stream = sys.stderr if destination == "stderr" else sys.stdout
        if stream is None:
            raise LogFileError(
                f"ACCESS_LOG is {destination}, but this process has no such stream.",
                "Set ACCESS_LOG to a file, or to off.",
            )
        return AccessLog(_stream_writer(stream), compose)
    try:
        return FileAccessLog(destination, compose)
    except OSError as error:
        raise LogFileError(
            f"The access log '{destination}' cannot be opened: {error.strerror}.",
            "Set ACCESS_LOG to a file that this user may write to, in a directory that exists, or to stdout or off.",
        ) from error


class AccessLog:
    """Writes lines, composed by *compose*, with *writer*. Every method may be called from any
    thread.
    """

    def __init__(self, writer: LineWriter, compose: Callable[[RequestDone], str]) -> None:
        self._writer = writer
        self._compose = compose

    def log(self, event: RequestDone) -> None:
        """Queue the line for *event*, or drop it."""
        line = self._compose(event)
        if len(line) > MAX_LINE:
            line = self._compose(_shortened(event, 1))
            if len(line) > MAX_LINE:
                line = self._compose(_shortened(event, _LONGEST_ESCAPE))
        self._writer.put(line.encode("ascii"), ACCESS_BYTES)

    def flush(self) -> None:
        """Wait until all lines are written, for FLUSH_SECONDS at most."""
        self._writer.flush(FLUSH_SECONDS)

    def reopen(self) -> None:
        """Open the file again by its name, after a rotation moved it away. If that fails, keep the
        old one.

        May be called from a signal handler.
        """

    def close(self) -> None:
        """Close the file. Requests that end later are not logged."""


class FileAccessLog(AccessLog):
    """An access log in the file *path*, which is created if missing. Raises OSError if it cannot be
    opened.

    The descriptor keeps its number as long as a thread may write, and only the file behind it is
    replaced. Otherwise a thread about to write could find its number closed, or used by an
    unrelated file.
    """

    def __init__(self, path: str, compose: Callable[[RequestDone], str]) -> None:
        self._path = os.path.abspath(path)  # the same file after a chdir()
        self._descriptor = os.open(self._path, _FILE_FLAGS, _FILE_MODE)
        write = partial(os.write, self._descriptor)
        writer = LineWriter(write, "the access log", descriptor=self._descriptor, log=logger)
        super().__init__(writer, compose)
        # Closed with the writer, because its thread may be writing. Not at interpreter exit, where
        # lines are still written.
        weakref.finalize(writer, os.close, self._descriptor).atexit = False

    def reopen(self) -> None:
        self._writer.call(self._reopen)  # lines logged so far belong in the old file

    def close(self) -> None:
        self._writer.call(partial(self._exchange, os.devnull))
        self._writer.pause(FLUSH_SECONDS)

    def _reopen(self) -> None:
        try:
            self._exchange(self._path)
        except OSError as error:
            logger.warning("could not reopen the access log; still writing to the old file: %s", error)

    def _exchange(self, path: str) -> None:
        descriptor = os.open(path, _FILE_FLAGS, _FILE_MODE)
        try:
            os.dup2(descriptor, self._descriptor, inheritable=False)
        finally:
            os.close(descriptor)


def _stream_writer(stream: TextIO) -> LineWriter:
    descriptor = text_descriptor(stream)
    if descriptor is not None:
        return writer_to(descriptor)

    def write(line: bytes) -> int:
        stream.write(line.decode("ascii"))
        stream.flush()
        return len(line)

    return LineWriter(write, "the access log", queue=False, log=logger)


def _combined(event: RequestDone) -> str:
    """Write Apache's combined format, with times added."""
    request = f"{_word(event.method)} {_word(event.target)} {_word(event.protocol)}" if event.method else "-"
    return (
        f"{_word(event.remote_addr)} - - [{_local_second(int(event.finished_at))}] "
        f'"{request}" {event.status} {event.response_bytes} "{_text(event.referer)}" "{_text(event.user_agent)}" '
        f"app={event.app_seconds * 1000:.3f}ms total={event.total_seconds * 1000:.3f}ms\n"
    )


def _json(event: RequestDone) -> str:
    seconds, milliseconds = divmod(round(event.finished_at * 1000), 1000)
    fields = {
        "time": f"{_utc_second(seconds)}.{milliseconds:03d}Z",
        "remote_addr": event.remote_addr,
        "method": event.method,
        "target": event.target,
        "protocol": event.protocol,
        "status": event.status,
        "bytes": event.response_bytes,
        "referer": event.referer,
        "user_agent": event.user_agent,
        "host": event.host,
        "app_ms": round(event.app_seconds * 1000, 3),
        "total_ms": round(event.total_seconds * 1000, 3),
    }
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":")) + "\n"


_FORMATS: dict[str, Callable[[RequestDone], str]] = {"combined": _combined, "json": _json}


def _text(value: str) -> str:
    """Escape *value* for use between quotes, ``-`` for an empty one."""
    # Much cheaper than the expression.
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value or "-"
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", value)


def _word(value: str) -> str:
    """Escape *value* for use between blanks, ``-`` for an empty one."""
    return _text(value).replace(" ", r"\x20")


@lru_cache(maxsize=2)
def _local_second(second: int) -> str:
    """Format a time as Apache and nginx do: ``21/Nov/2026:03:54:49 +0000``."""
    local = time.localtime(second)
    return f"{local.tm_mday:02d}/{_MONTHS[local.tm_mon - 1]}/{time.strftime('%Y:%H:%M:%S %z', local)}"


@lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _shortened(event: RequestDone, divisor: int) -> RequestDone:
    """Shorten the texts of *event* to the lengths in _KEPT, divided by *divisor*. A shortened text
    ends in dots.
    """
    texts = {}
    for name, kept in _KEPT.items():
        text: str = getattr(event, name)
        longest = kept // divisor
        texts[name] = text if len(text) <= longest else text[: longest - 3] + "..."
    return event._replace(**texts)  # type: ignore[arg-type]  # these fields are texts
