"""ProdServe: what attaching it to an app checks, keeps and changes, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
from flask import Flask

import flask_prodserve
from flask_prodserve import ProdServe, serve
from flask_prodserve.apps.app_state import app_layers
from flask_prodserve.apps.hooks import hooks_of
from flask_prodserve.clock import Deadline
from flask_prodserve.extension import _development_defaults, resolve_for
from flask_prodserve.settings import Settings, SettingsError, arguments, command_line, resolve
from flask_prodserve.units import SystemdAddress, TCPAddress, UnixAddress
from serving import wait_until


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("FLASK_", "PRODSERVE_")) or name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)


@pytest.fixture
def app() -> Flask:
    return Flask("an_app")


def settings(app: Flask) -> Settings:
    return resolve_for(app, []).settings


def is_replaced(app: Flask) -> bool:
    return "run" in vars(app)


# Attaching.


def test_attaching_changes_only_the_state(app: Flask) -> None:
    """An app with ProdServe has its state in app.extensions, and is otherwise as it was."""
    before = {**vars(app), "extensions": {}}
    config = dict(app.config)
    ProdServe(app)
    assert list(app.extensions) == ["prodserve"]
    assert {**vars(app), "extensions": {}} == before
    assert dict(app.config) == config


def test_the_object_holds_no_app(app: Flask) -> None:
    """ProdServe keeps nothing of an app, in whatever way it was attached."""
    prodserve = ProdServe(app, threads=2)
    assert app not in vars(prodserve).values()
    assert vars(prodserve).keys() == vars(ProdServe()).keys()


def test_state_is_frozen(app: Flask) -> None:
    """Neither the state nor the arguments in it can be changed behind the checks that have been made."""
    ProdServe(app, threads=2)
    state = app.extensions["prodserve"]
    with pytest.raises(FrozenInstanceError):
        state.arguments = {}
    with pytest.raises(TypeError):
        state.arguments["threads"] = 3


def test_several_apps_and_several_objects() -> None:
    """Apps in one process have their own settings, whether they share a ProdServe or not."""
    shared, other = ProdServe(threads=3), ProdServe(threads=4)
    apps = [Flask(name) for name in "abc"]
    shared.init_app(apps[0])
    shared.init_app(apps[1])
    other.init_app(apps[2])
    apps[1].config["PRODSERVE_THREADS"] = 5
    assert [settings(app).workers.threads for app in apps] == [3, 5, 4]


def test_settings_are_read_when_they_are_needed(app: Flask) -> None:
    """Keys that are set after init_app count when the app is served; a mistake among them is found then."""
    ProdServe(app, threads=2)
    app.config["PRODSERVE_THREADS"] = 3
    assert settings(app).workers.threads == 3
    app.config["PRODSERVE_THREADS"] = "three"
    with pytest.raises(SettingsError):
        settings(app)


def test_an_app_without_prodserve(app: Flask) -> None:
    """The keys of an app count also where nothing was attached to it."""
    app.config["PRODSERVE_THREADS"] = 3
    assert settings(app).workers.threads == 3
    assert resolve(app_layers(Flask("plain"))).settings == Settings()


# Hooks.


def started(*apps: Flask) -> None:
    for one in apps:
        hooks_of(one).run_worker_started(one)


@pytest.mark.parametrize("hook", ["before_fork", "worker_started", "worker_stopping"])
def test_hooks_are_decorators(app: Flask, hook: str) -> None:
    """A hook gives back the function it is put on, which is then run with the app."""
    seen: list[Flask] = []

    def function(app: Flask) -> None:
        seen.append(app)

    assert getattr(ProdServe(app), hook)(function) is function
    getattr(hooks_of(app), f"run_{hook}")(app)
    assert seen == [app]


def test_once_is_a_decorator(app: Flask) -> None:
    """once gives back the function it is put on, and the server then knows that there is something for one process."""
    prodserve = ProdServe(app)
    assert not hooks_of(app).has_once
    seen: list[Flask] = []

    @prodserve.once
    def function(app: Flask) -> None:
        seen.append(app)

    function(app)
    assert hooks_of(app).has_once
    running = hooks_of(app).start_once(app)
    wait_until(lambda: running.stop(Deadline(0)))
    assert seen == [app, app]


def test_hooks_before_and_after_init_app(app: Flask) -> None:
    """With an app factory it does not matter whether functions are registered before the app is there or after."""
    prodserve, seen = ProdServe(), list[str]()
    prodserve.worker_started(lambda app: seen.append("before"))
    prodserve.init_app(app)
    prodserve.worker_started(lambda app: seen.append("after"))
    started(app)
    assert seen == ["before", "after"]


def test_hooks_of_several_apps() -> None:
    """Apps that share a ProdServe share its functions, which get the app they are run for; others have none of them."""
    shared, other, seen = ProdServe(), ProdServe(), list[tuple[str, str]]()
    shared.worker_started(lambda app: seen.append(("shared", app.name)))
    other.worker_started(lambda app: seen.append(("other", app.name)))
    apps = [Flask(name) for name in "abcd"]
    shared.init_app(apps[0])
    shared.init_app(apps[1])
    other.init_app(apps[2])
    started(*apps)
    assert seen == [("shared", "a"), ("shared", "b"), ("other", "c")]


@pytest.mark.parametrize("hook", ["before_fork", "worker_started", "worker_stopping", "once"])
def test_what_hooks_refuse(hook: str) -> None:
    """A hook that is put on what is no function of the app fails where that stands."""
    with pytest.raises(TypeError, match=f"^{hook} takes a function of the app, not None$"):
        getattr(ProdServe(), hook)(None)


# The order of places around the app.


def test_places(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app is served with the caller's layer over the environment over the platform over app.config over the arguments."""
    ProdServe(app, port=1)
    assert settings(app).bind.port == 1
    app.config["PRODSERVE_PORT"] = 2
    assert settings(app).bind.port == 2
    monkeypatch.setenv("PORT", "3")
    assert settings(app).bind.port == 3
    monkeypatch.setenv("FLASK_PRODSERVE_PORT", "4")
    assert settings(app).bind.port == 4
    monkeypatch.setenv("PRODSERVE_PORT", "5")
    assert settings(app).bind.port == 5
    assert resolve_for(app, [command_line({"PORT": "6"})]).settings.bind.port == 6
    assert resolve_for(app, [], [arguments({"port": 7}, "x")]).settings.bind.port == 5


