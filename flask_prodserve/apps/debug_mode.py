"""Debug mode shows code and secrets to anyone who causes an error. A Flask app in debug mode is
refused, a Django project is reported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import DebugModeError
from ..settings import Problem

if TYPE_CHECKING:
    from flask import Flask


def refuse_debug_mode(apps: Iterable[Flask]) -> None:
    """Raise DebugModeError if one of *apps* is in debug mode."""
    for app in apps:
        if app.debug:
            raise DebugModeError(
                f"'{app.name}' is in debug mode, which shows code and secrets to anyone who causes an error.",
                "For development, use 'flask run --debug'. To serve it anyway, set PRODSERVE_ALLOW_DEBUG=1 (--allow-debug).",
            )


def django_debug_pages(apps: Iterable[tuple[str, object]]) -> Iterator[Problem]:
    """Report a Django project with debug pages among *apps*, pairs of a mount key and an app. A new
    project has them.

    Never imports Django: if nothing else has imported it, no Django project is served.
    """
    wsgi = sys.modules.get("django.core.handlers.wsgi")
    keys = [key for key, app in apps if wsgi and isinstance(app, wsgi.WSGIHandler)]
    if keys and sys.modules["django.conf"].settings.DEBUG:
        yield Problem(
            f"The Django project at {' and '.join(keys)} is in debug mode, which shows code and settings to anyone who causes "
            "an error.",
            "Set DEBUG = False in its settings.",
        )
