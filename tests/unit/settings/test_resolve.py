"""Resolving: which place wins, where each value came from, and that everything wrong is said at once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.errors import ExitCode
from flask_prodserve.settings import (
    DEFAULT_ORIGIN,
    TABLE,
    Layer,
    Resolved,
    Settings,
    SettingsError,
    app_config,
    arguments,
    command_line,
    environment,
    platform,
    resolve,
)
from flask_prodserve.settings.layers import PLATFORM_VARIABLES
from flask_prodserve.units import TCPAddress, UnixAddress

# The places, strongest first, each able to say where to listen and whom to trust.
PLACES = {
    "command line": lambda port: command_line({"PORT": str(port)}),
    "environment": lambda port: environment({"PRODSERVE_PORT": str(port)}),
    "platform": lambda port: platform({"PORT": str(port)}),
    "app.config": lambda port: app_config({"PRODSERVE_PORT": port}),
    "ProdServe": lambda port: arguments({"port": port}, "ProdServe"),
}
ORIGINS = {
    "command line": "--port",
    "environment": "PRODSERVE_PORT in the environment",
    "platform": "PORT in the environment",
    "app.config": 'app.config["PRODSERVE_PORT"]',
    "ProdServe": "ProdServe(port=...)",
}


def problems(*layers: Layer, complete: bool = True) -> list[tuple[str, str]]:
    with pytest.raises(SettingsError) as caught:
        resolve(layers, complete=complete)
    return [(problem.what, problem.hint) for problem in caught.value.problems]


def test_nothing_given() -> None:
    """Without any layer everything has its default, and says so."""
    resolved = resolve([])
    assert resolved.settings == Settings()
    assert resolved.origins == dict.fromkeys(TABLE, DEFAULT_ORIGIN)
    assert resolved.warnings == ()


@pytest.mark.parametrize(("stronger", "weaker"), list(itertools.pairwise(PLACES)))
def test_order_of_neighbours(stronger: str, weaker: str) -> None:
    """Each place overrules the next one, and the origin tells which of them it was."""
    layers = {place: PLACES[place](number) for number, place in enumerate(PLACES, start=1)}
    resolved = resolve([layers[stronger], layers[weaker]])
    assert resolved.settings.bind.port == list(PLACES).index(stronger) + 1
    assert resolved.origins["PORT"] == ORIGINS[stronger]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_overrules_the_default(place: str) -> None:
    """Each place alone is enough, and a place that says nothing does not hide a weaker one."""
    layers = [PLACES[name](7) if name == place else Layer({}) for name in PLACES]
    resolved = resolve(layers)
    assert resolved.settings.bind.port == 7
    assert resolved.origins["PORT"] == ORIGINS[place]


@pytest.mark.parametrize("count", range(1, len(PLACES) + 1))
def test_strongest_of_many(count: int) -> None:
    """Of any number of places the strongest wins."""
    places = list(PLACES)[-count:]
    assert resolve([PLACES[place](number) for number, place in enumerate(places)]).settings.bind.port == 0


def test_settings_are_merged_one_by_one() -> None:
    """Places that speak of different settings all count."""
    resolved = resolve(
        [
            command_line({"THREADS": "1"}),
            environment({"PRODSERVE_LOG_LEVEL": "debug"}),
            platform({"FORWARDED_ALLOW_IPS": "127.0.0.1"}),
            app_config({"PRODSERVE_MAX_CONNECTIONS": 5}),
            arguments({"graceful_timeout": "1s"}, "ProdServe"),
        ]
    )
    settings = resolved.settings
    assert settings.workers.threads == 1
    assert settings.observe.log_level == "debug"
    assert [str(network) for network in settings.proxy.trusted_proxies or ()] == ["127.0.0.1/32"]
    assert settings.limits.max_connections == 5
    assert settings.timeouts.graceful_timeout == 1.0
    assert {name for name, origin in resolved.origins.items() if origin != DEFAULT_ORIGIN} == {
        "THREADS",
        "LOG_LEVEL",
        "TRUSTED_PROXIES",
        "MAX_CONNECTIONS",
        "GRACEFUL_TIMEOUT",
    }


def test_lists_are_not_merged() -> None:
    """A list from a stronger place replaces the weaker one's: one place answers for a value."""
    resolved = resolve([command_line({"BIND": ("unix:/a",)}), app_config({"PRODSERVE_BIND": ["unix:/b", ":80"]})])
    assert resolved.settings.bind.addresses == (UnixAddress("/a"),)


