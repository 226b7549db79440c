"""The preflight check of an upgrade: a new supervisor that does not start would take the whole
server down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from ..clock import Deadline
from ..net.systemd import HIDDEN
from .environment import PREFLIGHT
from .privileges import Identity


@dataclass(frozen=True, slots=True)
class StartCommand:
    """How this server was started, so that it can be started again.

    *environ* is the environment that this process started with.
    """

    program: str
    arguments: tuple[str, ...]
    folder: str
    environ: Mapping[str, str]


class PreflightCheck:
    """Runs ``flask serve ... config``: the new interpreter loads the new code and resolves the
    settings, and serves nothing.

    It runs as *identity*, the account of the workers, for at most *seconds*.
    """

    def __init__(self, command: StartCommand, identity: Identity | None, seconds: float) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # result() closes it
        self._seconds = seconds
        self.deadline = Deadline(seconds)
        environ = {name: value for name, value in command.environ.items() if name not in HIDDEN}
        user: dict[str, Any] = {}
        if identity is not None and os.geteuid() == 0:
            if identity.uid != 0:
                environ[PREFLIGHT] = "1"
            user = {"user": identity.uid, "group": identity.gid, "extra_groups": list(identity.groups)}
        self._process = subprocess.Popen(  # noqa: S603  # the command that started this server
            [*command.arguments, "config"],
            executable=command.program,
            cwd=command.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            **user,
        )
        self.pid = self._process.pid

    def kill(self) -> None:
        """Kill the process; the supervisor reaps it."""
        # Popen.kill() would reap a process that has just ended, and the supervisor would never
        # learn of its end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def result(self, code: int) -> str:
        """Return the error, ``""`` after a success.

        *code* is the exit code of the process, which has been reaped.
        """
        self._process.returncode = code
        with self._errors as errors:
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip()
        if code == 0:
            return ""
        if self.deadline.passed():
            return f"the preflight check took longer than BOOT_TIMEOUT ({self._seconds:g}s)"
        return f"the preflight check failed with exit code {code}: {text or 'it wrote no error'}"
