"""The options of ``flask serve``, made from the table of settings.

They pass raw text on. ``settings`` parses and refuses it, because it knows all the places that a
value may come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..settings import TABLE, Setting


def setting_options() -> Iterator[click.Option]:
    """Yield an option for every setting, in the table's order, without a default of its own."""
    for row in TABLE.values():
        if row.declaration.on_command_line:
            yield _option(row)


def _option(row: Setting) -> click.Option:
    declaration = row.declaration
    default = declaration.unset if declaration.default is None else declaration.default
    text = f"{declaration.summary}  [default: {default}]"
    if declaration.kind.flag:
        return click.Option(
            [row.argument, f"{row.option}/{row.option.replace('--', '--no-', 1)}"],
            default=None,
            help=text,
            allow_from_autoenv=False,
        )
    return click.Option(
        [row.argument, row.option, *([declaration.short] if declaration.short else [])],
        metavar=declaration.kind.metavar,
        multiple=declaration.kind.repeatable,
        type=str,
        default=None,
        help=text,
        # Otherwise Flask's group would read FLASK_SERVE_<NAME> as well.
        allow_from_autoenv=False,
    )
