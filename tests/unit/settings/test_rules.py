"""Rules between settings: each one holds where it should, and says nothing where it should not."""

from __future__ import annotations

import ipaddress

import pytest

from flask_prodserve import settings
from flask_prodserve.settings import (
    DEFAULT_ORIGIN,
    TABLE,
    Problem,
    Resolved,
    Settings,
    SettingsError,
    app_config,
    arguments,
    command_line,
    environment,
    platform,
    resolve,
    rules,
)
from flask_prodserve.units import TCPAddress

NO_ORIGINS = dict.fromkeys(TABLE, DEFAULT_ORIGIN)


def contradictions(**values: object) -> list[Problem]:
    origins = NO_ORIGINS | {name: f"{name} from somewhere" for name in values}
    return list(rules.contradictions(Settings.of(values), origins, frozenset()))


def test_defaults_contradict_nothing() -> None:
    """The defaults hold together and need no remark."""
    assert contradictions() == []
    assert list(rules.remarks(Settings(), {})) == []


def test_tls_needs_both_files() -> None:
    """A certificate without a key, or the other way round, is a contradiction that says which of them is there, and whence."""
    (problem,) = contradictions(TLS_CERT=("cert.pem",))
    assert problem.what == "TLS_CERT from somewhere is set, but TLS_KEY is not."
    (problem,) = contradictions(TLS_KEY=("key.pem",))
    assert problem.what == "TLS_KEY from somewhere is set, but TLS_CERT is not."
    assert contradictions(TLS_CERT=("cert.pem",), TLS_KEY=("key.pem",)) == []


PAIR = {"TLS_CERT": ("cert.pem",), "TLS_KEY": ("key.pem",)}


def test_each_certificate_has_a_key() -> None:
    """As many keys as certificates; one file may be named twice."""
    (problem,) = contradictions(TLS_CERT=("a", "b"), TLS_KEY=("c",))
    assert problem.what == (
        "TLS_CERT (TLS_CERT from somewhere) names 2 files and TLS_KEY (TLS_KEY from somewhere) names 1 file."
    )
    assert contradictions(TLS_CERT=("a", "b"), TLS_KEY=("c", "c")) == []


def test_client_certificates_need_an_authority() -> None:
    """Nobody is served without the check that was asked for, and an authority asks for certificates unless somebody says otherwise."""
    for word in ("optional", "required"):
        (problem,) = contradictions(**PAIR, TLS_CLIENT_CERT=word)
        assert (
            problem.what
            == f"TLS_CLIENT_CERT (TLS_CLIENT_CERT from somewhere) is '{word}', but TLS_CLIENT_CA is not set."
        )
    assert contradictions(**PAIR, TLS_CLIENT_CERT="none") == []
    assert contradictions(**PAIR, TLS_CLIENT_CA="ca.pem") == []
    assert Settings.of(PAIR).tls.client_cert == "none"
    assert Settings.of(PAIR | {"TLS_CLIENT_CA": "ca.pem"}).tls.client_cert == "required"
    assert Settings.of(PAIR | {"TLS_CLIENT_CA": "ca.pem", "TLS_CLIENT_CERT": "none"}).tls.client_cert == "none"


def test_what_needs_https() -> None:
    """An authority of clients, and a redirect, without HTTPS would do nothing."""
    (problem,) = contradictions(TLS_CLIENT_CA="ca.pem")
    assert problem.what == "TLS_CLIENT_CA (TLS_CLIENT_CA from somewhere) is set, but HTTPS is off."
    (problem,) = contradictions(TLS_REDIRECT_BIND=(TCPAddress("", 80),))
    assert problem.what == "TLS_REDIRECT_BIND (TLS_REDIRECT_BIND from somewhere) is set, but HTTPS is off."
    assert contradictions(**PAIR, TLS_REDIRECT_BIND=(TCPAddress("", 80),)) == []


def test_redirect_where_the_app_is() -> None:
    """One address cannot be both for the app and for the redirect to it."""
    (problem,) = contradictions(**PAIR, HOST="", PORT=80, TLS_REDIRECT_BIND=(TCPAddress("", 80),))
    assert problem.what == "TLS_REDIRECT_BIND (TLS_REDIRECT_BIND from somewhere) has :80, on which the app is served."


def test_ciphers_of_a_version_that_is_not_spoken() -> None:
    """TLS_CIPHERS means nothing to TLS 1.3."""
    settings = Settings.of(PAIR | {"TLS_MIN_VERSION": "1.3", "TLS_CIPHERS": "ECDHE"})
    (remark,) = rules.remarks(settings, {"TLS_MIN_VERSION": "x", "TLS_CIPHERS": "x"})
    assert remark.what.startswith("TLS_CIPHERS has no effect")
    assert list(rules.remarks(settings, {"TLS_MIN_VERSION": "x"})) == []


