"""A production server for Flask apps: ``flask serve``, ``ProdServe(app)`` or ``serve(app)``.

The names are imported when they are first used: the ``flask`` command imports this package for its entry point, and should not wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extension import ProdServe, serve

__version__ = "0.1.0"
__all__ = ["ProdServe", "__version__", "serve"]


def __getattr__(name: str) -> object:
    if name in ("ProdServe", "serve"):
        from . import extension

        return getattr(extension, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
