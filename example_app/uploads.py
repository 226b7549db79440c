"""Uploads: up to MAX_CONTENT_LENGTH, which is the server's body limit too. Files are stored under their number, never their name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue

from .accounts import login_required
from .database import connection

blueprint = Blueprint("uploads", __name__, url_prefix="/uploads")


@blueprint.get("/")
def index() -> ResponseReturnValue:
    return render_template("uploads.html", uploads=connection().execute("SELECT * FROM upload ORDER BY id DESC"))


@blueprint.post("/")
@login_required
def create() -> ResponseReturnValue:
    file = request.files.get("file")
    if file is None or not file.filename:
        flash("Choose a file first.")
        return redirect(url_for("uploads.index"))
    content = file.read()
    with connection() as opened:
        cursor = opened.execute(
            "INSERT INTO upload (name, size, sha256) VALUES (?, ?, ?)",
            [file.filename, len(content), hashlib.sha256(content).hexdigest()],
        )
        _path(cursor.lastrowid or 0).write_bytes(content)
    return redirect(url_for("uploads.index"))


@blueprint.get("/<int:number>")
def download(number: int) -> ResponseReturnValue:
    row = connection().execute("SELECT name FROM upload WHERE id = ?", [number]).fetchone()
    if row is None:
        abort(404)
    return send_file(_path(number), as_attachment=True, download_name=row["name"])


def _path(number: int) -> Path:
    folder = Path(current_app.config["INSTANCE_PATH"]) / "uploads"
    folder.mkdir(exist_ok=True)
    return folder / str(number)
