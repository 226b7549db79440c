"""THE table: every setting once, by name.

A setting is declared once, as a field of a group in ``groups/``, with its type, its default and the
reason for the default. Everything else (options, help, ``flask serve config``, the reference in the
docs) is generated from this table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .. import units
from .declaration import Setting
from .groups.apps import WSGI, Behaviour, Files
from .groups.limits import Limits, Timeouts
from .groups.monitoring import Health, Observe
from .groups.network import TLS, Bind, Proxy
from .groups.processes import Process, Workers


@dataclass(frozen=True)
class Settings:
    """All settings, resolved. Immutable; each part of the server gets its own group."""

    bind: Bind = field(default_factory=Bind)
    workers: Workers = field(default_factory=Workers)
    process: Process = field(default_factory=Process)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: TLS = field(default_factory=TLS)
    proxy: Proxy = field(default_factory=Proxy)
    files: Files = field(default_factory=Files)
    wsgi: WSGI = field(default_factory=WSGI)
    health: Health = field(default_factory=Health)
    observe: Observe = field(default_factory=Observe)
    behaviour: Behaviour = field(default_factory=Behaviour)

    @property
    def addresses(self) -> tuple[units.Address, ...]:
        """All addresses to listen on: BIND, or else HOST and PORT, and TLS_REDIRECT_BIND."""
        return self.bind.addresses + (self.tls.tls_redirect_bind or ())

    def scheme(self, address: units.Address) -> str:
        """Return the scheme of one of :attr:`addresses`."""
        return "https" if self.tls.pairs and address not in (self.tls.tls_redirect_bind or ()) else "http"

    def value(self, row: Setting) -> Any:
        return getattr(getattr(self, row.group), row.argument)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Build the groups from parsed values by setting name. Missing settings get their defaults."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            row = TABLE[name]
            groups.setdefault(row.group, {})[row.argument] = value
        return cls(**{group: _GROUPS[group](**members) for group, members in groups.items()})


_GROUPS: dict[str, Any] = {member.name: member.default_factory for member in fields(Settings)}


def _rows() -> Iterator[Setting]:
    for group, members in _GROUPS.items():
        for member in fields(members):
            yield Setting(member.name.upper(), group, member.metadata["declaration"])


TABLE: dict[str, Setting] = {row.name: row for row in _rows()}
"""Every setting by its name, in the order of the reference."""

GROUP_TITLES: dict[str, str] = {name: (group.__doc__ or name).rstrip(".") for name, group in _GROUPS.items()}
