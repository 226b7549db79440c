"""What an app itself says of its server: its config, and what it was attached to ``ProdServe`` with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..process.hooks import EXTENSION, Hooks
from ..settings import Layer, app_config, arguments
from ..settings.mounts import Mount

if TYPE_CHECKING:
    from flask import Flask


@dataclass(frozen=True, slots=True)
class State:
    """What the extension knows of one app: the keyword arguments it was attached with, what is to be run for it, and what its code has
    mounted beside it.
    """

    arguments: Mapping[str, object]
    hooks: Hooks
    mounts: Sequence[Mount]


def state_of(app: Flask) -> State | None:
    """What the extension knows of *app*; None where it is not attached."""
    state: State | None = app.extensions.get(EXTENSION)
    return state


def app_layers(app: Flask) -> list[Layer]:
    """What *app* itself says of the settings."""
    state = state_of(app)
    return [app_config(app.config), arguments(state.arguments if state else {}, "ProdServe", late=True)]
