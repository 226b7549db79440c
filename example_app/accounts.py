"""Accounts: register, log in, log out. Sessions are Flask's signed cookies; every form carries a token of its session."""

from __future__ import annotations

import functools
import secrets
import sqlite3
from collections.abc import Callable
from typing import ParamSpec

from flask import Blueprint, abort, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.security import check_password_hash, generate_password_hash

from .database import connection

blueprint = Blueprint("accounts", __name__)
P = ParamSpec("P")

# Compared when the name is unknown, so that the time does not tell which names exist.
_NOBODY = generate_password_hash(secrets.token_hex())


def csrf_token() -> str:
    """The token that forms of this session must send back."""
    token: str = session.setdefault("csrf_token", secrets.token_urlsafe())
    return token


def login_required(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        if g.account is None:
            return redirect(url_for("accounts.login", next=request.path))
        return view(*args, **kwargs)

    return guarded


@blueprint.before_app_request
def load_account() -> None:
    g.account = None
    if (number := session.get("account_id")) is not None:
        g.account = connection().execute("SELECT id, name FROM account WHERE id = ?", [number]).fetchone()


@blueprint.before_app_request
def check_token() -> None:
    """Forms only: the API takes JSON, which no form of another site can send."""
    if request.method == "POST" and request.blueprint != "api":
        sent = request.form.get("csrf_token", "")
        if not secrets.compare_digest(sent.encode(), session.get("csrf_token", "").encode()) or not sent:
            abort(400, "This form is too old. Go back, reload the page, and send it again.")


@blueprint.route("/register", methods=["GET", "POST"])
def register() -> ResponseReturnValue:
    if request.method == "POST":
        name, password = request.form.get("name", "").strip(), request.form.get("password", "")
        if not name or len(name) > 40 or len(password) < 8:
            flash("A name (up to 40 characters) and a password of at least 8 characters are needed.")
            return render_template("account.html", title="Register"), 400
        try:
            with connection() as opened:
                cursor = opened.execute(
                    "INSERT INTO account (name, password) VALUES (?, ?)", [name, generate_password_hash(password)]
                )
        except sqlite3.IntegrityError:
            flash("That name is taken.")
            return render_template("account.html", title="Register"), 409
        _log_in(cursor.lastrowid)
        flash(f"Welcome, {name}.")
        return redirect(url_for("notes.index"))
    return render_template("account.html", title="Register")


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    if request.method == "POST":
        row = (
            connection()
            .execute("SELECT id, password FROM account WHERE name = ?", [request.form.get("name", "").strip()])
            .fetchone()
        )
        if not check_password_hash(row["password"] if row else _NOBODY, request.form.get("password", "")):
            flash("Name and password do not match.")
            return render_template("account.html", title="Log in"), 403
        _log_in(row["id"])
        target = request.args.get("next", "")
        # Only a path of this site: "//host" and "/\\host" lead elsewhere.
        safe = target.startswith("/") and not target.startswith(("//", "/\\"))
        return redirect(target if safe else url_for("notes.index"))
    return render_template("account.html", title="Log in")


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    session.clear()
    return redirect(url_for("notes.index"))


def _log_in(account_id: int | None) -> None:
    session.clear()
    session["account_id"] = account_id
