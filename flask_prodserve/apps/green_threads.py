"""Refuses an app that has replaced Python's threads with green ones (monkey patching by gevent or eventlet).

The server uses threads of the system for requests, deadlines, and the link to the supervisor. With green threads a worker hangs before
it serves. One process without a supervisor (``--workers 0``) answers plain HTTP, but not TLS. So both are refused. Patched sockets
alone do no harm, unless TLS needs the original ``ssl``.
"""

from __future__ import annotations

import sys

from ..errors import AppLoadError


def refuse_green_threads(*, tls: bool) -> None:
    """Raise AppLoadError if threads are not real any more or, with *tls*, if ``ssl`` has been replaced."""
    if library := _who_patched("threading", "thread"):
        raise AppLoadError(
            f"{library.capitalize()} has replaced Python's threads (monkey patching), and this server needs real ones.",
            "Remove the call, such as gevent.monkey.patch_all() or eventlet.monkey_patch(): each request runs in a thread of its own "
            "(THREADS), so nothing has to be patched. With Flask-SocketIO, also set async_mode='threading'.",
        )
    if tls and (library := _who_patched("ssl", "socket")):
        raise AppLoadError(
            f"{library.capitalize()} has replaced Python's ssl module (monkey patching), and TLS_CERT needs the original.",
            "Remove the call, such as gevent.monkey.patch_all(), or leave ssl out of it: patch_all(thread=False, ssl=False).",
        )


def _who_patched(gevents: str, eventlets: str) -> str:
    """The library that has replaced a module, ``""`` if none has. The two call it differently."""
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_module_patched(gevents):
        return "gevent"
    if patcher is not None and patcher.is_monkey_patched(eventlets):
        return "eventlet"
    return ""