def test_max_content_length(app: Flask) -> None:
    """The app's MAX_CONTENT_LENGTH is its body limit; Flask's default, None, is not."""
    assert settings(app).limits.max_body_size == Settings().limits.max_body_size
    app.config["MAX_CONTENT_LENGTH"] = 1000
    assert settings(app).limits.max_body_size == 1000


# What init_app refuses.


def test_everything_wrong_at_once(app: Flask) -> None:
    """init_app finds every wrong key and argument of the app, says whose it is, and replaces nothing."""
    app.config.update(PRODSERVE_THREADS="many", PRODSERVE_TREADS=1, PRODSERVE_REPLACE_RUN=True)
    with pytest.raises(SettingsError) as caught:
        ProdServe(app, port=70000, prot=1)
    assert [problem.what for problem in caught.value.problems] == [
        'app.config["PRODSERVE_TREADS"] is not a setting.',
        "app.config[\"PRODSERVE_THREADS\"] is 'many', which is not valid.",
        "ProdServe(prot=...) is not a setting.",
        "ProdServe(port=...) is 70000, which is not valid.",
    ]
    assert not is_replaced(app)


def test_a_mistake_is_found_with_the_app(app: Flask) -> None:
    """Arguments are checked when there is an app: a ProdServe at module level does not fail the import."""
    prodserve = ProdServe(treads=1)
    with pytest.raises(SettingsError, match="Did you mean threads"):
        prodserve.init_app(app)


