"""One exception tree for everything that stops the server from starting or running, and one
exception raised in apps.

Every error says what was wrong and the likely fix, and knows the exit code of the process (see
docs/reference/exit-codes). Nothing here exits: only the command line does.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the process. A process killed by signal *n* ends with 128 + *n*."""

    STOPPED = 0
    FAILURE = 1
    USAGE = 2
    BOOT = 3
    APP = 4


class ProdServeError(Exception):
    """Base of all errors that flask-prodserve raises on purpose.

    *what* is one sentence about what was wrong; *hint* is one about what to do. ``str(error)`` has
    both, each on a line.
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


class BindError(ProdServeError):
    """A listener could not be opened: its address is in use, not allowed, or not on this machine.

    *in_use* is the address as written, if another program uses it.
    """

    def __init__(self, what: str, hint: str = "", *, in_use: str | None = None) -> None:
        super().__init__(what, hint)
        self.in_use = in_use


class TLSError(ProdServeError):
    """A certificate or key could not be read, or the two do not match."""

    exit_code = ExitCode.USAGE


class LogFileError(ProdServeError):
    """A log cannot be written: its file cannot be opened, or the process has no such stream."""

    exit_code = ExitCode.USAGE


class PrivilegeError(ProdServeError):
    """The account in USER or GROUP does not exist, or this process may not switch to it."""

    exit_code = ExitCode.USAGE


class MissingExtraError(ProdServeError):
    """A setting needs an extra of the package that is not installed."""

    exit_code = ExitCode.USAGE


class DebugModeError(ProdServeError):
    """The app is in debug mode, which must not be served to others."""

    exit_code = ExitCode.USAGE


class AppLoadError(ProdServeError):
    """The app could not be found, or failed while it was imported."""

    exit_code = ExitCode.APP


class RequestTimedOut(BaseException):
    """Raised inside a view that exceeds REQUEST_TIMEOUT, if REQUEST_TIMEOUT_RAISE is on. The client
    already got 504.

    Not an Exception, so that ``except Exception`` does not catch it. Clean up in ``finally``.
    """
