"""Every number among the settings: what is too large is refused, and the largest that is allowed works."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from flask import Flask

from flask_prodserve.extension import resolve_for
from flask_prodserve.settings import TABLE, Setting, arguments
from flask_prodserve.settings.resolve import SettingsError
from serving import defaults, flask, in_thread, run
from wire import get

HUGE: tuple[object, ...] = (10**16, 10**19, 10**400, 1e308, "9" * 19, "9" * 5000, "99999999999d", f"{10**18}GiB")

NUMBERS = [
    row for row in TABLE.values() if row.declaration.kind.metavar in ("NUMBER", "SIZE", "DURATION", "NUMBER|auto")
]

APP = "from flask import Flask\napp = Flask(__name__)\n\n@app.get('/')\ndef index():\n    return 'hello'\n"


def name(row: Setting) -> str:
    return row.name


def largest(row: Setting) -> str | None:
    """The largest value that *row* takes, as its refusal writes it."""
    for value in HUGE:
        try:
            row.declaration.kind.parse(value)
        except ValueError as error:
            if found := re.search(r"(?:at most|up to) (\w+)", str(error)):
                return found[1]
    return None


def test_numbers_are_found() -> None:
    """The table has all kinds of numbers, and each of these has a largest value."""
    assert {"THREADS", "WORKERS", "BACKLOG", "MAX_SPOOL", "MIN_BODY_RATE", "STATIC_MAX_AGE", "DRAIN_DELAY"} <= {
        row.name for row in NUMBERS
    }
    assert {row.name: largest(row) for row in NUMBERS if largest(row) is None} == {}


@pytest.mark.parametrize("row", NUMBERS, ids=name)
def test_too_large(row: Setting) -> None:
    """A number that is too large is refused with the setting, the value and the largest that is allowed, wherever it comes from."""
    refused = 0
    for value in HUGE:
        with pytest.raises(SettingsError) as caught:
            resolve_for(Flask("numbers"), [arguments({row.argument: value}, "numbers")])
        text = str(caught.value)
        assert row.name in text or row.argument in text
        refused += f"at most {largest(row)}" in text or f"up to {largest(row)}" in text
    assert refused


@pytest.mark.parametrize("limit", ["timeout", "queue_timeout", "max_body", "max_concurrency"])
@pytest.mark.parametrize("value", ["9" * 5000, "9" * 30])
def test_too_large_for_an_endpoint(limit: str, value: str) -> None:
    """The limits of an endpoint have the same bounds."""
    with pytest.raises(SettingsError, match=f"for {limit} at most"):
        resolve_for(Flask("numbers"), [arguments({"endpoint_limits": {"index": {limit: value}}}, "numbers")])


@pytest.mark.parametrize("row", NUMBERS, ids=name)
def test_largest_in_one_process(row: Setting) -> None:
    """A server of one process answers with the largest value of each number, and stops."""
    app = Flask("numbers")
    app.add_url_rule("/", view_func=lambda: "hello")
    settings = {row.argument: largest(row)}
    if row.name == "MAX_REQUEST_LINE":  # which a head has to be able to hold
        settings["max_header_size"] = largest(TABLE["MAX_HEADER_SIZE"])
    with in_thread(app, **settings) as served:
        assert get(served.address).body == b"hello"
        served.look()
    assert served.drained is not None


def test_largest_with_workers(tmp_path: Path) -> None:
    """A supervisor and its worker run, and stop in order, with all numbers as large as they may be."""
    (tmp_path / "app.py").write_text(APP)
    given = [f"{row.option}={largest(row)}" for row in NUMBERS if row.name not in ("WORKERS", "DRAIN_DELAY")]
    with run(flask("serve", "--port", "0", *given, *defaults()), cwd=tmp_path) as server:
        assert get(server.address).body == b"hello"
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0, server.output
    assert "Traceback" not in server.output
    assert "OverflowError" not in server.output


@pytest.mark.parametrize("workers", ["0", "1"])
def test_largest_delay(tmp_path: Path, workers: str) -> None:
    """With the largest DRAIN_DELAY a stop does not fail, and Ctrl-C twice ends it."""
    (tmp_path / "app.py").write_text(APP)
    row = TABLE["DRAIN_DELAY"]
    arguments = ["--workers", workers, f"{row.option}={largest(row)}", *defaults()]
    with run(flask("serve", "--port", "0", *arguments), cwd=tmp_path) as server:
        address = server.address
        assert get(address, "/readyz").status == 200
        server.signal(signal.SIGINT)
        while get(address, "/readyz").status != 503:
            pass
        assert get(address).body == b"hello"
        server.signal(signal.SIGINT)
        server.exit_code()
    assert "Traceback" not in server.output