def test_empty_variables() -> None:
    """An empty variable in the environment is as good as none: the weaker place decides."""
    layers = [
        environment({"PRODSERVE_THREADS": "", "FLASK_PRODSERVE_THREADS": ""}),
        app_config({"PRODSERVE_THREADS": 3}),
    ]
    assert resolve(layers).settings.workers.threads == 3


# Where to listen.


def test_bind_overrules_weaker_host_and_port() -> None:
    """BIND says all of where to listen, so HOST and PORT of weaker places have no effect, and are shown at their defaults."""
    resolved = resolve(
        [
            command_line({"BIND": (":1",)}),
            platform({"PORT": "2"}),
            app_config({"PRODSERVE_HOST": "::1", "PRODSERVE_PORT": 3}),
        ]
    )
    assert resolved.settings.bind.addresses == (TCPAddress("", 1),)
    assert resolved.settings.bind.host == Settings().bind.host
    assert {resolved.origins["HOST"], resolved.origins["PORT"]} == {DEFAULT_ORIGIN}


@pytest.mark.parametrize(("name", "address"), [("HOST", TCPAddress("::1", 8000)), ("PORT", TCPAddress("127.0.0.1", 1))])
def test_host_or_port_overrule_weaker_bind(name: str, address: TCPAddress) -> None:
    """HOST or PORT of a stronger place mean that a weaker BIND is not what is wanted."""
    value = {"HOST": "::1", "PORT": "1"}[name]
    resolved = resolve([command_line({name: value}), app_config({"PRODSERVE_BIND": ":2"})])
    assert resolved.settings.bind.addresses == (address,)
    assert resolved.origins["BIND"] == DEFAULT_ORIGIN


def test_host_and_port_from_different_places() -> None:
    """HOST and PORT are settings of their own: each place may give one."""
    resolved = resolve([command_line({"PORT": "1"}), app_config({"PRODSERVE_HOST": "::1"})])
    assert resolved.settings.bind.addresses == (TCPAddress("::1", 1),)


@pytest.mark.parametrize("names", [("HOST",), ("PORT",), ("HOST", "PORT")])
def test_bind_and_host_in_one_place(names: tuple[str, ...]) -> None:
    """One place that gives BIND and HOST or PORT is refused: which of them is meant cannot be known."""
    values = {"BIND": (":1",), **dict.fromkeys(names, "1")}
    ((what, hint),) = problems(command_line(values))
    assert (
        what == f"--bind and {' and '.join('--' + name.lower() for name in names)} both set the address to listen on."
    )
    assert "Keep one" in hint


def test_bind_and_host_in_one_weaker_place() -> None:
    """It is refused as well where a stronger place has decided: the mistake would show on the day that one goes."""
    assert (
        len(problems(command_line({"PORT": "1"}), environment({"PRODSERVE_BIND": ":1", "FLASK_PRODSERVE_PORT": "2"})))
        == 1
    )


def test_platform_port_opens_every_interface() -> None:
    """PORT as platforms set it means that a router comes from outside: every interface, and the origin says why."""
    resolved = resolve([platform({"PORT": "5001"})])
    assert resolved.settings.bind.addresses == (TCPAddress("", 5001),)
    assert resolved.origins["HOST"].startswith("PORT in the environment")


