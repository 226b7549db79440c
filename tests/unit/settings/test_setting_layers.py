"""Layers: each place's spelling of the names, what counts as not given, and what is said of names that nobody knows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Config

from flask_prodserve.settings import TABLE, Layer, app_config, arguments, command_line, environment, platform, resolve
from flask_prodserve.units import SystemdAddress


def values(layer: Layer) -> dict[str, object]:
    return {name: raw.value for name, raw in layer.values.items()}


def origins(layer: Layer) -> dict[str, str]:
    return {name: raw.origin for name, raw in layer.values.items()}


def test_every_name_in_every_place() -> None:
    """All settings can be given in each of the four places, and their values are passed on as they are."""
    given = {name: object() for name in TABLE}
    layers = [
        command_line(given),
        environment({row.key: name for name, row in TABLE.items()}),
        app_config({row.key: given[name] for name, row in TABLE.items()}),
        arguments({row.argument: given[name] for name, row in TABLE.items()}, "serve"),
    ]
    assert [layer.unknown for layer in layers] == [()] * 4
    assert values(layers[1]) == {name: name for name in TABLE}
    assert [values(layer) for layer in (layers[0], layers[2], layers[3])] == [given] * 3


@pytest.mark.parametrize(
    ("layer", "origin"),
    [
        (command_line({"MAX_BODY_SIZE": "1"}), "--max-body-size"),
        (environment({"PRODSERVE_MAX_BODY_SIZE": "1"}), "PRODSERVE_MAX_BODY_SIZE in the environment"),
        (environment({"FLASK_PRODSERVE_MAX_BODY_SIZE": "1"}), "FLASK_PRODSERVE_MAX_BODY_SIZE in the environment"),
        (app_config({"PRODSERVE_MAX_BODY_SIZE": "1"}), 'app.config["PRODSERVE_MAX_BODY_SIZE"]'),
        (app_config({"MAX_CONTENT_LENGTH": "1"}), 'app.config["MAX_CONTENT_LENGTH"]'),
        (arguments({"max_body_size": "1"}, "ProdServe"), "ProdServe(max_body_size=...)"),
    ],
)
def test_origin(layer: Layer, origin: str) -> None:
    """An origin is spelled as the person who gave the value spelled it."""
    assert origins(layer) == {"MAX_BODY_SIZE": origin}


@pytest.mark.parametrize(("age", "seconds"), [(7, 7), (timedelta(hours=1), 3600), (0, 0), (-1, 0), ("5m", "5m")])
def test_age_of_files(age: object, seconds: object) -> None:
    """SEND_FILE_MAX_AGE_DEFAULT is the age of static files, in each form that Flask takes; below 0 it means what 0 does."""
    layer = app_config({"SEND_FILE_MAX_AGE_DEFAULT": age})
    assert values(layer) == {"STATIC_MAX_AGE": seconds}
    assert origins(layer) == {"STATIC_MAX_AGE": 'app.config["SEND_FILE_MAX_AGE_DEFAULT"]'}


def test_not_given() -> None:
    """None is not given anywhere in Python, an empty variable is not given in the environment, an option without values either."""
    assert values(command_line({"THREADS": None, "BIND": ()})) == {}
    assert values(arguments({"threads": None}, "serve")) == {}
    assert (
        values(app_config({"PRODSERVE_THREADS": None, "MAX_CONTENT_LENGTH": None, "SEND_FILE_MAX_AGE_DEFAULT": None}))
        == {}
    )
    assert values(environment({"PRODSERVE_THREADS": "", "FLASK_PRODSERVE_PORT": ""})) == {}
    assert values(platform({"PORT": "", "FORWARDED_ALLOW_IPS": ""})) == {}


def test_zero_and_false_are_given() -> None:
    """Zero and False are values like others."""
    assert values(command_line({"PORT": 0, "ALLOW_DEBUG": False})) == {"PORT": 0, "ALLOW_DEBUG": False}
    assert values(arguments({"port": 0, "replace_run": False}, "serve")) == {"PORT": 0, "REPLACE_RUN": False}
    assert values(app_config({"PRODSERVE_PORT": 0, "MAX_CONTENT_LENGTH": 0})) == {"PORT": 0, "MAX_BODY_SIZE": 0}


def test_both_spellings_in_the_environment() -> None:
    """Of PRODSERVE_X and FLASK_PRODSERVE_X the first wins, whatever their order; an empty one does not hide the other."""
    both = {"FLASK_PRODSERVE_THREADS": "1", "PRODSERVE_THREADS": "2"}
    assert values(environment(both)) == values(environment(dict(reversed(both.items())))) == {"THREADS": "2"}
    assert values(environment({"PRODSERVE_THREADS": "", "FLASK_PRODSERVE_THREADS": "1"})) == {"THREADS": "1"}


def test_other_variables_are_left_alone() -> None:
    """Only names with the prefix are looked at."""
    others = {
        "PATH": "/bin",
        "FLASK_APP": "x",
        "PORT": "80",
        "MY_PRODSERVE_THREADS": "1",
        "PRODSERVER": "x",
        "FLASK_DEBUG": "1",
    }
    assert environment(others) == Layer({})
    layer = app_config({"DEBUG": True, "SECRET_KEY": "x", "PORT": 1, "prodserve_threads": 1})
    assert (layer.values, layer.unknown) == ({}, ())


def test_platform() -> None:
    """PORT, WEB_CONCURRENCY and FORWARDED_ALLOW_IPS are the variables of others that are understood."""
    layer = platform({"PORT": "80", "FORWARDED_ALLOW_IPS": "*", "HOST": "x", "WEB_CONCURRENCY": "2", "WORKERS": "3"})
    assert values(layer) == {"PORT": "80", "WORKERS": "2", "TRUSTED_PROXIES": "*"}
    assert origins(layer)["TRUSTED_PROXIES"] == "FORWARDED_ALLOW_IPS in the environment"


def test_sockets_of_systemd() -> None:
    """Where systemd has passed sockets they are what to listen on, unless the platform names a port."""
    assert values(platform({"LISTEN_FDS": "2"})) == {"BIND": "systemd"}
    assert values(platform({"LISTEN_FDS": "2", "PORT": "80"})) == {"PORT": "80"}
    assert resolve([platform({"LISTEN_FDS": "1"}), app_config({"PRODSERVE_PORT": 1})]).settings.bind.addresses == (
        SystemdAddress(),
    )


def test_what_an_app_says_is_late() -> None:
    """An app is heard once it is loaded; all other places, the arguments of other calls among them, are there before."""
    app = [app_config({"PRODSERVE_THREADS": 1}), arguments({"threads": 1}, "ProdServe", late=True)]
    others = [command_line({}), environment({}), platform({}), arguments({"threads": 1}, "serve")]
    assert [layer.late for layer in app + others] == [True, True, False, False, False, False]


def test_max_content_length_is_the_weaker_body_limit() -> None:
    """PRODSERVE_MAX_BODY_SIZE is preferred to MAX_CONTENT_LENGTH, in whatever order they stand; unset it does not hide it."""
    for keys in (["MAX_CONTENT_LENGTH", "PRODSERVE_MAX_BODY_SIZE"], ["PRODSERVE_MAX_BODY_SIZE", "MAX_CONTENT_LENGTH"]):
        layer = app_config({key: key for key in keys})
        assert values(layer) == {"MAX_BODY_SIZE": "PRODSERVE_MAX_BODY_SIZE"}
    layer = app_config({"MAX_CONTENT_LENGTH": 5, "PRODSERVE_MAX_BODY_SIZE": None})
    assert values(layer) == {"MAX_BODY_SIZE": 5}


@pytest.mark.parametrize(
    ("layer", "what", "hint"),
    [
        (
            environment({"PRODSERVE_TREADS": "1"}),
            "PRODSERVE_TREADS in the environment",
            "Did you mean PRODSERVE_THREADS?",
        ),
        (
            environment({"FLASK_PRODSERVE_TREADS": "1"}),
            "FLASK_PRODSERVE_TREADS in the environment",
            "Did you mean FLASK_PRODSERVE_THREADS?",
        ),
        (app_config({"PRODSERVE_TREADS": 1}), 'app.config["PRODSERVE_TREADS"]', "Did you mean PRODSERVE_THREADS?"),
        (arguments({"treads": 1}, "serve"), "serve(treads=...)", "Did you mean threads?"),
        (arguments({"THREADS": 1}, "serve"), "serve(THREADS=...)", "Did you mean threads?"),
        (
            environment({"PRODSERVE_threads": "1"}),
            "PRODSERVE_threads in the environment",
            "Did you mean PRODSERVE_THREADS?",
        ),
        (
            environment({"PRODSERVE_REQEST_TIMEOUT": "1"}),
            "PRODSERVE_REQEST_TIMEOUT in the environment",
            "Did you mean PRODSERVE_REQUEST_TIMEOUT?",
        ),
        (environment({"PRODSERVE_CERT": "1"}), "PRODSERVE_CERT in the environment", "Did you mean PRODSERVE_TLS_CERT?"),
    ],
)
def test_did_you_mean(layer: Layer, what: str, hint: str) -> None:
    """An unknown name is reported with its origin and the nearest name, spelled as it would be right in that place."""
    (problem,) = layer.unknown
    assert problem.what == f"{what} is not a setting."
    assert problem.hint == hint
    assert layer.values == {}


@pytest.mark.parametrize("name", ["X", "", "LETSENCRYPT", "SERVICE_HOST"])
def test_no_wild_guesses(name: str) -> None:
    """The prefix makes no two names alike: what is near to nothing is answered with where all names are."""
    for layer in (environment({"PRODSERVE_" + name: "1"}), app_config({"PRODSERVE_" + name: "1"})):
        assert [problem.hint for problem in layer.unknown] == ["`flask serve --help` lists all settings."]


def test_all_unknown_names_are_reported() -> None:
    """Each unknown name is a problem of its own, in both spellings; an unknown name with the value None is one too."""
    assert len(environment({"PRODSERVE_A": "1", "PRODSERVE_B": "1", "FLASK_PRODSERVE_A": "1"}).unknown) == 3
    assert len(app_config({"PRODSERVE_A": None}).unknown) == 1
    assert len(arguments({"a": None}, "serve").unknown) == 1


def test_config_from_prefixed_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLASK_PRODSERVE_* as Config.from_prefixed_env reads it, numbers and all, is what the environment's layer reads, too."""
    monkeypatch.setenv("FLASK_PRODSERVE_THREADS", "3")
    config = Config("")
    config.from_prefixed_env()
    assert values(app_config(config)) == {"THREADS": 3}
