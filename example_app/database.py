"""SQLite, used right under threads: one connection per request, write-ahead log, and patience with other writers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from flask import Flask, current_app, g

_SCHEMA = """
CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, password TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS note (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    text TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS upload (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


def init_app(app: Flask) -> None:
    app.teardown_appcontext(_close)
    with app.app_context():
        connection().executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)


def connection() -> sqlite3.Connection:
    """The connection of the current request. Use it as a context manager to commit."""
    if "connection" not in g:
        g.connection = sqlite3.connect(Path(current_app.config["INSTANCE_PATH"]) / "example.sqlite", timeout=10)
        g.connection.row_factory = sqlite3.Row
        g.connection.execute("PRAGMA foreign_keys = ON")
    opened: sqlite3.Connection = g.connection
    return opened


def _close(error: BaseException | None) -> None:
    if (opened := g.pop("connection", None)) is not None:
        opened.close()