def test_the_environment_is_not_the_apps_business(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the environment stops a server, not every script that makes the app."""
    monkeypatch.setenv("PRODSERVE_THREADS", "many")
    monkeypatch.setenv("PRODSERVE_TREADS", "1")
    monkeypatch.setenv("PORT", "x")
    ProdServe(app)
    with pytest.raises(SettingsError) as caught:
        settings(app)
    assert len(caught.value.problems) == 3


def test_half_a_pair_may_come_from_elsewhere(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the app says need not be complete: the deployment may add the key to the certificate, or raise the larger limit."""
    app.config.update(PRODSERVE_TLS_CERT="cert.pem", PRODSERVE_MAX_REQUEST_LINE="64KiB")
    ProdServe(app)
    with pytest.raises(SettingsError, match="TLS_KEY is not"):
        settings(app)
    monkeypatch.setenv("PRODSERVE_TLS_KEY", "key.pem")
    monkeypatch.setenv("PRODSERVE_MAX_HEADER_SIZE", "128KiB")
    assert (settings(app).tls.tls_cert, settings(app).tls.tls_key) == (("cert.pem",), ("key.pem",))


def test_early_settings(app: Flask) -> None:
    """What the server needs before it loads the app is refused from the app when it is served."""
    app.config["PRODSERVE_UMASK"] = "027"
    ProdServe(app, user="nobody", workers=0)
    with pytest.raises(SettingsError) as caught:
        settings(app)
    assert [problem.what.split(" comes too late")[0] for problem in caught.value.problems] == [
        'app.config["PRODSERVE_UMASK"]',
        "ProdServe(user=...)",
        "ProdServe(workers=...)",
    ]


def test_early_settings_that_the_app_has_from_the_environment(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that reads all FLASK_* variables into its config repeats what was there in time, and may."""
    monkeypatch.setenv("FLASK_PRODSERVE_BOOT_TIMEOUT", "5")
    monkeypatch.setenv("FLASK_PRODSERVE_WORKERS", "0")
    app.config.from_prefixed_env()
    assert app.config["PRODSERVE_BOOT_TIMEOUT"] == 5
    ProdServe(app)
    assert (settings(app).workers.boot_timeout, settings(app).workers.workers) == (5.0, 0)


def test_none_is_not_given(app: Flask) -> None:
    """None as an argument or a key leaves the setting to others."""
    app.config["PRODSERVE_THREADS"] = None
    ProdServe(app, threads=None, port=1)
    assert settings(app).workers.threads == Settings().workers.threads
    assert settings(app).bind.port == 1


# Whether app.run() is replaced.


@pytest.mark.parametrize(
    ("variables", "key", "argument", "replaced"),
    [
        ({}, None, None, False),
        ({}, None, True, True),
        ({}, True, None, True),
        ({}, "yes", None, True),
        ({"PRODSERVE_REPLACE_RUN": "1"}, None, None, True),
        ({"FLASK_PRODSERVE_REPLACE_RUN": "true"}, None, None, True),
        ({}, False, True, False),
        ({"PRODSERVE_REPLACE_RUN": "0"}, True, True, False),
        ({"PRODSERVE_REPLACE_RUN": ""}, True, None, True),
        ({"PRODSERVE_REPLACE_RUN": "1"}, False, False, True),
    ],
)
def test_replace_run(
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    key: object,
    argument: bool | None,
    replaced: bool,
) -> None:
    """REPLACE_RUN may stand in the environment, in app.config and in the arguments, in that order; by default nothing is replaced."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    app.config["PRODSERVE_REPLACE_RUN"] = key
    ProdServe(app, replace_run=argument)
    assert is_replaced(app) == replaced


def test_replace_run_must_be_valid(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A REPLACE_RUN that is neither true nor false is refused in every place that may say it."""
    monkeypatch.setenv("PRODSERVE_REPLACE_RUN", "perhaps")
    app.config["PRODSERVE_REPLACE_RUN"] = "perhaps"
    with pytest.raises(SettingsError) as caught:
        ProdServe(app, replace_run="perhaps")
    assert len(caught.value.problems) == 3


def test_other_apps_keep_their_run(app: Flask) -> None:
    """Replacing is for one app, not for the class."""
    ProdServe(app, replace_run=True)
    assert is_replaced(app)
    assert not is_replaced(Flask("other"))
    assert Flask.run is type(app).run


def test_replaced_run_under_the_flask_command(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the flask command the replaced app.run() returns at once, whatever it is given, and Flask says that it is ignored."""
    ProdServe(app, replace_run=True)
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    app.run("0.0.0.0", 80, debug=True, ssl_context="adhoc", threaded=False)
    assert "Ignoring a call to 'app.run()'" in capsys.readouterr().out


# Where app.run() listens.


def where(app: Flask, **given: object) -> tuple[object, ...]:
    layers = [arguments(given, "app.run")], [_development_defaults(app)]
    return resolve_for(app, *layers).settings.bind.addresses


@pytest.mark.parametrize(
    ("server_name", "given", "address"),
    [
        (None, {}, TCPAddress("127.0.0.1", 5000)),
        (None, {"port": 1}, TCPAddress("127.0.0.1", 1)),
        (None, {"port": 0}, TCPAddress("127.0.0.1", 0)),
        (None, {"port": "1"}, TCPAddress("127.0.0.1", 1)),
        (None, {"host": "0.0.0.0"}, TCPAddress("0.0.0.0", 5000)),
        (None, {"host": "::1", "port": 1}, TCPAddress("::1", 1)),
        ("localhost", {}, TCPAddress("localhost", 5000)),
        ("localhost:6000", {}, TCPAddress("localhost", 6000)),
        ("localhost:6000", {"port": 1}, TCPAddress("localhost", 1)),
        ("localhost:6000", {"host": "0.0.0.0"}, TCPAddress("0.0.0.0", 6000)),
    ],
)
def test_where_app_run_listens(
    app: Flask, server_name: str | None, given: dict[str, object], address: TCPAddress
) -> None:
    """Where nobody else says where, app.run() listens where Flask's would: arguments, SERVER_NAME, 127.0.0.1 and port 5000."""
    app.config["SERVER_NAME"] = server_name
    assert where(app, **given) == (address,)


def test_settings_come_before_the_defaults_of_app_run(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has set HOST, PORT or BIND anywhere means it: only the call's own arguments are stronger."""
    app.config.update(SERVER_NAME="localhost:6000", PRODSERVE_BIND="unix:app.sock")
    assert where(app) == (UnixAddress("app.sock"),)
    assert where(app, port=1) == (TCPAddress("localhost", 1),)
    monkeypatch.setenv("PRODSERVE_HOST", "::1")
    assert where(app) == (TCPAddress("::1", 6000),)
    assert where(app, host="127.0.0.1") == (TCPAddress("127.0.0.1", 6000),)


def test_app_run_on_a_platform(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """PORT in the environment opens every interface also under app.run(), and not the host in SERVER_NAME, which is the router's."""
    monkeypatch.setenv("PORT", "9000")
    assert where(app) == (TCPAddress("", 9000),)
    app.config["SERVER_NAME"] = "example.com"
    assert where(app) == (TCPAddress("", 9000),)
    assert where(app, host="127.0.0.1") == (TCPAddress("127.0.0.1", 9000),)


# Scripts.


@pytest.mark.parametrize("call", ["serve", "run"])
def test_scripts_end_with_the_exit_code(app: Flask, capsys: pytest.CaptureFixture[str], call: str) -> None:
    """serve() and run() print what is wrong to standard error and exit with its code: they stand at the end of scripts."""
    function = serve if call == "serve" else ProdServe().run
    with pytest.raises(SystemExit) as caught:
        function(app, port="http")
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "Error: One setting is wrong:\n"
        f"  - {call}(port=...) is 'http', which is not valid.\n"
        "    PORT takes a port from 0 to 65535 (0: the system chooses).\n"
    )


# The package.


def test_public_names() -> None:
    """The package offers ProdServe, serve and its version, and says so of others as every module does."""
    assert sorted(flask_prodserve.__all__) == ["ProdServe", "__version__", "serve"]
    assert all(getattr(flask_prodserve, name) for name in flask_prodserve.__all__)
    with pytest.raises(AttributeError, match="module 'flask_prodserve' has no attribute 'Serve'"):
        _ = flask_prodserve.Serve


def test_attaching_does_not_import_the_server() -> None:
    """An app with ProdServe does not import waitress, so neither does the app under another server or in a shell."""
    code = (
        "import sys, flask, flask_prodserve\n"
        "flask_prodserve.ProdServe(flask.Flask('x'), replace_run=True)\n"
        "print('waitress' in sys.modules, 'flask_prodserve.engine' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_sockets_for_another_process(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that a service manager passed to another process are not taken, and those for this one are (sd_listen_fds(3))."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    for pid, addresses in ((os.getppid(), (TCPAddress("127.0.0.1", 8000),)), (os.getpid(), (SystemdAddress(),))):
        monkeypatch.setenv("LISTEN_PID", str(pid))
        assert settings(app).bind.addresses == addresses
