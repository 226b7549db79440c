"""A small notebook for several people: an app to see every feature of flask-prodserve on. See README.md beside this file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from . import accounts, api, database, notes, showcase, uploads
from .extensions import prodserve


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the app. *config* overrides what the environment (``EXAMPLE_APP_*``) says."""
    app = Flask(__name__)
    app.config.from_mapping(
        MAX_CONTENT_LENGTH=16 * 1024 * 1024,
        SESSION_COOKIE_SAMESITE="Lax",
        INSTANCE_PATH=app.instance_path,
        PRODSERVE_THREADS=16,
        PRODSERVE_GRACEFUL_TIMEOUT="10s",
    )
    app.config.from_prefixed_env("EXAMPLE_APP")
    app.config.from_mapping(config or {})
    folder = Path(app.config["INSTANCE_PATH"])
    folder.mkdir(parents=True, exist_ok=True)
    if not app.config.get("SECRET_KEY"):
        app.config["SECRET_KEY"] = _secret_key(folder / "secret_key")

    prodserve.init_app(app)
    database.init_app(app)
    for module in (accounts, api, notes, showcase, uploads):
        app.register_blueprint(module.blueprint)
    app.register_error_handler(HTTPException, _show_error)
    app.jinja_env.globals["csrf_token"] = accounts.csrf_token
    return app


def _secret_key(path: Path) -> str:
    """The key that sessions are signed with; made once, readable by its owner only."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_text()


def _show_error(error: HTTPException) -> ResponseReturnValue:
    if request.path.startswith("/api/"):
        return {"error": error.name, "description": error.description}, error.code or 500
    return render_template("error.html", error=error), error.code or 500
