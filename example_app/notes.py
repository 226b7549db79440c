"""Notes: the pages with forms."""

from __future__ import annotations

from flask import Blueprint, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from .accounts import login_required
from .database import connection

blueprint = Blueprint("notes", __name__)


@blueprint.get("/")
def index() -> ResponseReturnValue:
    notes = []
    if g.account is not None:
        notes = (
            connection()
            .execute("SELECT id, text, created FROM note WHERE account_id = ? ORDER BY id DESC", [g.account["id"]])
            .fetchall()
        )
    return render_template("notes.html", notes=notes)


@blueprint.post("/notes")
@login_required
def create() -> ResponseReturnValue:
    text = request.form.get("text", "").strip()
    if not text:
        flash("A note needs a text.")
    else:
        with connection() as opened:
            opened.execute("INSERT INTO note (account_id, text) VALUES (?, ?)", [g.account["id"], text])
    return redirect(url_for("notes.index"))


@blueprint.post("/notes/<int:number>/delete")
@login_required
def delete(number: int) -> ResponseReturnValue:
    with connection() as opened:
        if not opened.execute("DELETE FROM note WHERE id = ? AND account_id = ?", [number, g.account["id"]]).rowcount:
            abort(404)
    return redirect(url_for("notes.index"))
