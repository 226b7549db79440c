"""Writes settings as text: for ``flask serve config``, its ``--explain``, and the reference in the
documentation.

Pure: settings in, text out. Everything comes from the table, so nothing can get out of step.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from itertools import groupby

from .declaration import Setting
from .resolve import DEFAULT_ORIGIN, Resolved
from .table import GROUP_TITLES, TABLE

_REFERENCE_HEAD = """\
# Settings

<!-- Generated from flask_prodserve/settings/groups/ by `make settings`; a test fails when this page is stale. -->

Every setting has one name everywhere: `PRODSERVE_THREADS` in `app.config` and in the environment
(`FLASK_PRODSERVE_THREADS` is accepted too), `--threads` on the command line of `flask serve`,
`threads=` in `ProdServe(app, ...)` and `serve(app, ...)`.

If several places give a value, the strongest wins: **command line** (or the arguments of `serve()`
and `run()`) > **`PRODSERVE_*` in the environment** > **the platform's variables in the
environment** (`PORT`, `WEB_CONCURRENCY`, `FORWARDED_ALLOW_IPS`) > **`app.config`** >
**`ProdServe(app, ...)` arguments** > **default**. `flask serve config` shows what is in force and
where it came from. An unknown `PRODSERVE_*` name or an invalid value in any place is refused at
start, and all problems are listed at once.

Some settings are needed before the app is loaded. They can only be set on the command line and in
the environment.

Sizes are written `8190`, `32KiB`, `10MB`; durations `30s`, `500ms`, `5m`; lists with commas.

A duration may be at most `24d` (STATIC_MAX_AGE: `2147483647s`), a size at most `1048576GiB` (1
PiB), and any other number at most `2147483647`, if a setting has no lower bound of its own (THREADS
and MAX_STREAMS: 10000, WORKERS: 1000). Larger ones are refused.
"""


def as_table(resolved: Resolved) -> str:
    """Write name, value and origin in columns."""
    rows = [(row.name, row.write(resolved.settings.value(row)), resolved.origins[row.name]) for row in TABLE.values()]
    widths = [min(max(len(row[column]) for row in rows), 40) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows)


def as_json(resolved: Resolved) -> str:
    """Write a JSON object by setting name; an unset setting is null."""
    return json.dumps(
        {row.name: {"value": _written(resolved, row), "origin": resolved.origins[row.name]} for row in TABLE.values()},
        indent=2,
    )


def as_environment(resolved: Resolved) -> str:
    """Write lines for a shell or a .env file. Defaults are comments, so that the lines fix only
    chosen values.
    """
    lines = []
    for row in TABLE.values():
        value = _written(resolved, row)
        mark = "# " if resolved.origins[row.name] == DEFAULT_ORIGIN else ""
        lines.append(f"{mark}{row.key}={'' if value is None else shlex.quote(value)}")
    return "\n".join(lines)


def explain(row: Setting, resolved: Resolved) -> str:
    """Explain one setting."""
    declaration = row.declaration
    default = declaration.unset if declaration.default is None else declaration.default
    lines = [
        f"{row.name} = {row.write(resolved.settings.value(row))}  ({resolved.origins[row.name]})",
        "",
        declaration.summary,
        declaration.why,
        "",
        f"Default:      {default}",
        f"Environment:  {row.key}",
    ]
    if not declaration.early:
        lines += [f"app.config:   {row.key}", f"Python:       ProdServe(app, {row.argument}=...)"]
    if declaration.on_command_line:
        lines.append(f"Command line: {option_names(row)}")
    return "\n".join(lines)


def option_names(row: Setting) -> str:
    """Return the option of ``flask serve`` with its other spellings."""
    declaration = row.declaration
    if declaration.kind.flag:
        return f"{row.option}/{row.option.replace('--', '--no-', 1)}"
    return f"{declaration.short + ', ' if declaration.short else ''}{row.option} {declaration.kind.metavar}"


def as_reference() -> str:
    """The settings reference of the documentation, in Markdown."""
    parts = [_REFERENCE_HEAD]
    for group, rows in groupby(TABLE.values(), key=lambda row: row.group):
        parts.append(f"## {GROUP_TITLES[group]}\n")
        for row in rows:
            declaration = row.declaration
            default = f"*{declaration.unset}*" if declaration.default is None else f"`{declaration.default}`"
            parts.append(f"### `{row.name}`\n")
            parts.append(f"{_wrapped(declaration.summary)}\n")
            usage = f"`{option_names(row)}`" if declaration.on_command_line else "not on the command line"
            keys = f"- Environment{'' if declaration.early else ' and `app.config`'}: `{row.key}`"
            if declaration.early:
                keys += " (not `app.config`: it is needed before the app is loaded)"
            parts.append(f"- Default: {default}\n{keys}\n- Command line: {usage}\n")
            parts.append(f"{_wrapped(declaration.why)}\n")
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _written(resolved: Resolved, row: Setting) -> str | None:
    value = resolved.settings.value(row)
    return None if value is None else row.write(value)
