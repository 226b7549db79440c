"""The settings: one table, resolved once, then frozen and read by all other parts."""

from __future__ import annotations

from .declaration import Setting
from .layers import Layer, Problem, app_config, arguments, command_line, environment, platform, unknown_setting
from .resolve import DEFAULT_ORIGIN, Resolved, SettingsError, resolve, without_supervisor
from .table import TABLE, Settings

__all__ = [
    "DEFAULT_ORIGIN",
    "TABLE",
    "Layer",
    "Problem",
    "Resolved",
    "Setting",
    "Settings",
    "SettingsError",
    "app_config",
    "arguments",
    "command_line",
    "environment",
    "platform",
    "resolve",
    "unknown_setting",
    "without_supervisor",
]
