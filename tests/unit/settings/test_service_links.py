"""Service links of Kubernetes: which variables are, which look alike and are not, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Config

from flask_prodserve.settings import SettingsError, app_config, environment, resolve
from flask_prodserve.settings.service_links import is_service_link


def links(service: str, host: str = "10.0.0.1") -> dict[str, str]:
    """What a kubelet sets for a Service with the port 8000, named ``http``."""
    url = f"tcp://[{host}]:8000" if ":" in host else f"tcp://{host}:8000"
    return {
        f"{service}_SERVICE_HOST": host,
        f"{service}_SERVICE_PORT": "8000",
        f"{service}_SERVICE_PORT_HTTP": "8000",
        f"{service}_PORT": url,
        f"{service}_PORT_8000_TCP": url,
        f"{service}_PORT_8000_TCP_PROTO": "tcp",
        f"{service}_PORT_8000_TCP_PORT": "8000",
        f"{service}_PORT_8000_TCP_ADDR": host,
    }


@pytest.mark.parametrize("service", ["PRODSERVE", "FLASK_PRODSERVE", "PRODSERVE_WEB", "FLASK_PRODSERVE_MY_APP"])
@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
def test_ignored_with_one_remark(service: str, host: str) -> None:
    """All variables of a Service are ignored with one remark that names the fix, whatever else is set."""
    layer = environment({**links(service, host), "PRODSERVE_THREADS": "3"})
    assert set(layer.values) == {"THREADS"}
    assert not layer.unknown
    (remark,) = resolve([layer]).warnings
    assert f"{service}_PORT and 7 more in the environment" in remark.what
    assert "enableServiceLinks: false" in remark.hint


def test_the_port_that_is_a_setting_counts() -> None:
    """The links of one Service do not hide a PORT that somebody has set, in the other spelling."""
    layer = environment({**links("PRODSERVE"), "FLASK_PRODSERVE_PORT": "9000"})
    assert resolve([layer]).settings.bind.port == 9000
    assert resolve([environment({"PRODSERVE_PORT": "8000"})]).settings.bind.port == 8000


def test_what_flask_copies_into_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Config.from_prefixed_env copies the links of a Service 'flask-prodserve', and numbers as numbers."""
    for name, value in links("FLASK_PRODSERVE").items():
        monkeypatch.setenv(name, value)
    config = Config("")
    config.from_prefixed_env()
    assert config["PRODSERVE_SERVICE_PORT"] == 8000
    assert app_config(config).values == {}
    assert app_config(config).unknown == ()


def mistakes() -> Iterator[tuple[str, str]]:
    yield from (("PORT", value) for value in ("tcpp", "tcp://", "tcp://host:80", "tcp://10.0.0.1", "tcp://10.0.0.1:x"))
    yield from (("PORT", value) for value in ("http://10.0.0.1:80", "tcp://10.0.0.1:80/", "tcp://10.0.0.1:65536"))
    yield "SERVICE_HOST", "1"
    yield "SERVICE_PORT", "70000"
    yield "SERVICES_HOST", "10.0.0.1"
    yield "PORT_8000_TCP_PROTO", "http"
    yield "PORT_HTTP_TCP_ADDR", "10.0.0.1"
    yield "THREADS_PORT", "8000"


@pytest.mark.parametrize(("name", "value"), list(mistakes()))
def test_mistakes_are_refused(name: str, value: str) -> None:
    """A name or a value that is not quite that of a link is a mistake in a setting."""
    assert not is_service_link(name, value)
    with pytest.raises(SettingsError, match=f"PRODSERVE_{name} "):
        resolve([environment({f"PRODSERVE_{name}": value})])
