"""Which settings decide what root does, and the refusal of values that other accounts can change.

A supervisor that was started as root with USER opens files and addresses with root's rights. Those settings come from the command line,
the environment that the process was started with, or files that only root can write. An app and a ``.env`` that USER can write are
refused: they would give root's rights to USER.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .layers import Problem
from .resolve import Resolved, SettingsError
from .table import TABLE, Setting, Settings

_GROUPS = frozenset({"bind", "process", "tls"})

FOR_ROOT = tuple(name for name, row in TABLE.items() if row.group in _GROUPS or name == "CONTROL_SOCKET")
"""The settings that the supervisor acts on as root."""


def refuse_untrusted(early: Resolved, untrusted: Mapping[str, str]) -> None:
    """Refuse settings of *early* whose origin is in *untrusted*, which maps origins to the reason why root cannot trust them.

    Raises SettingsError.
    """
    _raise(
        Problem(
            f"{origin} is for root to decide: {untrusted[origin]}.",
            f"Put it on the command line: {_option(row, early.settings.value(row))}. "
            "Or give the file and its directories to root: chown root, chmod go-w.",
        )
        for row in map(TABLE.__getitem__, FOR_ROOT)
        if (origin := early.origins[row.name]) in untrusted
    )


def refuse_from_app(early: Settings, settings: Settings) -> None:
    """Refuse *settings* of an app or worker that differ from *early*, the settings that are known without it.

    Only values are compared: a worker can claim any origin. Raises SettingsError.
    """
    _raise(
        Problem(
            f'{row.name} is {_shown(row, value)} in the app (app.config["{row.key}"] or ProdServe(app, {row.argument}=...)), '
            "and a server that was started as root with USER does not take it from there.",
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
