"""Loads apps, and turns what goes wrong into an AppLoadError.

If an app's own code fails, its traceback is printed once, from the first frame that is neither ours
nor Flask's.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from flask.cli import NoAppException

from ..errors import AppLoadError, ProdServeError

Loaded = TypeVar("Loaded")


def load_app(find: Callable[[], Loaded], name: str, hint: str) -> Loaded:
    """Return what *find* returns, an app. *name* is what errors call the app, *hint* says how to
    name it correctly.

    Raises AppLoadError, or the ProdServeError that the app's code raised.
    """
    try:
        return find()
    except NoAppException as error:
        message = error.format_message().strip()
        # Several lines are the traceback of an import inside the app: the app was found, so its
        # name is right.
        raise AppLoadError(f"{name} could not be loaded: {message}", "" if "\n" in message else hint) from error
    except ProdServeError:
        raise
    except Exception as error:
        print_app_traceback(error)
        raise AppLoadError(f"{name} could not be loaded: {type(error).__name__}: {error}") from error


def print_app_traceback(error: BaseException) -> None:
    """Print *error*, which an app raised, with the part of its traceback that belongs to the app."""
    traceback.print_exception(type(error), error, app_traceback(error))


def app_traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error* from the first frame that is neither ours nor Flask's."""
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_globals["__name__"]):
        trace = trace.tb_next
    return trace


def _is_machinery(module: str) -> bool:
    return module == "flask.cli" or module.startswith(f"{__name__.partition('.')[0]}.")