@pytest.mark.parametrize(
    "layers",
    [
        [environment({"PRODSERVE_HOST": "127.0.0.1"}), platform({"PORT": "1"})],
        [platform({"PORT": "1"}), app_config({"PRODSERVE_HOST": "127.0.0.1"})],
        [platform({"PORT": "1"}), arguments({"host": "127.0.0.1"}, "ProdServe")],
    ],
)
def test_platform_port_with_a_host(layers: list[Layer]) -> None:
    """Whoever names a host in any place is believed, also on a platform."""
    assert resolve(layers).settings.bind.addresses == (TCPAddress("127.0.0.1", 1),)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "platform"])
def test_other_ports_stay_on_loopback(place: str) -> None:
    """Only the platform's PORT opens every interface; our own, from wherever, leaves the host alone, also beside the platform's."""
    alone = resolve([PLACES[place](1)])
    assert alone.settings.bind.addresses == (TCPAddress("127.0.0.1", 1),)
    if place in ("command line", "environment"):
        assert resolve([PLACES[place](1), platform({"PORT": "2"})]).settings.bind.addresses == (
            TCPAddress("127.0.0.1", 1),
        )


def test_platform_port_under_a_stronger_bind() -> None:
    """BIND in the environment or on the command line makes the platform's PORT irrelevant, interfaces and all."""
    resolved = resolve([environment({"PRODSERVE_BIND": "127.0.0.1:1"}), platform({"PORT": "2"})])
    assert resolved.settings.bind.addresses == (TCPAddress("127.0.0.1", 1),)
    assert resolved.origins["HOST"] == DEFAULT_ORIGIN


def test_platform_port_over_the_apps_bind() -> None:
    """BIND in app.config is weaker than the platform's PORT: there the app must be where the router looks for it."""
    resolved = resolve([platform({"PORT": "2"}), app_config({"PRODSERVE_BIND": "127.0.0.1:1"})])
    assert resolved.settings.bind.addresses == (TCPAddress("", 2),)


# The app's own limit.


def test_max_content_length() -> None:
    """MAX_CONTENT_LENGTH is the body limit of an app that sets it, under everything said of MAX_BODY_SIZE in stronger places."""
    own = app_config({"MAX_CONTENT_LENGTH": 5})
    resolved = resolve([own, arguments({"max_body_size": 6}, "ProdServe")])
    assert resolved.settings.limits.max_body_size == 5
    assert resolved.origins["MAX_BODY_SIZE"] == 'app.config["MAX_CONTENT_LENGTH"]'
    assert resolve([environment({"PRODSERVE_MAX_BODY_SIZE": "7"}), own]).settings.limits.max_body_size == 7
    assert resolve([app_config({"MAX_CONTENT_LENGTH": None})]).settings.limits.max_body_size == 32 * 1024**2


# What is wrong.


def test_bad_value() -> None:
    """A bad value is refused with the place, the value as it was found, and what would be valid."""
    assert problems(environment({"PRODSERVE_THREADS": "many"})) == [
        (
            "PRODSERVE_THREADS in the environment is 'many', which is not valid.",
            "THREADS takes a whole number such as 16.",
        )
    ]


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (command_line({"BIND": ("8000",)}), "--bind is '8000'"),
        (command_line({"BIND": (":1", "8000", ":2")}), "--bind contains '8000'"),
        (command_line({"TRUSTED_PROXIES": ("10.0.0.1,foo",)}), "--trusted-proxies contains 'foo'"),
        (command_line({"X_ACCEL_MAPPING": ("x",)}), "--x-accel-mapping is 'x'"),
        (command_line({"MOUNTS": ("x",)}), "--mount is 'x'"),
        (command_line({"MOUNTS": ("/a=b", "x")}), "--mount is '/a=b', 'x'"),
        (platform({"FORWARDED_ALLOW_IPS": "foo"}), "FORWARDED_ALLOW_IPS in the environment is 'foo'"),
        (environment({"PRODSERVE_BIND": ":1,x"}), "PRODSERVE_BIND in the environment contains 'x'"),
        (app_config({"PRODSERVE_BIND": [":1", 5]}), 'app.config["PRODSERVE_BIND"] contains 5'),
        (app_config({"PRODSERVE_BIND": ()}), 'app.config["PRODSERVE_BIND"] is ()'),
    ],
)
def test_bad_value_of_several(layer: Layer, what: str) -> None:
    """Of several values that is shown which is wrong, as it was typed; one alone is shown as any other value."""
    ((found, _),) = problems(layer)
    assert found == f"{what}, which is not valid."


