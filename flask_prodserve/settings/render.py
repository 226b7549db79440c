"""Settings as text: for ``flask serve config``, its ``--explain``, and the reference in the documentation.

Pure: settings in, text out. All of it comes from the table, so that nothing can go out of step.
"""

from __future__ import annotations

import json
import shlex
from itertools import groupby

from .resolve import DEFAULT_ORIGIN, Resolved
from .table import GROUP_TITLES, TABLE, Setting

_REFERENCE_HEAD = """\
# Settings

<!-- Generated from flask_prodserve/settings/table.py by `make settings`; a test fails when this page is stale. -->

Every setting has one name everywhere: `PRODSERVE_THREADS` in `app.config` and in the environment (`FLASK_PRODSERVE_THREADS` is
accepted too), `--threads` on the command line of `flask serve`, `threads=` in `ProdServe(app, ...)` and `serve(app, ...)`.

Where several places give a value, the strongest wins: **command line** (or the arguments of `serve()` and `run()`) > **`PRODSERVE_*`
in the environment** > **the platform's variables in the environment** (`PORT`, `WEB_CONCURRENCY`, `FORWARDED_ALLOW_IPS`) >
**`app.config`** > **`ProdServe(app, ...)` arguments** > **default**. `flask serve config` shows what is in force and where it came
from. An unknown `PRODSERVE_*` name or a bad value in any place is refused at start, and all problems are listed at once.

Some settings are needed before the app is loaded: those come from the command line and the environment only.

Sizes are written `8190`, `32KiB`, `10MB`; durations `30s`, `500ms`, `5m`; lists with commas.

A duration may be at most `24d` (STATIC_MAX_AGE: `2147483647s`), a size at most `1048576GiB` (1 PiB), and any other number at most
`2147483647`, if a setting has no lower bound of its own (THREADS and MAX_STREAMS: 10000, WORKERS: 1000). Larger ones are refused.
"""


def as_table(resolved: Resolved) -> str:
    """Name, value and origin in columns."""
    rows = [(row.name, row.write(resolved.settings.value(row)), resolved.origins[row.name]) for row in TABLE.values()]
    widths = [min(max(len(row[column]) for row in rows), 40) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows)


def as_json(resolved: Resolved) -> str:
    """An object by setting name; a setting that is unset is null."""
    return json.dumps(
        {row.name: {"value": _written(resolved, row), "origin": resolved.origins[row.name]} for row in TABLE.values()},
        indent=2,
    )


def as_environment(resolved: Resolved) -> str:
    """Lines for a shell or a .env file. What is at its default is a comment, so that the lines pin only what was decided."""
    lines = []
    for row in TABLE.values():
        value = _written(resolved, row)
        mark = "# " if resolved.origins[row.name] == DEFAULT_ORIGIN else ""
        lines.append(f"{mark}{row.key}={'' if value is None else shlex.quote(value)}")
    return "\n".join(lines)


def explain(row: Setting, resolved: Resolved) -> str:
    """All there is to say of one setting."""
    told = row.declaration
    default = told.unset if told.default is None else told.default
    lines = [
        f"{row.name} = {row.write(resolved.settings.value(row))}  ({resolved.origins[row.name]})",
        "",
        told.summary,
        told.why,
        "",
        f"Default:      {default}",
        f"Environment:  {row.key}",
    ]
    if not told.early:
        lines += [f"app.config:   {row.key}", f"Python:       ProdServe(app, {row.argument}=...)"]
    if told.on_command_line:
        lines.append(f"Command line: {option_names(row)}")
    return "\n".join(lines)


def option_names(row: Setting) -> str:
    """How the setting is given to ``flask serve``."""
    told = row.declaration
    if told.kind.flag:
        return f"{row.option}/{row.option.replace('--', '--no-', 1)}"
    return f"{told.short + ', ' if told.short else ''}{row.option} {told.kind.metavar}"


def as_reference() -> str:
    """The settings reference of the documentation, in Markdown."""
    parts = [_REFERENCE_HEAD]
    for group, rows in groupby(TABLE.values(), key=lambda row: row.group):
        parts.append(f"## {GROUP_TITLES[group]}\n")
        for row in rows:
            told = row.declaration
            default = f"*{told.unset}*" if told.default is None else f"`{told.default}`"
            parts.append(f"### `{row.name}`\n")
            parts.append(f"{told.summary}\n")
            usage = f"`{option_names(row)}`" if told.on_command_line else "not on the command line"
            keys = f"- Environment{'' if told.early else ' and `app.config`'}: `{row.key}`"
            if told.early:
                keys += " (not `app.config`: it is needed before the app is loaded)"
            parts.append(f"- Default: {default}\n{keys}\n- Command line: {usage}\n")
            parts.append(f"{told.why}\n")
    return "\n".join(parts)


def _written(resolved: Resolved, row: Setting) -> str | None:
    value = resolved.settings.value(row)
    return None if value is None else row.write(value)
