"""The environment of this process: what it started with, and what Flask's CLI has added from
``.env`` files.

Rules:

- The supervisor keeps the environment that it started with: what it executes, where it creates
  files, and what the C library reads must not come from a ``.env`` file, which the app's account
  may be able to write.
- The app gets both. A new supervisor is executed with the initial environment and loads ``.env``
  again.
- Flask's CLI loads ``.env`` before it imports this package, so ``os.environ`` is too late. Linux
  keeps the initial environment in ``/proc/self/environ``, and ``putenv`` does not change it. Other
  systems do not: there it is known only without python-dotenv.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import PrivilegeError
from ..net.root_only import open_to_others
from ..net.systemd import HIDDEN
from ..settings import Layer, environment, platform
from .handover import VARIABLE

PREFLIGHT = "_FLASK_SERVE_TRIAL"
"""Set for the preflight check of an upgrade if the supervisor runs as root with USER."""

_DOTENV = "dotenv"


@dataclass(frozen=True, slots=True)
class Environment:
    """*started* is what the process started with, *app* what the app gets.

    *known*: whether *started* is certain.
    """

    started: dict[str, str]
    app: dict[str, str]
    known: bool = True

    @classmethod
    def of_this_process(cls) -> Environment:
        """Read the environment. Call this before anything changes ``os.environ`` on purpose."""
        private = {*HIDDEN, VARIABLE, PREFLIGHT}
        app = {name: value for name, value in os.environ.items() if name not in private}
        try:
            return cls(_parse(Path("/proc/self/environ").read_bytes()), app)
        except OSError:
            return cls(dict(os.environ), app, known=_DOTENV not in sys.modules)

    @property
    def added(self) -> dict[str, str]:
        """What was added since the process started."""
        return {name: value for name, value in self.app.items() if self.started.get(name) != value}

    def layers(self) -> list[Layer]:
        """Return the layers of settings that it contains, strongest first."""
        started = dict(self.started)
        if started.get("LISTEN_PID") != str(os.getpid()):
            started.pop("LISTEN_FDS", None)  # sockets for another process (sd_listen_fds(3))
        place = self._place
        return [environment(started), environment(self.added, place), platform(started), platform(self.added, place)]

    @property
    def _place(self) -> str:
        return "a .env file" if _DOTENV in sys.modules else "the environment"

    def untrusted(self) -> dict[str, str]:
        """Return the origins in :meth:`layers` that root cannot trust, each with the reason.

        An added variable is trusted if a file that only root can write gives it the same value:
        then it does not matter from which file Flask has read it.

        Raises PrivilegeError if the initial environment is not known.
        """
        if not self.known:
            raise PrivilegeError(
                "USER is set and python-dotenv is installed, but this system does not tell which variables come from .env files.",
                "Uninstall python-dotenv, or start the server as that user instead of root.",
            )
        trusted: dict[str, str] = {}
        reasons = []
        for path in self._files():
            reason = open_to_others(path)
            if reason is None:
                trusted = {**_read(path), **trusted}
            else:
                reasons.append(f"others than root can change {path} ({reason})")
        why = ", ".join(reasons) or "no file that only root can write has this value"
        place = self._place
        return {f"{name} in {place}": why for name, value in self.added.items() if trusted.get(name) != value}

    def _files(self) -> Iterator[str]:
        """Yield the files that Flask's CLI loads (``flask.cli.load_dotenv``), strongest first."""
        arguments = sys.orig_argv
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
            if argument in ("-e", "--env-file"):
                yield os.path.abspath(following)
            elif argument.startswith("--env-file="):
                yield os.path.abspath(argument.partition("=")[2])
        if "FLASK_ENV_FILE" in self.started:
            yield os.path.abspath(self.started["FLASK_ENV_FILE"])
        if _DOTENV in sys.modules:
            from dotenv import find_dotenv

            yield from filter(None, (find_dotenv(name, usecwd=True) for name in (".env", ".flaskenv")))

    def keep_for_supervisor(self) -> None:
        """Set ``os.environ`` to what the process started with."""
        _replace(self.started)

    def give_to_app(self) -> None:
        """Set ``os.environ`` to what the app gets."""
        _replace(self.app)


def _parse(block: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in block.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:
            # The first one counts, as in CPython.
            found.setdefault(os.fsdecode(name), os.fsdecode(value))
    return found


def _read(path: str) -> dict[str, str]:
    """Return the variables in the file *path*; none if it cannot be read."""
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, encoding="utf-8")
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in values.items() if value is not None}


def _replace(environ: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)
