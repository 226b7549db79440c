"""Serve Flask apps in production: ``flask serve``, ``ProdServe(app)`` or ``serve(app)``.

The names are imported on first use: every ``flask`` command imports this package for its entry
point and must not wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extension import ProdServe, serve
    from .version import __version__

__all__ = ["ProdServe", "__version__", "serve"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from . import version

        return version.__version__
    if name in ("ProdServe", "serve"):
        from . import extension

        return getattr(extension, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
