"""Fields as long as a head may be, which would keep a library busy for seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask, request

from linear import LENGTH
from serving import in_thread
from wire import get

pytestmark = pytest.mark.usefixtures("way")


def make_app(folder: Path) -> Flask:
    (folder / "static").mkdir()
    (folder / "static" / "a.css").write_text("body {}")
    app = Flask("long_fields", root_path=str(folder))

    @app.get("/length/<name>")
    def length(name: str) -> str:
        return str(len(request.headers[name]))

    return app


@pytest.mark.parametrize(
    ("name", "status"), [("If-None-Match", 200), ("If-Match", 412), ("If-Range", 206), ("Accept-Encoding", 206)]
)
def test_static_file(tmp_path: Path, name: str, status: int) -> None:
    """A static file's own reader takes a malformed field of 30 KB for one that matches nothing."""
    long = f"{name}: a{' ' * LENGTH}b"
    with in_thread(make_app(tmp_path)) as served:
        assert get(served.address, "/static/a.css", long).status == (200 if status == 206 else status)
        if status == 206:
            expected = 200 if name == "If-Range" else 206
            assert get(served.address, "/static/a.css", long, "Range: bytes=0-1").status == expected


@pytest.mark.parametrize("name", ["Accept", "Cookie", "If-None-Match"])
def test_app(tmp_path: Path, name: str) -> None:
    """The app gets one blank of the 30,000 in a field that its libraries read, and all of those in another."""
    with in_thread(make_app(tmp_path)) as served:
        for field, expected in ((name, 3), ("X-Own", LENGTH + 2)):
            response = get(served.address, f"/length/{field}", f"{field}: a{' ' * LENGTH}b")
            assert response.body == str(expected).encode()
