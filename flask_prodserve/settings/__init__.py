"""The settings: one table, resolved once, frozen, and read by everybody else."""

from __future__ import annotations

from .layers import Layer, Problem, app_config, arguments, command_line, environment, platform, unknown_setting
from .resolve import DEFAULT_ORIGIN, Resolved, SettingsError, resolve, without_supervisor
from .table import TABLE, Setting, Settings

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
