"""Settings as text: whatever is shown can be read back, and nothing of the table is left out."""

from __future__ import annotations

import io
import json
import shlex
import subprocess

import pytest
from dotenv import dotenv_values

from flask_prodserve.settings import (
    DEFAULT_ORIGIN,
    TABLE,
    Resolved,
    Setting,
    Settings,
    app_config,
    command_line,
    environment,
    platform,
    render,
    resolve,
)

# For every setting a value that is not its default, with all that a shell could trip over.
CHANGED = {
    "BIND": ("unix:/run/my-app.sock", "[::]:80", ":8000"),
    "BACKLOG": "1",
    "UNIX_SOCKET_MODE": "0o600",
    "WORKERS": "auto",
    "THREADS": "3",
    "PRELOAD": True,
    "BOOT_TIMEOUT": "2m",
    "WORKER_TIMEOUT": "0",
    "MAX_REQUESTS": "10000",
    "MAX_REQUESTS_JITTER": "500",
    "MAX_WORKER_MEMORY": "512MiB",
    "MAX_WORKER_LIFETIME": "1d",
    "GROUP": "www-data",
    "UMASK": "027",
    "PIDFILE": "/run/my app/server.pid",
    "MAX_REQUEST_LINE": "4KiB",
    "MAX_HEADER_SIZE": "65537",
    "MAX_HEADER_COUNT": "5",
    "MAX_BODY_SIZE": "1GB",
    "MAX_CONNECTIONS": "7",
    "MAX_CONNECTIONS_PER_CLIENT": "5",
    "MAX_KEEPALIVE_REQUESTS": "10",
    "MAX_STREAMS": "3",
    "MAX_SPOOL": "100MiB",
    "ENDPOINT_LIMITS": '{"report": {"timeout": "5m", "max_body": "1MiB", "max_concurrency": 2, "queue_timeout": 0.5}}',
    "HEADER_TIMEOUT": "500ms",
    "BODY_TIMEOUT": "1m",
    "MIN_BODY_RATE": "1KiB",
    "SEND_TIMEOUT": "2m",
    "MIN_SEND_RATE": "0",
    "KEEPALIVE_TIMEOUT": "1500ms",
    "REQUEST_TIMEOUT": "0",
    "REQUEST_TIMEOUT_RAISE": True,
    "QUEUE_TIMEOUT": "3s",
    "GRACEFUL_TIMEOUT": "0.25",
    "DRAIN_DELAY": "5s",
    "TLS_CERT": ['my certs/$HOME\'s "cert".pem', "other.pem"],
    "TLS_KEY": ["#key;`ls`.pem", "#key;`ls`.pem"],
    "TLS_MIN_VERSION": "1.3",
    "TLS_CIPHERS": "ECDHE+AESGCM:!RSA",
    "TLS_CLIENT_CA": "my $authorities.pem",
    "TLS_CLIENT_CERT": "optional",
    "TLS_REDIRECT_BIND": (":80", "unix:/run/plain"),
    "TRUSTED_PROXIES": ("10.0.0.0/8,unix", "*"),
    "PROXY_HEADERS": ("forwarded",),
    "PROXY_PROTOCOL": True,
    "URL_PREFIX": "/shop/v2",
    "STATIC": "off",
    "STATIC_MAX_AGE": "1h",
    "X_ACCEL_MAPPING": ("/srv/files=/internal", "/=/all"),
    "MOUNTS": ("/api=other:create_app('a b', \"c,d\")", "admin.example.com=project.wsgi:application,localhost/x=x"),
    "LIVENESS_PATH": "/health",
    "READINESS_PATH": "off",
    "ACCESS_LOG": "off",
    "ACCESS_LOG_FORMAT": "json",
    "SLOW_REQUEST": "2s",
    "LOG_LEVEL": "critical",
    "CONTROL_SOCKET": "/run/my app/$control.socket",
    "SERVER_HEADER": "it's a $SERVER # 1 \\ two",
    "ALLOW_DEBUG": True,
    "REPLACE_RUN": True,
}


def changed() -> Resolved:
    return resolve([command_line(CHANGED)])


def read_by_a_shell(text: str) -> dict[str, str]:
    """What a POSIX shell makes of *text*."""
    names = " ".join(row.key for row in TABLE.values())
    script = f'set -a\n{text}\nset +a\nfor name in {names}; do eval "value=\\$$name"; printf "%s=%s\\0" "$name" "$value"; done'
    output = subprocess.run(["/bin/sh", "-c", script], env={}, stdout=subprocess.PIPE, check=True).stdout.decode()
    return dict(pair.split("=", 1) for pair in output.split("\0")[:-1])


def test_all_settings_have_a_changed_value() -> None:
    """The values of these tests differ from the default for every setting; those that others exclude have their own tests."""
    resolved = changed()
    same = {row.name for row in TABLE.values() if resolved.settings.value(row) == Settings().value(row)}
    assert same == {"HOST", "PORT", "USER"}


RESOLVED = pytest.mark.parametrize(
    "resolved",
    [
        resolve([]),
        changed(),
        resolve([command_line({"HOST": "*", "PORT": "0"})]),
        resolve([command_line({"HOST": "[::1]"})]),
        resolve([command_line({"USER": "$name"})]),
        resolve(
            [
                platform({"PORT": "5000", "WEB_CONCURRENCY": "4", "FORWARDED_ALLOW_IPS": "::1"}),
                app_config({"MAX_CONTENT_LENGTH": 123456}),
            ]
        ),
    ],
    ids=["defaults", "changed", "every-interface", "ipv6", "user", "platform"],
)


