"""What one app says about its server: its config, and the state that ``ProdServe`` keeps for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..settings import Layer, app_config, arguments
from ..settings.mounts import Mount
from .hooks import EXTENSION, Hooks

if TYPE_CHECKING:
    from flask import Flask


@dataclass(frozen=True, slots=True)
class AppState:
    """What the extension keeps for one app: the arguments of ``ProdServe``, its hooks, and the
    mounts that code added.
    """

    arguments: Mapping[str, object]
    hooks: Hooks
    mounts: Sequence[Mount]


def state_of(app: Flask) -> AppState | None:
    """Return the state of *app*, or None if no ``ProdServe`` is attached to it."""
    state: AppState | None = app.extensions.get(EXTENSION)
    return state


def app_layers(app: Flask) -> list[Layer]:
    """Return the settings that *app* itself gives, strongest first."""
    state = state_of(app)
    return [app_config(app.config), arguments(state.arguments if state else {}, "ProdServe", late=True)]
