"""Turns each place that settings come from into a :class:`Layer` of raw values with their origins.

Nothing here reads ``os.environ`` or an app: the caller passes them in. Values are not parsed here.
Names are checked, because only the layer knows how its place spells them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .declaration import PREFIX
from .service_links import is_service_link
from .table import TABLE

ENVIRONMENT_PREFIXES = (PREFIX, "FLASK_" + PREFIX)
"""If both spellings are set, the first wins. ``Config.from_prefixed_env`` uses the second."""

PLATFORM_VARIABLES = {"PORT": "PORT", "WEB_CONCURRENCY": "WORKERS", "FORWARDED_ALLOW_IPS": "TRUSTED_PROXIES"}
"""Common variables of platforms and other servers, and the settings they stand for."""

_PASSED_SOCKETS = "LISTEN_FDS"
"""Set if systemd passed sockets (sd_listen_fds(3)). They are used unless an address is given."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning, with the likely fix."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as found, and its origin, a text that a person can act on."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Layer:
    """The raw values from one place by setting name, and the *unknown* names in it.

    A *late* place can be read only once the app is loaded: the app itself. *remarks* do not stop
    the server.
    """

    values: Mapping[str, Raw]
    unknown: tuple[Problem, ...] = ()
    late: bool = False
    remarks: tuple[Problem, ...] = ()


def command_line(values: Mapping[str, object]) -> Layer:
    """Make the layer of the options of ``flask serve``, by setting name; ``None`` and ``()`` are
    options not given.
    """
    given = {name: value for name, value in values.items() if value is not None and value != ()}
    return Layer({name: Raw(value, TABLE[name].option) for name, value in given.items()})


def arguments(values: Mapping[str, object], call: str, *, late: bool = False) -> Layer:
    """Make the layer of the keyword arguments of a Python *call* such as ``serve``; ``None`` is an
    argument not given.

    *late*: for ``ProdServe(app, ...)``, which is a part of the app.
    """
    known, unknown = {}, []
    names = {row.argument: name for name, row in TABLE.items()}
    for argument, value in values.items():
        origin = f"{call}({argument}=...)"
        if argument not in names:
            unknown.append(unknown_setting(origin, argument, str.lower))
        elif value is not None:
            known[names[argument]] = Raw(value, origin)
    return Layer(known, tuple(unknown), late)


def environment(environ: Mapping[str, str], place: str = "the environment") -> Layer:
    """Make the layer of ``PRODSERVE_*`` and ``FLASK_PRODSERVE_*`` in *environ*, which errors call
    *place*.

    An empty variable counts as not set, as in Flask's own options. Kubernetes' service links are
    ignored, with a remark.
    """
    known: dict[str, Raw] = {}
    unknown = []
    links = []
    for prefix in ENVIRONMENT_PREFIXES:
        names = {prefix + name: name for name in TABLE}
        for variable in sorted(environ):
            if not variable.startswith(prefix) or not environ[variable]:
                continue
            origin = f"{variable} in {place}"
            if is_service_link(variable.removeprefix(prefix), environ[variable]):
                links.append(variable)
            elif variable not in names:
                unknown.append(unknown_setting(origin, variable.removeprefix(prefix), prefix.__add__))
            else:
                known.setdefault(names[variable], Raw(environ[variable], origin))
    return Layer(known, tuple(unknown), remarks=(_service_links(links),) if links else ())


def _service_links(variables: list[str]) -> Problem:
    others = f" and {len(variables) - 1} more" if len(variables) > 1 else ""
    return Problem(
        f"Ignored {variables[0]}{others} in the environment: Kubernetes sets them for a Service whose name begins with "
        "'prodserve' or 'flask-prodserve'.",
        "Set 'enableServiceLinks: false' in the pod's spec, or rename the Service.",
    )


def platform(environ: Mapping[str, str], place: str = "the environment") -> Layer:
    """Make the layer of variables of platforms and other servers in *environ*, which errors call
    *place*.
    """
    values = {
        name: Raw(environ[variable], f"{variable} in {place}")
        for variable, name in PLATFORM_VARIABLES.items()
        if environ.get(variable)
    }
    if environ.get(_PASSED_SOCKETS) and "PORT" not in values:
        values["BIND"] = Raw("systemd", f"{_PASSED_SOCKETS} in {place}")
    return Layer(values)


def app_config(config: Mapping[str, Any]) -> Layer:
    """Make the layer of ``PRODSERVE_*`` keys in ``app.config``, and of Flask's keys for the same.
    ``None`` counts as not set.
    """
    known, unknown = {}, []
    names = {row.key: name for name, row in TABLE.items()}
    if config.get("MAX_CONTENT_LENGTH") is not None:
        known["MAX_BODY_SIZE"] = Raw(config["MAX_CONTENT_LENGTH"], 'app.config["MAX_CONTENT_LENGTH"]')
    if (age := config.get("SEND_FILE_MAX_AGE_DEFAULT")) is not None:
        seconds = age.total_seconds() if isinstance(age, timedelta) else age
        if isinstance(seconds, (int, float)):
            seconds = max(0, seconds)  # Flask treats negative values as 0
        known["STATIC_MAX_AGE"] = Raw(seconds, 'app.config["SEND_FILE_MAX_AGE_DEFAULT"]')
    for key, value in config.items():
        if not key.startswith(PREFIX):
            continue
        origin = f'app.config["{key}"]'
        if is_service_link(key.removeprefix(PREFIX), value):
            continue  # from Config.from_prefixed_env; the environment's layer reports it
        if key not in names:
            unknown.append(unknown_setting(origin, key.removeprefix(PREFIX), PREFIX.__add__))
        elif value is not None:
            known[names[key]] = Raw(value, origin)
    return Layer(known, tuple(unknown), late=True)


def unknown_setting(origin: str, name: str, spell: Callable[[str], str] = str) -> Problem:
    """Report an unknown *name*, given without the prefix, which would make any two names similar.

    *spell* turns a setting's name into the spelling of the place.
    """
    close = difflib.get_close_matches(name.upper(), list(TABLE), n=1, cutoff=0.6)
    # Not `flask serve config`, which fails with the same error.
    hint = f"Did you mean {spell(close[0])}?" if close else "`flask serve --help` lists all settings."
    return Problem(f"{origin} is not a setting.", hint)