@RESOLVED
def test_environment_can_be_fed_to_a_shell(resolved: Resolved) -> None:
    """What `--format env` prints gives the same settings to the next server, through a shell."""
    variables = read_by_a_shell(render.as_environment(resolved))
    assert resolve([environment(variables)]).settings == resolved.settings


@RESOLVED
def test_environment_can_be_a_dotenv_file(resolved: Resolved) -> None:
    """The same text is good as a .env file, as long as no value has an apostrophe, which a shell and python-dotenv quote differently."""
    lines = [line for line in render.as_environment(resolved).splitlines() if "'\"'\"'" not in line]
    left_out = {row.name for row in TABLE.values() if row.key not in "\n".join(lines)}
    variables = dotenv_values(stream=io.StringIO("\n".join(lines)))
    read = resolve([environment({name: value or "" for name, value in variables.items()})], complete=False).settings
    for row in TABLE.values():
        if row.name not in left_out:
            assert read.value(row) == resolved.settings.value(row), row.name


def test_environment_pins_what_was_decided() -> None:
    """In the env format what is at its default is a comment, and all settings are there."""
    lines = render.as_environment(resolve([command_line({"THREADS": "3"})])).splitlines()
    assert len(lines) == len(TABLE)
    assert [line for line in lines if not line.startswith("# PRODSERVE_")] == ["PRODSERVE_THREADS=3"]
    assert "# PRODSERVE_PORT=8000" in lines
    assert "# PRODSERVE_TLS_CERT=" in lines


def test_environment_is_one_line_a_setting() -> None:
    """The words of a line are one assignment to a shell, whatever the value contains."""
    for line in render.as_environment(changed()).splitlines():
        assert len(shlex.split(line, comments=True)) <= 1


def test_json_round_trip() -> None:
    """`--format json` has every setting with the value as it would be written and its origin; unset ones are null."""
    resolved = changed()
    told = json.loads(render.as_json(resolved))
    assert list(told) == list(TABLE)
    assert {name: entry["origin"] for name, entry in told.items()} == resolved.origins
    given = {name: entry["value"] for name, entry in told.items() if entry["origin"] != DEFAULT_ORIGIN}
    assert resolve([command_line(given)]).settings == resolved.settings
    assert json.loads(render.as_json(resolve([])))["TRUSTED_PROXIES"] == {"value": None, "origin": DEFAULT_ORIGIN}


def test_table() -> None:
    """The table has one line a setting with name, value and origin, in columns."""
    resolved = resolve([environment({"PRODSERVE_THREADS": "3"}), app_config({"MAX_CONTENT_LENGTH": 1024})])
    lines = render.as_table(resolved).splitlines()
    assert [line.split()[0] for line in lines] == list(TABLE)
    shown = {line.split()[0]: line for line in lines}
    assert shown["THREADS"].split(maxsplit=2) == ["THREADS", "3", "PRODSERVE_THREADS in the environment"]
    assert shown["MAX_BODY_SIZE"].split(maxsplit=2) == ["MAX_BODY_SIZE", "1KiB", 'app.config["MAX_CONTENT_LENGTH"]']
    assert shown["BIND"].split(maxsplit=1) == ["BIND", "HOST and PORT" + shown["BIND"].partition("HOST and PORT")[2]]
    assert shown["THREADS"].index("PRODSERVE_THREADS in") == shown["MAX_BODY_SIZE"].index("app.config")


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_explain(row: Setting) -> None:
    """An explanation has the value and its origin, what the setting bounds, why, and all spellings in places that may give it."""
    resolved = changed()
    text = render.explain(row, resolved)
    told = row.declaration
    assert text.startswith(f"{row.name} = {row.write(resolved.settings.value(row))}  ({resolved.origins[row.name]})\n")
    for part in (told.summary, told.why, told.default or told.unset, f"Environment:  {row.key}"):
        assert part in text
    assert (f"{row.argument}=..." in text) == (f"app.config:   {row.key}" in text) == (not told.early)
    assert (f"Command line: {render.option_names(row)}" in text) == told.on_command_line


def test_option_names() -> None:
    """Options are shown as they are typed: with the short form, what they take, or the form that switches off."""
    assert render.option_names(TABLE["PORT"]) == "-p, --port PORT"
    assert render.option_names(TABLE["MAX_BODY_SIZE"]) == "--max-body-size SIZE"
    assert render.option_names(TABLE["ALLOW_DEBUG"]) == "--allow-debug/--no-allow-debug"


def test_reference() -> None:
    """The reference has every group and every setting with its summary and reason, and leaves no line with a blank at its end."""
    text = render.as_reference()
    headings = [line.removeprefix("### ").strip("`") for line in text.splitlines() if line.startswith("### ")]
    assert headings == list(TABLE)
    unwrapped = " ".join(text.split())
    for row in TABLE.values():
        assert row.declaration.summary in unwrapped
        assert row.declaration.why in unwrapped
        where = "Environment" if row.declaration.early else "Environment and `app.config`"
        assert f"- {where}: `{row.key}`" in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert text.endswith(".\n")
