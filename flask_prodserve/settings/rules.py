"""Rules across settings: which one overrules which, which contradict each other, and which deserve
a warning.

Pure functions of settings and origins, called by ``resolve``. A rule about one value alone belongs
to its kind in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from .. import units
from .layers import Layer, Problem, Raw
from .table import TABLE, Settings

_HOST_AND_PORT = frozenset({"HOST", "PORT"})
_PLATFORM_PORT = "PORT in "
_PLATFORM_WORKERS = "WEB_CONCURRENCY in "
"""How the origins of these variables start; the rest names the environment or .env."""

_FOR_SUPERVISORS: Mapping[str, tuple[object, ...]] = {
    "WORKERS": (0, 1),
    "PRELOAD": (False,),
    "BOOT_TIMEOUT": (),
    "WORKER_TIMEOUT": (0,),
    "MAX_REQUESTS": (0,),
    "MAX_REQUESTS_JITTER": (0,),
    "MAX_WORKER_MEMORY": (0,),
    "MAX_WORKER_LIFETIME": (0,),
    "CONTROL_SOCKET": ("auto", "off"),
}
"""Settings that only a supervisor uses, with the values that are harmless without one."""

_USE_A_SUPERVISOR = "run `flask serve` with a supervisor (WORKERS of 1 or more, not on Windows)"


def within_layer(layer: Layer) -> Iterator[Problem]:
    """Report BIND together with HOST or PORT in one place, because both set the address."""
    if "BIND" in layer.values and (rivals := sorted(_HOST_AND_PORT & layer.values.keys())):
        origins = " and ".join(layer.values[name].origin for name in rivals)
        yield Problem(
            f"{layer.values['BIND'].origin} and {origins} both set the address to listen on.",
            "Keep one: HOST and PORT for one address, BIND for several or for a Unix socket.",
        )


def too_late(layers: Sequence[Layer]) -> Iterator[Problem]:
    """Report settings of the app that are needed before it is loaded, unless another place gives
    them in time.

    An app may repeat the environment: ``Config.from_prefixed_env`` does.
    """
    in_time = {name for layer in layers if not layer.late for name in layer.values}
    for layer in layers:
        for name, raw in layer.values.items():
            # WORKERS=0 means no supervisor, but that already runs by then.
            if name not in in_time and (TABLE[name].declaration.early or (name == "WORKERS" and _is_zero(raw.value))):
                yield Problem(
                    f"{raw.origin} comes too late: the server needs it before it loads the app.",
                    "Set it in the environment or on the command line.",
                )


def overruled(name: str, stronger: Set[str]) -> bool:
    """Return whether a stronger layer sets the address with the other settings."""
    if name == "BIND":
        return bool(_HOST_AND_PORT & stronger)
    return name in _HOST_AND_PORT and "BIND" in stronger


def implied(origins: Mapping[str, str]) -> dict[str, Raw]:
    """Return settings that follow from others: if the platform sets the port, listen on every
    interface, unless HOST is set.
    """
    port = origins.get("PORT", "")
    if port.startswith(_PLATFORM_PORT) and "HOST" not in origins:
        return {"HOST": Raw("*", f"{port}: a platform's router must reach the app")}
    return {}


def contradictions(settings: Settings, origins: Mapping[str, str], unread: Set[str]) -> Iterator[Problem]:
    """Report values that contradict each other. Skip settings in *unread*, whose value is not
    valid.
    """
    tls, limits = settings.tls, settings.limits
    if (tls.tls_cert is None) != (tls.tls_key is None) and not unread & {"TLS_CERT", "TLS_KEY"}:
        given, missing = ("TLS_CERT", "TLS_KEY") if tls.tls_cert else ("TLS_KEY", "TLS_CERT")
        yield Problem(f"{origins[given]} is set, but {missing} is not.", "HTTPS needs both, as two PEM files.")
    yield from _contradictions_of_tls(settings, origins, unread)
    if limits.max_request_line > limits.max_header_size and not unread & {"MAX_REQUEST_LINE", "MAX_HEADER_SIZE"}:
        line, head = (f"{name} ({origins[name]})" for name in ("MAX_REQUEST_LINE", "MAX_HEADER_SIZE"))
        yield Problem(
            f"{line} is larger than {head}, which includes the request line.",
            "Raise MAX_HEADER_SIZE or lower MAX_REQUEST_LINE.",
        )
    if settings.workers.preload and settings.process.user is not None:
        preload, user = (f"{name} ({origins[name]})" for name in ("PRELOAD", "USER"))
        yield Problem(
            f"{preload} would load the app in the supervisor, which keeps the rights that {user} takes from workers.",
            "Drop PRELOAD, or start the server as that user.",
        )
    proxy = settings.proxy
    if proxy.proxy_protocol and proxy.trusted_proxies is None and not unread & {"PROXY_PROTOCOL", "TRUSTED_PROXIES"}:
        yield Problem(
            f"PROXY_PROTOCOL ({origins['PROXY_PROTOCOL']}) is on, but no peer is trusted to send a PROXY header.",
            "Set TRUSTED_PROXIES to the addresses of your load balancer.",
        )
    yield from _taken_paths(settings, origins)


def _contradictions_of_tls(settings: Settings, origins: Mapping[str, str], unread: Set[str]) -> Iterator[Problem]:
    tls = settings.tls
    if tls.tls_cert and tls.tls_key and len(tls.tls_cert) != len(tls.tls_key):
        counts = " and ".join(
            f"{name} ({origins[name]}) names {len(files)} file{'s'[: len(files) != 1]}"
            for name, files in (("TLS_CERT", tls.tls_cert), ("TLS_KEY", tls.tls_key))
        )
        yield Problem(f"{counts}.", "Each certificate needs its key, in the same order.")
    if tls.client_cert != "none" and tls.tls_client_ca is None and not unread & {"TLS_CLIENT_CA", "TLS_CLIENT_CERT"}:
        yield Problem(
            f"TLS_CLIENT_CERT ({origins['TLS_CLIENT_CERT']}) is '{tls.client_cert}', but TLS_CLIENT_CA is not set.",
            "Set it to the PEM file with the authorities that sign client certificates.",
        )
    redirects = tls.tls_redirect_bind or ()
    same = sorted(units.format_address(address) for address in redirects if address in settings.bind.addresses)
    if same and not unread & {"BIND", "HOST", "PORT", "TLS_REDIRECT_BIND"}:
        yield Problem(
            f"TLS_REDIRECT_BIND ({origins['TLS_REDIRECT_BIND']}) has {', '.join(same)}, on which the app is served.",
            "HTTP and HTTPS need different addresses, such as :80 and :443.",
        )
    if tls.tls_cert or tls.tls_key or unread & {"TLS_CERT", "TLS_KEY"}:
        return
    for name, value in (("TLS_CLIENT_CA", tls.tls_client_ca), ("TLS_REDIRECT_BIND", tls.tls_redirect_bind)):
        if value is not None and name not in unread:
            yield Problem(
                f"{name} ({origins[name]}) is set, but HTTPS is off.", f"Set TLS_CERT and TLS_KEY, or drop {name}."
            )


def _taken_paths(settings: Settings, origins: Mapping[str, str]) -> Iterator[Problem]:
    """Report mounts at a health path, which the server answers itself on every host."""
    health = settings.health
    taken = {health.liveness_path: "LIVENESS_PATH", health.readiness_path: "READINESS_PATH"}
    for mount in settings.wsgi.mounts or ():
        if not settings.proxy.url_prefix and (name := taken.get(mount.path)):
            yield Problem(
                f"MOUNTS ({origins['MOUNTS']}) has {mount.key}, but {mount.path} is {name} ({origins[name]}).",
                f"Mount it elsewhere, or set {name} to another path or to off.",
            )


def remarks(settings: Settings, origins: Mapping[str, str]) -> Iterator[Problem]:
    """Report what is allowed, but probably not intended."""
    if settings.workers.max_requests_jitter and not settings.workers.max_requests:
        yield Problem(
            "MAX_REQUESTS_JITTER has no effect, because MAX_REQUESTS is 0.",
            "Set MAX_REQUESTS as well.",
        )
    if settings.tls.tls_min_version == "1.3" and "TLS_CIPHERS" in origins:
        yield Problem("TLS_CIPHERS has no effect: it is for TLS 1.2, but TLS_MIN_VERSION is 1.3.", "Drop one of them.")
    trusted = settings.proxy.trusted_proxies
    if trusted is None and "PROXY_HEADERS" in origins:
        yield Problem(
            "PROXY_HEADERS has no effect, because no proxy is trusted.",
            "Set TRUSTED_PROXIES to the addresses of your proxies.",
        )
    if trusted and (everyone := _everyone(trusted)):
        yield Problem(
            f"TRUSTED_PROXIES is {everyone}, so every peer can forge the client's address.",
            "Make sure that only your proxy can reach this server, or list its addresses.",
        )


def _everyone(trusted: Sequence[units.IPNetwork | str]) -> str:
    """Return the part of *trusted* that stands for every peer, as written; ``""`` if there is none."""
    if "*" in trusted:
        return "'*'"
    return ",".join(str(one) for one in trusted if not isinstance(one, str) and units.is_the_internet(one))


def refused_without_supervisor(
    settings: Settings, origins: Mapping[str, str], *, app_is_loaded: bool
) -> Iterator[Problem]:
    """Report account settings, which one process cannot apply: the app must not run as root by
    mistake.
    """
    process = settings.process
    for name, value in (("USER", process.user), ("GROUP", process.group)):
        if value is not None:
            yield Problem(
                f"{name} ({origins[name]}) is {value!r}, but a server of one process cannot change its account.",
                f"Drop {name} and start it under the right account, or {_USE_A_SUPERVISOR}.",
            )
    if process.umask is not None and app_is_loaded:
        yield Problem(
            f"UMASK ({origins['UMASK']}) comes too late: the app is already loaded, and may have created files.",
            "Set the umask before Python starts, call os.umask() before the app is imported, or start it with `flask serve`.",
        )


def remarks_without_supervisor(settings: Settings, origins: Mapping[str, str]) -> Iterator[Problem]:
    """Report settings that need a supervisor, which is missing. A platform's own variables are not
    reported.
    """
    idle = [
        f"{name} ({origins[name]})"
        for name, harmless in _FOR_SUPERVISORS.items()
        if name in origins
        and not origins[name].startswith(_PLATFORM_WORKERS)
        and settings.value(TABLE[name]) not in harmless
    ]
    if idle:
        yield Problem(
            f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect in a server of one process.",
            f"Drop {'it' if len(idle) == 1 else 'them'}, or {_USE_A_SUPERVISOR}.",
        )


def _is_zero(value: object) -> bool:
    try:
        return units.parse_count(value) == 0
    except ValueError:
        return False