def test_request_line_is_a_part_of_the_head() -> None:
    """MAX_REQUEST_LINE may be as large as MAX_HEADER_SIZE and no larger."""
    assert contradictions(MAX_REQUEST_LINE=1000, MAX_HEADER_SIZE=1000) == []
    (problem,) = contradictions(MAX_REQUEST_LINE=1001, MAX_HEADER_SIZE=1000)
    assert "MAX_REQUEST_LINE (MAX_REQUEST_LINE from somewhere) is larger than MAX_HEADER_SIZE" in problem.what
    assert contradictions(MAX_HEADER_SIZE=1000)[0].what.startswith("MAX_REQUEST_LINE (default) is larger")


def test_nothing_is_said_of_unread_values() -> None:
    """A contradiction needs all of its values to be known."""
    settings = Settings.of({"TLS_CERT": ("cert.pem",), "MAX_REQUEST_LINE": 10**6})
    for unread, count in [
        (set(), 2),
        ({"THREADS"}, 2),
        ({"TLS_KEY"}, 1),
        ({"TLS_CERT"}, 1),
        ({"MAX_HEADER_SIZE"}, 1),
        ({"MAX_REQUEST_LINE"}, 1),
        ({"TLS_KEY", "MAX_HEADER_SIZE"}, 0),
    ]:
        assert len(list(rules.contradictions(settings, NO_ORIGINS, unread))) == count


def test_proxy_protocol_without_proxies() -> None:
    """PROXY_PROTOCOL where nobody may send a header contradicts itself; any trusted peer will do."""
    (problem,) = contradictions(PROXY_PROTOCOL=True)
    assert problem.what.startswith("PROXY_PROTOCOL (PROXY_PROTOCOL from somewhere) is on")
    assert "TRUSTED_PROXIES" in problem.hint
    for trusted in (("unix",), ("*",), (ipaddress.ip_network("10.0.0.0/8"),)):
        assert contradictions(PROXY_PROTOCOL=True, TRUSTED_PROXIES=trusted) == []
    settings = Settings.of({"PROXY_PROTOCOL": True})
    assert not list(rules.contradictions(settings, NO_ORIGINS, {"TRUSTED_PROXIES"}))


def test_proxy_headers_without_proxies() -> None:
    """PROXY_HEADERS that somebody chose has no effect where no proxy is trusted, which is worth a remark."""
    chosen = app_config({"PRODSERVE_PROXY_HEADERS": "forwarded"})
    (remark,) = resolve([chosen]).warnings
    assert remark.what.startswith("PROXY_HEADERS has no effect")
    assert "TRUSTED_PROXIES" in remark.hint
    assert resolve([chosen, app_config({"PRODSERVE_TRUSTED_PROXIES": "10.0.0.1"})]).warnings == ()


def test_trusting_everybody() -> None:
    """Trusting every peer is allowed and worth a remark, also among other proxies."""
    for trusted in ("*", "10.0.0.1,*"):
        (remark,) = resolve([command_line({"TRUSTED_PROXIES": (trusted,)})]).warnings
        assert remark.what == "TRUSTED_PROXIES is '*', so every peer can forge the client's address."
    for trusted, shown in [
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("10.0.0.1,0.0.0.0/1,128.0.0.0/1", "0.0.0.0/1,128.0.0.0/1"),
        ("2000::/3", "2000::/3"),
        ("::ffff:0:0/96", str(ipaddress.ip_network("::ffff:0:0/96"))),  # Python 3.13 writes ::ffff:0.0.0.0/96
    ]:
        (remark,) = resolve([command_line({"TRUSTED_PROXIES": (trusted,)})]).warnings
        assert remark.what == f"TRUSTED_PROXIES is {shown}, so every peer can forge the client's address."
    assert (
        resolve([command_line({"TRUSTED_PROXIES": ("10.0.0.0/8,fc00::/7,fe80::/10,2600:1f00::/24,unix",)})]).warnings
        == ()
    )


def test_within_layer() -> None:
    """BIND alone, or HOST and PORT, are fine in one place; both are not."""
    assert list(rules.within_layer(command_line({"BIND": (":1",)}))) == []
    assert list(rules.within_layer(command_line({"HOST": "*", "PORT": "1"}))) == []
    assert len(list(rules.within_layer(command_line({"BIND": (":1",), "HOST": "*", "PORT": "1"})))) == 1


EARLY = [name for name, row in TABLE.items() if row.declaration.early]