def test_long_values_are_cut() -> None:
    """A message shows the beginning of a very long value only."""
    ((what, _),) = problems(environment({"PRODSERVE_THREADS": "x" * 10_000}))
    assert len(what) < 150
    assert "'xxx" in what


def test_all_problems_of_all_layers() -> None:
    """Everything wrong in every place is listed at once, strongest place first: names, values, doubles, and contradictions."""
    whats = [
        what
        for what, _ in problems(
            command_line({"THREADS": "many", "BIND": (":1",), "PORT": "2"}),
            environment({"PRODSERVE_TREADS": "1", "FLASK_PRODSERVE_LOG_LEVEL": "loud"}),
            platform({"PORT": "tcp://10.0.0.1:80", "FORWARDED_ALLOW_IPS": "proxy"}),
            app_config({"PRODSERVE_THREADS": 0, "PRODSERVE_TLS_CERT": "cert.pem", "MAX_CONTENT_LENGTH": "big"}),
            arguments({"thread": 1, "max_request_line": "1MiB"}, "ProdServe"),
        )
    ]
    assert whats == [
        "--bind and --port both set the address to listen on.",
        "--threads is 'many', which is not valid.",
        "PRODSERVE_TREADS in the environment is not a setting.",
        "FLASK_PRODSERVE_LOG_LEVEL in the environment is 'loud', which is not valid.",
        "PORT in the environment is 'tcp://10.0.0.1:80', which is not valid.",
        "FORWARDED_ALLOW_IPS in the environment is 'proxy', which is not valid.",
        "app.config[\"MAX_CONTENT_LENGTH\"] is 'big', which is not valid.",
        'app.config["PRODSERVE_THREADS"] is 0, which is not valid.',
        "ProdServe(thread=...) is not a setting.",
        'app.config["PRODSERVE_TLS_CERT"] is set, but TLS_KEY is not.',
        "MAX_REQUEST_LINE (ProdServe(max_request_line=...)) is larger than MAX_HEADER_SIZE (default), "
        "which includes the request line.",
    ]


def test_no_contradiction_with_a_value_that_is_not_known() -> None:
    """What a bad value was meant to be is not known, so nothing is said to contradict it."""
    assert [
        what
        for what, _ in problems(
            environment({"PRODSERVE_TLS_CERT": "cert.pem", "PRODSERVE_TLS_KEY": " "}),
            app_config({"PRODSERVE_MAX_REQUEST_LINE": "20KiB", "PRODSERVE_MAX_HEADER_SIZE": "64 KB!"}),
            arguments({"max_request_line": "1MiB"}, "ProdServe"),
        )
    ] == [
        "PRODSERVE_TLS_KEY in the environment is ' ', which is not valid.",
        "app.config[\"PRODSERVE_MAX_HEADER_SIZE\"] is '64 KB!', which is not valid.",
    ]


def test_incomplete_layers_do_not_contradict() -> None:
    """A part of the places is not refused for what another may put right, but for everything that is wrong in itself."""
    own = app_config({"PRODSERVE_TLS_CERT": "cert.pem", "PRODSERVE_MAX_REQUEST_LINE": "1MiB"})
    assert resolve([own], complete=False).settings.tls.tls_cert == ("cert.pem",)
    assert len(problems(own)) == 2
    assert len(problems(own, app_config({"PRODSERVE_THREADS": "x"}), complete=False)) == 1


def test_a_stronger_place_does_not_excuse_a_weaker_one() -> None:
    """A bad value is refused also where a good one overrules it."""
    assert len(problems(command_line({"THREADS": "1"}), app_config({"PRODSERVE_THREADS": "x"}))) == 1
    assert len(problems(command_line({"BIND": (":1",)}), platform({"PORT": "x"}))) == 1


