"""Refuses an app that replaced Python's threads with green threads (monkey patching by gevent or
eventlet).

The server uses system threads for requests, deadlines, and the link to the supervisor. With green
threads a worker hangs before it serves. One process without a supervisor (``--workers 0``) answers
plain HTTP, but not TLS. So both are refused. Patched sockets alone do no harm, unless TLS needs the
original ``ssl``.
"""

from __future__ import annotations

import sys

from ..errors import AppLoadError


def refuse_green_threads(*, tls: bool) -> None:
    """Raise AppLoadError if threads are patched or, with *tls*, if ``ssl`` is patched."""
    if library := _patched_by("threading", "thread"):
        raise AppLoadError(
            f"{library.capitalize()} has replaced Python's threads (monkey patching), and this server needs real ones.",
            "Remove the call, such as gevent.monkey.patch_all() or eventlet.monkey_patch(): each request runs in its own thread "
            "(THREADS), so nothing has to be patched. With Flask-SocketIO, also set async_mode='threading'.",
        )
    if tls and (library := _patched_by("ssl", "socket")):
        raise AppLoadError(
            f"{library.capitalize()} has replaced Python's ssl module (monkey patching), and TLS_CERT needs the original.",
            "Remove the call, such as gevent.monkey.patch_all(), or exclude ssl from it: patch_all(thread=False, ssl=False).",
        )


def _patched_by(gevent_name: str, eventlet_name: str) -> str:
    """Return the library that patched a module, or ``""``. The two libraries name the module
    differently.
    """
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_module_patched(gevent_name):
        return "gevent"
    if patcher is not None and patcher.is_monkey_patched(eventlet_name):
        return "eventlet"
    return ""