def test_early_settings() -> None:
    """What the supervisor obeys before any app is loaded is early, and nothing else."""
    names = {"USER", "GROUP", "UMASK", "PRELOAD", "PIDFILE", "CONTROL_SOCKET", "BOOT_TIMEOUT"}
    assert set(EARLY) == names


@pytest.mark.parametrize("name", EARLY)
def test_an_app_cannot_say_what_is_needed_before_it(name: str) -> None:
    """An early setting is refused from app.config and from ProdServe(...), and taken from the command line and the environment."""
    row, text = TABLE[name], {"PRELOAD": "yes", "UMASK": "027", "BOOT_TIMEOUT": "5s"}.get(name, "x")
    for layer, origin in (
        (app_config({row.key: text}), f'app.config["{row.key}"]'),
        (arguments({row.argument: text}, "ProdServe", late=True), f"ProdServe({row.argument}=...)"),
    ):
        (problem,) = rules.too_late([layer])
        assert problem.what == f"{origin} comes too late: the server needs it before it loads the app."
        assert problem.hint == "Set it in the environment or on the command line."
        with pytest.raises(SettingsError, match="too late"):
            resolve([layer])
    for layer in (command_line({name: text}), environment({row.key: text}), arguments({row.argument: text}, "serve")):
        assert resolve([layer]).settings.value(row) == row.declaration.kind.parse(text)


@pytest.mark.parametrize(
    ("value", "late"), [(0, True), ("0", True), (" 0 ", True), (1, False), ("auto", False), ("x", False), ([], False)]
)
def test_an_app_cannot_do_without_the_supervisor(value: object, late: bool) -> None:
    """WORKERS=0 from an app comes when the supervisor is there already; any other number is the app's to say."""
    layers = app_config({"PRODSERVE_WORKERS": value}), arguments({"workers": value}, "ProdServe", late=True)
    for layer in layers:
        assert len(list(rules.too_late([layer]))) == late
    assert list(rules.too_late([command_line({"WORKERS": value})])) == []


def test_an_app_may_repeat_what_came_in_time() -> None:
    """Early settings of an app do no harm where a place that is read in time says something, and each app's place is looked at."""
    config, call = (
        app_config({"PRODSERVE_USER": "a", "PRODSERVE_WORKERS": 0}),
        arguments({"user": "b"}, "ProdServe", late=True),
    )
    assert len(list(rules.too_late([config, call]))) == 3
    assert len(list(rules.too_late([environment({"PRODSERVE_USER": "c"}), config, call]))) == 1
    resolved = resolve([command_line({"WORKERS": "2"}), environment({"PRODSERVE_USER": "c"}), config, call])
    assert (resolved.settings.process.user, resolved.settings.workers.workers) == ("c", 2)
    assert resolve([config], complete=False).settings.process.user == "a"


def test_preload_with_a_user() -> None:
    """PRELOAD would run the app with the rights that USER is there to take away, whatever GROUP is."""
    (problem,) = contradictions(PRELOAD=True, USER="nobody")
    assert problem.what.startswith("PRELOAD (PRELOAD from somewhere) would load the app in the supervisor")
    assert "USER (USER from somewhere)" in problem.what
    assert contradictions(PRELOAD=True, GROUP="nogroup") == []
    assert contradictions(PRELOAD=False, USER="nobody", GROUP="nogroup") == []


def test_jitter_without_a_count() -> None:
    """MAX_REQUESTS_JITTER has no effect where MAX_REQUESTS is off, which is worth a remark."""
    (remark,) = resolve([command_line({"MAX_REQUESTS_JITTER": "5"})]).warnings
    assert remark.what.startswith("MAX_REQUESTS_JITTER has no effect")
    assert "MAX_REQUESTS" in remark.hint
    assert resolve([command_line({"MAX_REQUESTS_JITTER": "5", "MAX_REQUESTS": "10"})]).warnings == ()


def test_overruled() -> None:
    """The two ways to say where to listen exclude one another; nothing else is overruled by another name."""
    assert rules.overruled("BIND", {"HOST"})
    assert rules.overruled("BIND", {"PORT"})
    assert rules.overruled("HOST", {"BIND"})
    assert rules.overruled("PORT", {"BIND"})
    assert not rules.overruled("HOST", {"PORT"})
    assert not rules.overruled("PORT", {"HOST"})
    for name in TABLE.keys() - {"BIND", "HOST", "PORT"}:
        assert not rules.overruled(name, TABLE.keys() - {name})


def without_supervisor(*, app_is_loaded: bool = True, **values: str) -> Resolved:
    return settings.without_supervisor(resolve([command_line(values)]), app_is_loaded=app_is_loaded)


def test_defaults_without_a_supervisor() -> None:
    """The defaults hold in one process, too."""
    assert without_supervisor() == resolve([])


