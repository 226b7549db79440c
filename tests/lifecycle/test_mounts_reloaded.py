"""New code of an app that is mounted beside the main one."""

from __future__ import annotations

import signal
from pathlib import Path

from server import serving, supervised

from serving import wait_until
from wire import get

pytestmark = supervised


def test_a_reload_brings_mounted_apps_or_fails(tmp_path: Path) -> None:
    """A reload brings the new code of a mounted app; one that fails names it, and leaves the old workers with what they have."""
    mounted = tmp_path / "mounted.py"
    code = "from flask import Flask\n\napp = Flask(__name__)\napp.add_url_rule('/', view_func=lambda: '{}')\n"
    mounted.write_text(code.format("old"))
    with serving(tmp_path, "--mount", "/api=mounted") as server:
        command = server.command

        def answer() -> bytes:
            return get(command.address, "/api/").body

        assert answer() == b"old"
        mounted.write_text("raise RuntimeError('the database is away')\n")
        server.signal(signal.SIGHUP)
        command.wait_for("The app at /api, 'mounted', could not be loaded: RuntimeError: the database is away")
        assert answer() == b"old"
        mounted.write_text(code.format("new"))
        server.signal(signal.SIGHUP)
        wait_until(lambda: answer() == b"new", "the new code")
