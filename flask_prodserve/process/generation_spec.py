"""What one generation of workers serves, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import ProdServeError
from ..net.listeners import Listener
from ..settings import TABLE, Settings
from ..units import format_address
from .messages import Loaded, Serve
from .state import Rules


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """*loaded* is what the first worker of the generation reported.

    *loads* is the descriptor of the load table, which all workers on the same listeners share.
    *urls* are where clients reach the generation, still known after the supervisor has closed the
    listeners.
    """

    loaded: Loaded
    settings: Settings
    listeners: tuple[Listener, ...]
    loads: int
    urls: tuple[str, ...]

    @classmethod
    def of(cls, loaded: Loaded, listeners: Sequence[Listener], loads: int) -> GenerationSpec:
        settings = read_settings(loaded)
        urls = tuple(listener.url(settings.scheme(listener.address)) for listener in listeners)
        return cls(loaded, settings, tuple(listeners), loads, urls)

    def apply_to(self, rules: Rules) -> Rules:
        """Return *rules* with the settings of this generation."""
        workers, timeouts = self.settings.workers, self.settings.timeouts
        return replace(
            rules,
            worker_timeout=workers.worker_timeout,
            graceful_timeout=timeouts.graceful_timeout,
            drain_delay=timeouts.drain_delay,
            max_worker_lifetime=workers.max_worker_lifetime,
            max_worker_memory=workers.max_worker_memory,
        )

    def serve_message(self, slot: int) -> tuple[Serve, list[int]]:
        """Return the message that starts a worker with this *slot* in the load table, and the
        descriptors to send with it.
        """
        descriptors = [*(listener.socket.fileno() for listener in self.listeners), self.loads]
        return Serve([format_address(listener.address) for listener in self.listeners], slot), descriptors


def read_settings(loaded: Loaded) -> Settings:
    """Parse the settings that a worker has sent.

    Raises ProdServeError: a worker is not trusted blindly.
    """
    known = {name: text for name, text in loaded.values.items() if name in TABLE}
    try:
        return Settings.of({name: TABLE[name].declaration.kind.parse(text) for name, text in known.items()})
    except ValueError as error:
        raise ProdServeError(f"A worker has sent invalid settings: {error}.") from error