@pytest.mark.parametrize("app_is_loaded", [True, False])
@pytest.mark.parametrize("name", ["USER", "GROUP"])
def test_no_other_account_without_a_supervisor(name: str, app_is_loaded: bool) -> None:
    """One process cannot become somebody else, and says which setting wanted it, and what to do."""
    with pytest.raises(SettingsError) as caught:
        without_supervisor(app_is_loaded=app_is_loaded, **{name: "0"})
    (problem,) = caught.value.problems
    option = TABLE[name].option
    assert problem.what == f"{name} ({option}) is '0', but a server of one process cannot change its account."
    assert f"Drop {name} and start it under the right account" in problem.hint
    assert "`flask serve`" in problem.hint


def test_umask_without_a_supervisor() -> None:
    """UMASK is obeyed before the app is loaded, and refused afterwards, also where it takes nothing away."""
    assert without_supervisor(app_is_loaded=False, UMASK="027").warnings == ()
    for text in ("027", "000"):
        with pytest.raises(SettingsError, match=r"UMASK \(--umask\) comes too late") as caught:
            without_supervisor(UMASK=text)
        assert "os.umask()" in caught.value.hint


def test_all_that_is_refused_without_a_supervisor() -> None:
    """Everything that is refused is said at once."""
    with pytest.raises(SettingsError) as caught:
        without_supervisor(USER="a", GROUP="b", UMASK="027")
    assert len(caught.value.problems) == 3


IDLE = {
    "WORKERS": "auto",
    "PRELOAD": "yes",
    "BOOT_TIMEOUT": "60s",
    "WORKER_TIMEOUT": "30s",
    "MAX_REQUESTS": "5",
    "MAX_REQUESTS_JITTER": "5",
    "MAX_WORKER_MEMORY": "1GiB",
    "MAX_WORKER_LIFETIME": "1h",
    "CONTROL_SOCKET": "socket",
}
"""What only a supervisor obeys; some of it as the default is, which somebody wanted."""


def test_every_setting_of_supervisors_is_known() -> None:
    """Those of workers, but for their threads, and those that are early, are refused, obeyed (PIDFILE) or remarked on in one process."""
    of_workers = {name for name, row in TABLE.items() if row.group == "workers"} - {"THREADS"}
    assert of_workers | set(EARLY) == IDLE.keys() | {"USER", "GROUP", "UMASK", "PIDFILE"}


@pytest.mark.parametrize("name", IDLE)
def test_no_effect_without_a_supervisor(name: str) -> None:
    """What is for a supervisor is named with its origin, where there is none."""
    remark = without_supervisor(**{name: IDLE[name]}).warnings[-1]  # beside what else there is to say
    assert f"{name} ({TABLE[name].option})" in remark.what
    assert remark.hint.startswith("Drop ")


def test_one_remark_for_all_that_has_no_effect() -> None:
    """Several settings without effect make one remark; other remarks stay."""
    trusting = {"TRUSTED_PROXIES": "*"}
    everybody, remark = without_supervisor(WORKERS="2", MAX_REQUESTS="5", **trusting).warnings
    assert everybody.what.startswith("TRUSTED_PROXIES")
    assert (
        remark.what == "WORKERS (--workers), MAX_REQUESTS (--max-requests) have no effect in a server of one process."
    )
    (remark,) = without_supervisor(WORKERS="2").warnings
    assert remark.what == "WORKERS (--workers) has no effect in a server of one process."


@pytest.mark.parametrize(
    "values",
    [
        {"WORKERS": "0", "MAX_REQUESTS": "0", "MAX_WORKER_MEMORY": "0", "MAX_WORKER_LIFETIME": "0s"},
        {"WORKERS": "1", "PRELOAD": "no", "WORKER_TIMEOUT": "0", "CONTROL_SOCKET": "off"},
        {"CONTROL_SOCKET": "auto", "MAX_REQUESTS_JITTER": "0", "PIDFILE": "pid", "THREADS": "3"},
    ],
)
def test_what_holds_without_a_supervisor(values: dict[str, str]) -> None:
    """Nothing is said of values that are no more than what one process is, or that it obeys."""
    assert without_supervisor(**values).warnings == ()


def test_platforms_speak_to_everybody() -> None:
    """WEB_CONCURRENCY is set by platforms, whoever reads it; PRODSERVE_WORKERS is meant for this server."""
    for layer, count in (
        (platform({"WEB_CONCURRENCY": "2"}), 0),
        (environment({"PRODSERVE_WORKERS": "2"}), 1),
    ):
        resolved = settings.without_supervisor(resolve([layer]), app_is_loaded=True)
        assert len(resolved.warnings) == count