def test_the_message() -> None:
    """The error is one readable text with the number of problems and two lines for each, and ends the process with 2."""
    with pytest.raises(SettingsError) as caught:
        resolve([environment({"PRODSERVE_THREADS": "x", "PRODSERVE_TREADS": "1"})])
    assert str(caught.value) == (
        "2 settings are wrong:\n"
        "  - PRODSERVE_TREADS in the environment is not a setting.\n"
        "    Did you mean PRODSERVE_THREADS?\n"
        "  - PRODSERVE_THREADS in the environment is 'x', which is not valid.\n"
        "    THREADS takes a whole number such as 16."
    )
    assert caught.value.exit_code is ExitCode.USAGE
    with pytest.raises(SettingsError, match=r"^One setting is wrong:\n"):
        resolve([environment({"PRODSERVE_THREADS": "x"})])


def test_problems_are_not_repeated() -> None:
    """The same problem of the same place is listed once, however often it was found."""
    with pytest.raises(SettingsError) as caught:
        resolve([environment({"PRODSERVE_THREADS": "x"})])
    assert len(SettingsError([*caught.value.problems, *caught.value.problems]).problems) == 1


# Whatever is written.

NAMES = st.sampled_from(sorted(TABLE))
TEXTS = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"[0-9]{1,30}[a-zA-Z]{0,4}", fullmatch=True),
    st.from_regex(r"[\[\]0-9a-f:.,/*% ]{1,30}", fullmatch=True),
    st.builds(
        "".join,
        st.lists(st.sampled_from(["unix", ":", "8000", "localhost", ",", " ", "[::1]", "/", "10.0.0.0", "8", "on"])),
    ),
)


@given(
    options=st.dictionaries(NAMES, st.one_of(TEXTS, st.lists(TEXTS).map(tuple), st.booleans())),
    variables=st.dictionaries(
        st.builds("{}PRODSERVE_{}".format, st.sampled_from(["", "FLASK_"]), NAMES | st.text()), TEXTS
    ),
    others=st.dictionaries(st.sampled_from(sorted(PLATFORM_VARIABLES)), TEXTS),
    keys=st.dictionaries(
        st.builds("PRODSERVE_{}".format, NAMES | st.text()) | st.just("MAX_CONTENT_LENGTH"),
        st.recursive(
            TEXTS | st.integers() | st.floats() | st.none() | st.booleans() | st.binary(), st.lists, max_leaves=4
        ),
    ),
    keywords=st.dictionaries(NAMES.map(str.lower) | st.text(), TEXTS | st.integers(-(2**100), 2**100)),
)
def test_anything_resolves_or_is_refused(
    options: dict[str, object],
    variables: dict[str, str],
    others: dict[str, str],
    keys: dict[str, object],
    keywords: dict[str, object],
) -> None:
    """Whatever is written in whatever place, the outcome is Settings or SettingsError, and each problem says what and what to do."""
    layers = [
        command_line(options),
        environment(variables),
        platform(others),
        app_config(keys),
        arguments(keywords, "ProdServe"),
    ]
    outcome = resolved_or_refused(*layers)
    if isinstance(outcome, Resolved):
        assert outcome.origins.keys() == TABLE.keys()
        assert outcome.settings.bind.addresses
    else:
        assert outcome.problems
        for problem in outcome.problems:
            assert problem.what.endswith(".")
            assert problem.hint.endswith((".", "?"))


@given(name=NAMES, text=TEXTS)
def test_one_arbitrary_text(name: str, text: str) -> None:
    """A single arbitrary text is read, or refused once: never a fault, and never two messages for one mistake."""
    outcome = resolved_or_refused(environment({TABLE[name].key: text}))
    assert isinstance(outcome, Resolved) or len(outcome.problems) == 1


def resolved_or_refused(*layers: Layer) -> Resolved | SettingsError:
    try:
        return resolve(layers)
    except SettingsError as error:
        return error
