"""The same notes as JSON, under /api/notes, for whoever is logged in."""

from __future__ import annotations

from flask import Blueprint, abort, g, request
from flask.typing import ResponseReturnValue

from .database import connection

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.before_request
def need_account() -> None:
    if g.account is None:
        abort(401, "Log in first.")


@blueprint.get("/notes")
def index() -> ResponseReturnValue:
    rows = connection().execute("SELECT id, text, created FROM note WHERE account_id = ?", [g.account["id"]])
    return {"notes": [dict(row) for row in rows]}


@blueprint.post("/notes")
def create() -> ResponseReturnValue:
    document = request.get_json()
    text = document.get("text") if isinstance(document, dict) else None
    if not isinstance(text, str) or not text.strip():
        abort(422, 'Send an object with a non-empty text: {"text": "..."}.')
    with connection() as opened:
        cursor = opened.execute("INSERT INTO note (account_id, text) VALUES (?, ?)", [g.account["id"], text.strip()])
    return {"id": cursor.lastrowid}, 201


@blueprint.delete("/notes/<int:number>")
def delete(number: int) -> ResponseReturnValue:
    with connection() as opened:
        if not opened.execute("DELETE FROM note WHERE id = ? AND account_id = ?", [number, g.account["id"]]).rowcount:
            abort(404, "There is no such note of yours.")
    return "", 204
