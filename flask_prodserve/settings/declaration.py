"""How a setting is declared: a field of a group, with its kind, its default, and the reason for the
default.

A setting's name in capitals is its name everywhere: ``PRODSERVE_<NAME>`` in ``app.config`` and in
the environment, ``--name`` on the command line, ``name=`` in Python. Defaults are written as people
write them and go through the same parser as all other values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .kinds import Kind

PREFIX = "PRODSERVE_"


@dataclass(frozen=True, slots=True)
class Declaration:
    """The declaration of a setting. *default* is raw, ``None`` for a setting that is unset by
    default.

    An *early* setting is used before the app is loaded, so the app cannot give it.
    """

    kind: Kind
    default: str | None
    summary: str
    why: str
    short: str | None
    unset: str
    on_command_line: bool
    early: bool
    option: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table under its name, such as ``MAX_BODY_SIZE``."""

    name: str
    group: str
    declaration: Declaration

    @property
    def key(self) -> str:
        """The name in ``app.config`` and in the environment."""
        return PREFIX + self.name

    @property
    def argument(self) -> str:
        """The keyword of ``ProdServe(app, ...)`` and ``serve(app, ...)``."""
        return self.name.lower()

    @property
    def option(self) -> str:
        """The option of ``flask serve``."""
        return self.declaration.option or "--" + self.name.lower().replace("_", "-")

    def write(self, value: Any) -> str:
        """Write *value* as a person would; for an unset one, what that means."""
        return self.declaration.unset if value is None else self.declaration.kind.write(value)


def setting(
    kind: Kind,
    default: str | None,
    summary: str,
    *,
    why: str,
    short: str | None = None,
    unset: str = "unset",
    on_command_line: bool = True,
    early: bool = False,
    option: str | None = None,
) -> Any:
    """Declare a field of a group as a setting. *option* is its option, if that differs from its
    name.
    """
    declaration = Declaration(kind, default, summary, why, short, unset, on_command_line, early, option)
    return field(
        default=None if default is None else kind.parse(default),
        metadata={"declaration": declaration},
    )
