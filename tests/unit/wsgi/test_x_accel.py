"""What becomes of X-Sendfile on its way to a proxy."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.test import Client, create_environ
from werkzeug.wrappers import Response as Plain

from flask_prodserve.settings import SettingsError, command_line, resolve
from flask_prodserve.wsgi.x_sendfile import XSendfile

MAPPING = (("/srv/files", "/internal"), ("/srv/files/large", "/disk/large"), ("/srv", "/rest"))


def ask(path: str, mapping: tuple[tuple[str, str], ...], status: str = "200 OK") -> Plain:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(
            status, [("X-Sendfile", path), ("Content-Length", "5"), ("Content-Range", "bytes 1-5/9"), ("ETag", '"x"')]
        )
        return []

    return Client(XSendfile(app, mapping)).get("/")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/srv/files/a b.pdf", "/internal/a%20b.pdf"),
        ("/srv/files/100%.pdf", "/internal/100%25.pdf"),
        ("/srv/files/ä#?.pdf", "/internal/%C3%A4%23%3F.pdf"),
        ("/srv/files/large/x", "/disk/large/x"),
        ("/srv/files/largex", "/internal/largex"),
        ("/srv/filesx", "/rest/filesx"),
        ("/srv/files//a/./b/../c", "/internal/a/c"),
        ("/srv/files/../other", "/rest/other"),
        ("//srv/files/a", "/internal/a"),
    ],
)
def test_mapping(path: str, url: str) -> None:
    """The longest folder of the mapping that the normalised path is in counts; the rest is percent-encoded."""
    response = ask(path, MAPPING)
    assert response.status_code == 200
    assert response.headers["X-Accel-Redirect"] == url
    assert "X-Sendfile" not in response.headers


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/srv/../etc/passwd", "/srv", "/srv/..", "srv/a", "", "../srv/a", "/srvx"]
)
def test_not_in_the_mapping(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file in no folder of the mapping is answered with 500, and the log names it and the setting."""
    with caplog.at_level(logging.ERROR, "flask_prodserve"):
        response = ask(path, MAPPING)
    assert (response.status_code, response.data) == (500, b"")
    assert "X-Accel-Redirect" not in response.headers
    assert ascii(path) in caplog.text
    assert "X_ACCEL_MAPPING" in caplog.text


def test_without_a_mapping() -> None:
    """The path stays, in the bytes that the system has it by."""
    assert ask("/srv/a b+(1).pdf", ()).headers["X-Sendfile"] == "/srv/a b+(1).pdf"
    assert ask("/srv/€ 5%.pdf", ()).headers["X-Sendfile"].encode("latin-1") == "/srv/€ 5%.pdf".encode()


@pytest.mark.parametrize("mapping", [(), MAPPING])
def test_what_is_said_of_the_body(mapping: tuple[tuple[str, str], ...]) -> None:
    """Length, range and status of a part are taken out: the proxy, which has the file, says them. What else is said stays."""
    for status in ("200 OK", "206 PARTIAL CONTENT"):
        response = ask("/srv/a", mapping, status)
        assert response.status_code == 200
        assert "Content-Range" not in response.headers
        assert response.headers.get("Content-Length", "0") == "0"
        assert response.headers["ETag"] == '"x"'
    assert ask("/srv/a", mapping, "404 NOT FOUND").status_code == 404


def test_other_responses() -> None:
    """Responses without the field are passed on as they are."""
    app = Flask("plain", static_folder=None)
    app.add_url_rule("/", "index", lambda: Response("ok", 206, {"Content-Range": "bytes 0-1/9"}))
    response = Client(XSendfile(app, MAPPING)).open(create_environ("/"))
    assert (response.status_code, response.data, response.headers["Content-Length"]) == (206, b"ok", "2")


@pytest.mark.parametrize(
    "value",
    ["/srv", "=/x", "/srv=", "srv=/x", "/srv/../x=/y", "/srv=/a/../b", "/srv=/a b", "/srv=//x", "/srv=http://x"],
)
def test_values_of_the_setting(value: str) -> None:
    """A mapping has a whole, normalised path on either side."""
    with pytest.raises(SettingsError, match="x-accel-mapping"):
        resolve([command_line({"X_ACCEL_MAPPING": (value,)})])
