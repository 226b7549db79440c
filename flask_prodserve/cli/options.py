"""The options of ``flask serve``, made from the table of settings.

They pass on raw text: parsing and refusing is for ``settings``, which knows all the other places that a value may come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..settings import TABLE, Setting


def setting_options() -> Iterator[click.Option]:
    """An option for every setting, in the table's order, none with a default of its own."""
    for row in TABLE.values():
        if row.declaration.on_command_line:
            yield _option(row)


def _option(row: Setting) -> click.Option:
    told = row.declaration
    default = told.unset if told.default is None else told.default
    text = f"{told.summary}  [default: {default}]"
    if told.kind.flag:
        return click.Option(
            [row.argument, f"{row.option}/{row.option.replace('--', '--no-', 1)}"],
            default=None,
            help=text,
            allow_from_autoenv=False,
        )
    return click.Option(
        [row.argument, row.option, *([told.short] if told.short else [])],
        metavar=told.kind.metavar,
        multiple=told.kind.repeatable,
        type=str,
        default=None,
        help=text,
        # Flask's group would read FLASK_SERVE_<NAME> as well: one spelling too many.
        allow_from_autoenv=False,
    )
