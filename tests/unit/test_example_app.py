"""The example app, through Flask's test client (pytest-flask)."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app import create_app


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app({"INSTANCE_PATH": str(tmp_path), "SECRET_KEY": "test"})


def _token(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def _register(client: FlaskClient, name: str = "ada") -> None:
    data = {"csrf_token": _token(client, "/register"), "name": name, "password": "long enough"}
    assert client.post("/register", data=data).status_code == 302


@pytest.mark.parametrize("path", ["/", "/register", "/login", "/uploads/", "/clock", "/slow?seconds=0", "/whoami"])
def test_pages(client: FlaskClient, path: str) -> None:
    """Every page can be seen without an account."""
    assert client.get(path).status_code == 200


def test_notes(client: FlaskClient) -> None:
    """A note is written, shown with its markup escaped, and deleted; others neither see nor delete it."""
    _register(client)
    client.post("/notes", data={"csrf_token": _token(client, "/"), "text": "<b>first</b>"})
    assert "&lt;b&gt;first&lt;/b&gt;" in client.get("/").text
    other = client.application.test_client()
    _register(other, "eve")
    assert "first" not in other.get("/").text
    assert other.post("/notes/1/delete", data={"csrf_token": _token(other, "/")}).status_code == 404
    assert client.post("/notes/1/delete", data={"csrf_token": _token(client, "/")}).status_code == 302
    assert "first" not in client.get("/").text


def test_login(client: FlaskClient) -> None:
    """The right password logs in and leads on within the site only; a wrong one and a missing token do not log in."""
    _register(client)
    client.post("/logout", data={"csrf_token": _token(client, "/")})
    data = {"csrf_token": _token(client, "/login"), "name": "ADA", "password": "wrong password"}
    assert client.post("/login", data=data).status_code == 403
    data["password"] = "long enough"
    assert client.post("/login", data={**data, "csrf_token": ""}).status_code == 400
    assert client.post("/login?next=//evil.test/", data=data).location == "/"
    assert client.get("/api/notes").status_code == 200


def test_registration_is_checked(client: FlaskClient) -> None:
    """A taken name is 409, a short password 400."""
    _register(client)
    other = client.application.test_client()
    data = {"csrf_token": _token(other, "/register"), "name": "Ada", "password": "long enough"}
    assert other.post("/register", data=data).status_code == 409
    assert other.post("/register", data={**data, "name": "bob", "password": "short"}).status_code == 400


def test_api(client: FlaskClient) -> None:
    """Notes come and go as JSON, and so do errors."""
    assert client.get("/api/notes").status_code == 401
    assert client.get("/api/notes").json == {"error": "Unauthorized", "description": "Log in first."}
    _register(client)
    assert client.post("/api/notes", json={"text": "from afar"}).json == {"id": 1}
    assert client.post("/api/notes", json={"text": 5}).status_code == 422
    assert client.post("/api/notes", data="{", content_type="application/json").status_code == 400
    assert client.get("/api/notes").get_json()["notes"][0]["text"] == "from afar"
    assert client.delete("/api/notes/1").status_code == 204
    assert client.delete("/api/notes/1").status_code == 404


def test_uploads(client: FlaskClient) -> None:
    """A file comes back as it was sent, under its name; its digest is shown."""
    _register(client)
    content = bytes(range(256)) * 100
    data = {"csrf_token": _token(client, "/uploads/"), "file": (io.BytesIO(content), "ä b.bin")}
    assert client.post("/uploads/", data=data).status_code == 302
    assert hashlib.sha256(content).hexdigest()[:16] in client.get("/uploads/").text
    with client.get("/uploads/1") as response:
        assert response.data == content
        assert "attachment" in response.headers["Content-Disposition"]


def test_stream(client: FlaskClient) -> None:
    """The clock streams as many events as it is asked for."""
    response = client.get("/clock/stream?count=1")
    assert response.mimetype == "text/event-stream"
    assert response.text.count("data: ") == 1


def test_secret_key_is_kept(tmp_path: Path) -> None:
    """Without one given, a key is made once and readable by its owner only."""
    first = create_app({"INSTANCE_PATH": str(tmp_path)})
    assert create_app({"INSTANCE_PATH": str(tmp_path)}).config["SECRET_KEY"] == first.config["SECRET_KEY"]
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
