"""Sphinx configuration."""

import flask_prodserve

project = "flask-prodserve"
copyright = "2026, the flask-prodserve maintainers"
author = "The flask-prodserve maintainers"
version = release = flask_prodserve.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "pallets_sphinx_themes"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
exclude_patterns = ["_build"]

# Names in signatures that belong to others; nothing is fetched to resolve them.
nitpick_ignore = [("py:class", name) for name in ("Flask", "flask.app.Flask", "Problem", "Target", "WSGIApplication")]
nitpick_ignore += [("py:class", f"collections.abc.{name}") for name in ("Callable", "Iterable")]
nitpick_ignore += [("py:class", f"flask_prodserve.extension.{name}") for name in ("Function", "Target")]

html_theme = "flask"
html_title = "flask-prodserve"
html_show_sourcelink = False
