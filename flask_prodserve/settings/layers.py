"""The places that settings come from, each turned into a :class:`Layer` of raw values with their origins.

Nothing here reads ``os.environ`` or an app: the caller passes in what there is. Values are not parsed here; names are checked,
because only the layer knows how its place spells them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .service_links import is_service_link
from .table import PREFIX, TABLE

ENVIRONMENT_PREFIXES = (PREFIX, "FLASK_" + PREFIX)
"""Where both spellings are set, the first wins. The second is how ``Config.from_prefixed_env`` spells it."""

PLATFORM_VARIABLES = {"PORT": "PORT", "WEB_CONCURRENCY": "WORKERS", "FORWARDED_ALLOW_IPS": "TRUSTED_PROXIES"}
"""Variables that platforms and other servers have made known, and the settings they mean."""

_PASSED_SOCKETS = "LISTEN_FDS"
"""Set where systemd has passed sockets (sd_listen_fds(3)), which are to be used unless somebody says where to listen."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong or worth a word, with the likely fix."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it was found, and where: the origin is a text that a person can act on."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Layer:
    """The raw values that one place gives, by setting name, and the names in it that are no settings.

    A place is *late* where it can be read only once the app is loaded: the app itself. *remarks* do not stop the server.
    """

    values: Mapping[str, Raw]
    unknown: tuple[Problem, ...] = ()
    late: bool = False
    remarks: tuple[Problem, ...] = ()


def command_line(values: Mapping[str, object]) -> Layer:
    """*values* by setting name, as the options of ``flask serve`` gave them; ``None`` and ``()`` are options not given."""
    given = {name: value for name, value in values.items() if value is not None and value != ()}
    return Layer({name: Raw(value, TABLE[name].option) for name, value in given.items()})


def arguments(values: Mapping[str, object], call: str, *, late: bool = False) -> Layer:
    """Keyword arguments of a Python *call* such as ``serve``, in lower case; ``None`` is an argument not given.

    *late* are those of ``ProdServe(app, ...)``, which stand in the app.
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
    """``PRODSERVE_*`` and ``FLASK_PRODSERVE_*`` of *place*. An empty variable counts as not set, as in Flask's own options. Service links
    of Kubernetes are left out, with a remark.
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
    """The variables of platforms and of other servers in *place*."""
    values = {
        name: Raw(environ[variable], f"{variable} in {place}")
        for variable, name in PLATFORM_VARIABLES.items()
        if environ.get(variable)
    }
    if environ.get(_PASSED_SOCKETS) and "PORT" not in values:
        values["BIND"] = Raw("systemd", f"{_PASSED_SOCKETS} in {place}")
    return Layer(values)


def app_config(config: Mapping[str, Any]) -> Layer:
    """``PRODSERVE_*`` keys of ``app.config``, and what Flask's own keys say of the same. ``None`` counts as not set."""
    known, unknown = {}, []
    names = {row.key: name for name, row in TABLE.items()}
    if config.get("MAX_CONTENT_LENGTH") is not None:
        known["MAX_BODY_SIZE"] = Raw(config["MAX_CONTENT_LENGTH"], 'app.config["MAX_CONTENT_LENGTH"]')
    if (age := config.get("SEND_FILE_MAX_AGE_DEFAULT")) is not None:
        seconds = age.total_seconds() if isinstance(age, timedelta) else age
        if isinstance(seconds, (int, float)):
            seconds = max(0, seconds)  # below 0 it means to Flask what 0 does
        known["STATIC_MAX_AGE"] = Raw(seconds, 'app.config["SEND_FILE_MAX_AGE_DEFAULT"]')
    for key, value in config.items():
        if not key.startswith(PREFIX):
            continue
        origin = f'app.config["{key}"]'
        if is_service_link(key.removeprefix(PREFIX), value):
            continue  # from Config.from_prefixed_env; the environment's remark names it
        if key not in names:
            unknown.append(unknown_setting(origin, key.removeprefix(PREFIX), PREFIX.__add__))
        elif value is not None:
            known[names[key]] = Raw(value, origin)
    return Layer(known, tuple(unknown), late=True)


def unknown_setting(origin: str, name: str, spell: Callable[[str], str] = str) -> Problem:
    """What to say of a *name* that is none. It comes without the prefix, which would make any two alike; *spell* turns a setting's name
    into the place's spelling.
    """
    close = difflib.get_close_matches(name.upper(), list(TABLE), n=1, cutoff=0.6)
    # Not `flask serve config`: with a setting that is wrong it says no more than this.
    hint = f"Did you mean {spell(close[0])}?" if close else "`flask serve --help` lists all settings."
    return Problem(f"{origin} is not a setting.", hint)
