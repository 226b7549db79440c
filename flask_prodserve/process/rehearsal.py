"""The trial start before an upgrade: a supervisor that is replaced by one that does not start would take everything along."""

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
from .environment import TRIAL
from .privileges import Identity


@dataclass(frozen=True, slots=True)
class Command:
    """How this server was started, to start it again.

    *environ* is the environment that this process was started with.
    """

    program: str
    arguments: tuple[str, ...]
    folder: str
    environ: Mapping[str, str]


class Rehearsal:
    """``flask serve ... config``: the new interpreter with the new code loads the app and resolves the settings, as the user that workers
    run under, and serves nothing.
    """

    def __init__(self, command: Command, identity: Identity | None, seconds: float) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # result() closes it
        self._seconds = seconds
        self.deadline = Deadline(seconds)
        environ = {name: value for name, value in command.environ.items() if name not in HIDDEN}
        user: dict[str, Any] = {}
        if identity is not None and os.geteuid() == 0:
            if identity.uid != 0:
                environ[TRIAL] = "1"
            user = {"user": identity.uid, "group": identity.gid, "extra_groups": list(identity.groups)}
        self._process = subprocess.Popen(  # noqa: S603  # what the person who started this server has written
            [*command.arguments, "config"],
            executable=command.program,
            cwd=command.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            **user,
        )
        self.pid = self._process.pid

    def kill(self) -> None:
        """End it, since it takes too long."""
        # Popen.kill() would reap a process that has just ended, and the supervisor would never learn of that end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def result(self, code: int) -> str:
        """Why it failed, ``""`` if it did not. *code* is what the process, which has been reaped, has ended with."""
        self._process.returncode = code
        with self._said as said:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
        if code == 0:
            return ""
        if self.deadline.passed():
            return f"its trial start took longer than BOOT_TIMEOUT ({self._seconds:g}s)"
        return f"its trial start failed with exit code {code}: {text or 'it said nothing'}"
