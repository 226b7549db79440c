"""Merges raw values from several places into one frozen :class:`~.table.Settings`, and keeps each
value's origin.

The order, strongest first: command line (or the arguments of the Python call) > ``PRODSERVE_*`` in
the environment > the platform's variables in the environment > ``app.config`` > ``ProdServe(app,
...)`` arguments > default.

Rules: all problems in all layers are found before anything is refused, also in values that a
stronger layer overrides. Values are never clamped. Rules across settings are in ``rules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ExitCode, ProdServeError
from . import rules
from .kinds import ItemError
from .layers import Layer, Problem
from .table import TABLE, Settings

DEFAULT_ORIGIN = "default"


class SettingsError(ProdServeError):
    """Everything that is wrong with the settings, at once."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        count = len(self.problems)
        title = "One setting is wrong:" if count == 1 else f"{count} settings are wrong:"
        lines = [line for problem in self.problems for line in (f"  - {problem.what}", f"    {problem.hint}")]
        super().__init__(title, "\n".join(lines))

    def within(self, where: str) -> SettingsError:
        """Return the same problems, prefixed with *where*."""
        return SettingsError(Problem(f"{where}: {problem.what}", problem.hint) for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, the origin of each, and warnings."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[Problem, ...] = ()


def resolve(layers: Iterable[Layer], *, complete: bool = True) -> Resolved:
    """Merge *layers*, strongest first. If they are not *complete*, contradictions are not reported:
    another layer may resolve them.

    Raises :class:`SettingsError` with all problems of all layers.
    """
    layers = list(layers)
    problems: list[Problem] = []
    unread: set[str] = set()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        problems.extend(layer.unknown)
        problems.extend(rules.within_layer(layer))
        stronger = frozenset(values)
        for name, raw in layer.values.items():
            try:
                value = TABLE[name].declaration.kind.parse(raw.value)
            except ValueError as error:
                what = f"{raw.origin} {_found(raw.value, error)}, which is not valid."
                problems.append(Problem(what, f"{name} takes {error}."))
                unread.add(name)
                continue
            if name not in stronger and not rules.overruled(name, stronger):
                values[name], origins[name] = value, raw.origin
    for name, raw in rules.implied(origins).items():
        values[name], origins[name] = TABLE[name].declaration.kind.parse(raw.value), raw.origin
    settings = Settings.of(values)
    all_origins = {name: origins.get(name, DEFAULT_ORIGIN) for name in TABLE}
    if complete:
        problems.extend(rules.too_late(layers))
        problems.extend(rules.contradictions(settings, all_origins, unread))
    if problems:
        raise SettingsError(problems)
    remarks = [remark for layer in layers for remark in layer.remarks]
    return Resolved(settings, all_origins, (*remarks, *rules.remarks(settings, origins)))


def without_supervisor(resolved: Resolved, *, app_is_loaded: bool) -> Resolved:
    """Return *resolved* for a server of one process, with warnings for settings that have no effect
    there.

    *app_is_loaded*: the app was loaded before the settings. Raises :class:`SettingsError` for
    settings that must not be ignored.
    """
    settings = resolved.settings
    origins = {name: origin for name, origin in resolved.origins.items() if origin != DEFAULT_ORIGIN}
    problems = list(rules.refused_without_supervisor(settings, origins, app_is_loaded=app_is_loaded))
    if problems:
        raise SettingsError(problems)
    return replace(resolved, warnings=(*resolved.warnings, *rules.remarks_without_supervisor(settings, origins)))


def _found(value: object, error: ValueError) -> str:
    if isinstance(error, ItemError) and value not in (error.item, (error.item,)):
        return f"contains {_shown(error.item)}"
    return f"is {_shown(value)}"


def _shown(value: object) -> str:
    # The values of a repeatable option are a tuple; show them as typed.
    text = ", ".join(map(repr, value)) if value and isinstance(value, tuple) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
