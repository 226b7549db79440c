"""What one generation of workers serves, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ProdServeError
from ..net.listeners import Listener
from ..settings import TABLE, Settings
from .messages import Loaded


@dataclass(frozen=True, slots=True)
class Offer:
    """*loaded* is what the first worker of the generation said; *loads* the descriptor of the memory that is shared by all workers who
    listen there, *urls* where it is reached, which is told also when the listeners are closed here.
    """

    loaded: Loaded
    settings: Settings
    listeners: tuple[Listener, ...]
    loads: int
    urls: tuple[str, ...]

    @classmethod
    def of(cls, loaded: Loaded, listeners: Sequence[Listener], loads: int) -> Offer:
        settings = read_settings(loaded)
        urls = tuple(listener.url(settings.scheme(listener.address)) for listener in listeners)
        return cls(loaded, settings, tuple(listeners), loads, urls)

    @property
    def descriptors(self) -> list[int]:
        """What a worker needs: its listeners, and last the loads."""
        return [*(listener.socket.fileno() for listener in self.listeners), self.loads]


def read_settings(loaded: Loaded) -> Settings:
    """The settings, as a worker has written them. Raises ProdServeError, since what a worker says is not believed blindly."""
    known = {name: text for name, text in loaded.values.items() if name in TABLE}
    try:
        return Settings.of({name: TABLE[name].declaration.kind.parse(text) for name, text in known.items()})
    except ValueError as error:
        raise ProdServeError(f"A worker has sent settings that make no sense: {error}.") from error
