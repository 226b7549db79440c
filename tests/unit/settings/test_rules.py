"""Rules between settings: each one holds where it should, and says nothing where it should not."""

from __future__ import annotations

from flask_prodserve.settings import DEFAULT_ORIGIN, TABLE, Problem, Settings, app_config, command_line, resolve, rules

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
    (problem,) = contradictions(TLS_CERT="cert.pem")
    assert problem.what == "TLS_CERT from somewhere is set, and TLS_KEY is not."
    (problem,) = contradictions(TLS_KEY="key.pem")
    assert problem.what == "TLS_KEY from somewhere is set, and TLS_CERT is not."
    assert contradictions(TLS_CERT="cert.pem", TLS_KEY="key.pem") == []


def test_request_line_is_a_part_of_the_head() -> None:
    """MAX_REQUEST_LINE may be as large as MAX_HEADER_SIZE and no larger."""
    assert contradictions(MAX_REQUEST_LINE=1000, MAX_HEADER_SIZE=1000) == []
    (problem,) = contradictions(MAX_REQUEST_LINE=1001, MAX_HEADER_SIZE=1000)
    assert "MAX_REQUEST_LINE (MAX_REQUEST_LINE from somewhere) is larger than MAX_HEADER_SIZE" in problem.what
    assert contradictions(MAX_HEADER_SIZE=1000)[0].what.startswith("MAX_REQUEST_LINE (default) is larger")


def test_nothing_is_said_of_unread_values() -> None:
    """A contradiction needs all of its values to be known."""
    settings = Settings.of({"TLS_CERT": "cert.pem", "MAX_REQUEST_LINE": 10**6})
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
        assert remark.what == "TRUSTED_PROXIES is '*': every peer may say who the client is."
    assert resolve([command_line({"TRUSTED_PROXIES": ("10.0.0.0/8,unix",)})]).warnings == ()


def test_within_layer() -> None:
    """BIND alone, or HOST and PORT, are fine in one place; both are not."""
    assert list(rules.within_layer(command_line({"BIND": (":1",)}))) == []
    assert list(rules.within_layer(command_line({"HOST": "*", "PORT": "1"}))) == []
    assert len(list(rules.within_layer(command_line({"BIND": (":1",), "HOST": "*", "PORT": "1"})))) == 1


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
