"""One exception tree for everything that stops the server from starting or running, and the one exception that is raised in an app.

Every error says what was wrong and the likely fix, and knows the exit code of the process (see docs/reference/exit-codes).
Nothing in here exits: the command line does.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process ends with; a process killed by signal *n* ends with 128 + *n*."""

    STOPPED = 0
    FAILURE = 1
    USAGE = 2
    BOOT = 3
    APP = 4


class ProdServeError(Exception):
    """Base of all errors that flask-prodserve raises on purpose.

    *what* is one sentence about what was wrong; *hint* one about what to do. ``str(error)`` is both, on a line each.
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


class BindError(ProdServeError):
    """A listener could not be opened: the address is in use, not allowed, or not of this machine.

    *in_use* is the address, as it was written, if another program has it.
    """

    def __init__(self, what: str, hint: str = "", *, in_use: str | None = None) -> None:
        super().__init__(what, hint)
        self.in_use = in_use


class TLSError(ProdServeError):
    """A certificate or key could not be read, or the two do not belong together."""

    exit_code = ExitCode.USAGE


class LogFileError(ProdServeError):
    """There is nothing to write a log to: the file cannot be opened, or the process has no such stream."""

    exit_code = ExitCode.USAGE


class PrivilegeError(ProdServeError):
    """The account in USER or GROUP is not there, or this process may not become it."""

    exit_code = ExitCode.USAGE


class MissingExtraError(ProdServeError):
    """A setting asks for what an extra of the package brings, which is not installed."""

    exit_code = ExitCode.USAGE


class DebugModeError(ProdServeError):
    """The app is in debug mode, which must not be served to others."""

    exit_code = ExitCode.USAGE


class AppLoadError(ProdServeError):
    """The app could not be found or failed while it was imported."""

    exit_code = ExitCode.APP


class RequestTimedOut(BaseException):
    """Raised inside a view that has passed REQUEST_TIMEOUT, where REQUEST_TIMEOUT_RAISE is on. The client has had its 504.

    No Exception, so that ``except Exception`` does not swallow it. Clean up in ``finally``.
    """
