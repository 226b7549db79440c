"""Heads of responses: framing, what is kept, what is corrected, and what cannot be sent."""

from __future__ import annotations

from typing import Any

import pytest

from flask_prodserve.protocol.response_head import Framing, InvalidResponse, ResponseHead, compose, http_date

DATE = "Sat, 21 Nov 2026 04:00:00 GMT"


def make(status: str = "200 OK", *fields: tuple[Any, Any], **changes: Any) -> ResponseHead:
    defaults: dict[str, Any] = {
        "method": "GET",
        "version": "1.1",
        "keep_alive": True,
        "body_length": None,
        "date": DATE,
        "server": None,
    }
    return compose(status, list(fields), **{**defaults, **changes})


def lines(head: ResponseHead) -> list[str]:
    text = head.data.decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


@pytest.mark.parametrize(
    ("changes", "framing", "added"),
    [
        ({"body_length": 5}, Framing.LENGTH, ["Content-Length: 5"]),
        ({"body_length": 0}, Framing.LENGTH, ["Content-Length: 0"]),
        ({}, Framing.CHUNKED, ["Transfer-Encoding: chunked"]),
        ({"version": "1.0"}, Framing.CLOSE, ["Connection: close"]),
        ({"version": "1.0", "body_length": 5}, Framing.LENGTH, ["Content-Length: 5", "Connection: keep-alive"]),
        ({"keep_alive": False, "body_length": 5}, Framing.LENGTH, ["Content-Length: 5", "Connection: close"]),
        ({"method": "HEAD"}, Framing.NONE, []),
        ({"status": "204 No Content", "body_length": 0}, Framing.NONE, []),
        ({"status": "304 Not Modified"}, Framing.NONE, []),
    ],
)
def test_framing(changes: dict[str, Any], framing: Framing, added: list[str]) -> None:
    """The end of the body is told by its length, by chunks or by the end of the connection, or there is no body."""
    head = make(**changes)
    assert head.framing is framing
    assert sorted(lines(head)[1:]) == sorted([f"Date: {DATE}", *added])
    assert head.keep_alive is ("Connection: close" not in added)


