"""Refuses settings from other accounts for what root does.

A supervisor that was started as root with USER opens files and addresses with root's rights. These
settings must come from the command line, from the environment that the process was started with, or
from files that only root can write. If USER can write the app or a ``.env``, their values are
refused: they would give root's rights to USER.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .declaration import Setting
from .layers import Problem
from .resolve import Resolved, SettingsError
from .table import TABLE, Settings

_GROUPS = frozenset({"bind", "process", "tls"})

FOR_ROOT = tuple(name for name, row in TABLE.items() if row.group in _GROUPS or name == "CONTROL_SOCKET")
"""The settings that the supervisor uses as root."""


def refuse_untrusted(early: Resolved, untrusted: Mapping[str, str]) -> None:
    """Refuse settings of *early* from *untrusted* origins, which map to the reason why root cannot
    trust them.

    Raises SettingsError.
    """
    _raise(
        Problem(
            f"{origin} is refused, because root uses this setting: {untrusted[origin]}.",
            f"Put it on the command line: {_option(row, early.settings.value(row))}. "
            "Or give the file and its directories to root: chown root, chmod go-w.",
        )
        for row in map(TABLE.__getitem__, FOR_ROOT)
        if (origin := early.origins[row.name]) in untrusted
    )


def refuse_from_app(early: Settings, settings: Settings) -> None:
    """Refuse *settings* of an app or worker that differ from *early*, the settings known without
    it.

    Compares only values, because a worker can claim any origin. Raises SettingsError.
    """
    _raise(
        Problem(
            f'{row.name} is {_shown(row, value)} in the app (app.config["{row.key}"] or ProdServe(app, {row.argument}=...)), '
            "but a server that was started as root with USER does not accept it from there.",
            f"Put it on the command line: {_option(row, value)}. Or remove it from the app.",
        )
        for row in map(TABLE.__getitem__, FOR_ROOT)
        if (value := settings.value(row)) != early.value(row)
    )


def _raise(problems: Any) -> None:
    if found := list(problems):
        raise SettingsError(found)


def _shown(row: Setting, value: Any) -> str:
    text = row.write(value)
    return text if text.isprintable() else repr(text)


def _option(row: Setting, value: Any) -> str:
    return f"{row.option} {shlex.quote(_shown(row, value))}"
