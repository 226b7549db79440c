"""Settings of what is served: static files, mounted apps, debug mode."""

from __future__ import annotations

from dataclasses import dataclass

from ..declaration import setting
from ..kinds import AGE, BOOLEAN, MOUNTS, SWITCH, TEXT, X_ACCEL, several
from ..mounts import Mount


@dataclass(frozen=True)
class Files:
    """Static files and downloads."""

    static: str = setting(
        SWITCH,
        "auto",
        "Serve static files of the app and its blueprints without calling the app: auto, on or off. Needs the extra 'static'.",
        why=(
            "auto: if whitenoise is installed and no code of the app runs around its static files. Such code, for example a "
            "before_request function, may restrict access. on: bypass that code."
        ),
    )
    static_max_age: float = setting(
        AGE,
        "60s",
        "How long browsers and caches may keep a static file before they ask again. With 0 they ask every time.",
        why=(
            "The app's own SEND_FILE_MAX_AGE_DEFAULT is used if it is set. A minute saves repeated requests during one visit, and "
            "a deploy is visible soon. Files with a hash of their content in the name are kept for ever."
        ),
    )
    x_accel_mapping: tuple[tuple[str, str], ...] | None = setting(
        several(X_ACCEL),
        None,
        "Folders whose files nginx sends for the app, with their internal locations: /srv/files=/internal. Repeatable.",
        why=(
            "Unset: the app's X-Sendfile is passed on, which Apache understands. nginx needs X-Accel-Redirect, with a URL from its own "
            "configuration instead of a path."
        ),
        unset="none",
    )


@dataclass(frozen=True)
class WSGI:
    """What is served beside the app."""

    mounts: tuple[Mount, ...] | None = setting(
        MOUNTS,
        None,
        "Other WSGI apps beside this one, by path, host, or host and path: /api=other:app, /admin=project.wsgi:application. Repeatable.",
        why=(
            "None: one app. Name an app as for `flask --app` (also a factory with arguments); it need not be a Flask app, and finds its "
            "path in SCRIPT_NAME. A matching host counts before the path, and the longest path first. In app.config, use a mapping, "
            "also to WSGI callables. ProdServe.mount() adds to these."
        ),
        unset="none",
        option="--mount",
    )


@dataclass(frozen=True)
class Behaviour:
    """Other behaviour."""

    server_header: str | None = setting(
        TEXT,
        None,
        "Text for the Server response header.",
        why="Off: it mainly helps attackers who look for known weaknesses.",
        unset="no Server header",
    )
    allow_debug: bool = setting(
        BOOLEAN,
        "false",
        "Serve an app even if it is in debug mode.",
        why="Debug pages show code, settings and secrets to anyone who causes an error. For development, use `flask run --debug`.",
    )
    replace_run: bool = setting(
        BOOLEAN,
        "false",
        "Let app.run() start this server. Read when ProdServe is attached to the app.",
        why="Off: app.run() starts Flask's development server unless you change this.",
        on_command_line=False,
    )