def test_fields_are_kept() -> None:
    """Spelling, order and repetition of the app's fields are kept; its Date and Server come before ours."""
    fields = [
        ("x-B", "1"),
        ("X-a", "2"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("Date", "then"),
        ("server", "mine"),
        ("X", "\xe4 "),
    ]
    head = make("200 Fine", *fields, body_length=1, server="ours")
    assert lines(head) == [
        "HTTP/1.1 200 Fine",
        *(
            "x-B: 1",
            "X-a: 2",
            "Set-Cookie: a",
            "Set-Cookie: b",
            "Date: then",
            "server: mine",
            "X: \xe4",
            "Content-Length: 1",
        ),
    ]
    assert "Server: ours" in lines(make(server="ours"))


def test_app_length_comes_first() -> None:
    """The app's Content-Length counts before what the server knows; to HEAD and 304 it is kept, for 204 it goes."""
    assert make("200 OK", ("Content-Length", "7"), body_length=5).length == 7
    assert "Content-Length: 7" in lines(make("200 OK", ("content-length", " 7 "), method="HEAD"))
    assert "Content-Length: 7" in lines(make("304 Not Modified", ("Content-Length", "7")))
    head = make("204 No Content", ("Content-Length", "0"))
    assert not any("Content-Length" in line for line in lines(head))
    assert len(head.corrections) == 1


@pytest.mark.parametrize(
    ("wanted", "corrections"),
    [
        ({"body_length": 4}, 0),
        ({"version": "1.0"}, 0),
        ({"method": "HEAD"}, 0),
        ({"length": "4"}, 1),
        ({"length": "0"}, 0),
    ],
)
def test_nothing_in_205(wanted: dict[str, Any], corrections: int) -> None:
    """A 205 says that its body has no bytes, whatever the app and the server know of its length, and keeps the connection."""
    length = wanted.pop("length", None)
    head = make("205 Reset Content", *([("Content-Length", length)] if length else []), **wanted)
    assert [line for line in lines(head) if line.startswith(("Content-Length", "Transfer"))] == ["Content-Length: 0"]
    assert (head.framing, head.length, head.keep_alive) == (Framing.NONE, None, True)
    assert len(head.corrections) == corrections


def test_connection_is_the_servers() -> None:
    """The app may ask for the end of the connection; other hop-by-hop fields are dropped, with a word for the log."""
    assert make("200 OK", ("Connection", "close"), body_length=1).keep_alive is False
    assert make("200 OK", ("Connection", "keep-alive"), body_length=1).corrections == ()
    head = make("200 OK", ("Transfer-Encoding", "chunked"), ("Upgrade", "x"), body_length=1)
    assert lines(head)[1:] == ["Content-Length: 1", f"Date: {DATE}"]
    assert [correction.split()[0] for correction in head.corrections] == ["Transfer-Encoding", "Upgrade"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_keep_alive_of_the_app_does_not_cancel_a_close(version: str) -> None:
    """A connection that the server closes is announced as closed, whatever the app says of it."""
    head = make("200 OK", ("Connection", "keep-alive"), body_length=1, keep_alive=False, version=version)
    assert head.keep_alive is False
    assert [line for line in lines(head) if line.startswith("Connection")] == ["Connection: close"]


def test_identical_lengths() -> None:
    """Two identical lengths are sent as one."""
    head = make("200 OK", ("Content-Length", "5"), ("content-length", "5"))
    assert (head.length, len(head.corrections)) == (5, 1)


def test_status_without_reason() -> None:
    """A status without a reason is sent with the blank that RFC 9112, section 4 asks for."""
    assert lines(make("299"))[0] == "HTTP/1.1 299 "


@pytest.mark.parametrize("code", [200, 599, 600, 777, 999])
def test_status_of_three_digits(code: int) -> None:
    """Every number of three digits from 200 on is sent, as by gunicorn and Werkzeug."""
    head = make(f"{code} Own")
    assert (lines(head)[0], head.status) == (f"HTTP/1.1 {code} Own", code)


@pytest.mark.parametrize(
    ("status", "field"),
    [
        *(
            (status, None)
            for status in (
                "",
                "OK",
                "20 OK",
                "2000 OK",
                "200\r\nX: y",
                "200OK",
                "1000 X",
                "099 X",
                "100 Continue",
                200,
                b"200 OK",
            )
        ),
        *(("200 OK", (name, "x")) for name in ("", "X Y", "X:", "X\r\nY", "\xe4", b"X", None)),
        *(("200 OK", ("X", value)) for value in ("a\r\nb", "a\nb", "a\rb", "a\0b", "a\x7fb", "\u20ac", 5, None, b"x")),
        *(("200 OK", ("Content-Length", value)) for value in ("", "x", "-1", "+1", "1.0", "\xb2", "9" * 19)),
    ],
)
def test_cannot_be_sent(status: Any, field: Any) -> None:
    """What would break the message is refused before a byte is sent, and the text does not repeat the value."""
    with pytest.raises(InvalidResponse) as caught:
        make(status, *([field] if field else []))
    assert "\n" not in str(caught.value)


def test_different_lengths() -> None:
    """Two lengths that differ cannot be sent."""
    with pytest.raises(InvalidResponse):
        make("200 OK", ("Content-Length", "5"), ("Content-Length", "6"))


def test_date() -> None:
    """The date is an IMF-fixdate (RFC 9110, section 5.6.7), and changes with the second."""
    assert http_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(784111778.0) == "Sun, 06 Nov 1994 08:49:38 GMT"
    assert http_date(784111777.0) == "Sun, 06 Nov 1994 08:49:37 GMT"
