"""Makes children that the app forks from a process of this server give up what belongs to the
server.

``os.fork``, ``pty.fork``, multiprocessing and ProcessPoolExecutor copy every descriptor and every
signal handler. Without this, a child would keep the port, the clients' connections and the link to
the supervisor open, and ignore SIGTERM.

Rules:

- A part of the server that holds descriptors registers a function here while it holds them. In a
  child, all these functions run once, in the thread that forked: the only thread of a child.
- Such a function takes no lock, because the thread that holds it does not exist in the child. It
  closes descriptors through the objects that own them, so that no number is closed twice. It does
  nothing that reaches the parent: no shutdown, no epoll_ctl, no unlink.
- Processes that the server itself forks (workers) keep what they need: :func:`of_our_own`.
- A child never continues as a part of the server: :func:`end_child` ends it when it returns from
  the app's code.

The fork clears the parent-death signal of a worker (prctl(2)), as it should: the signal would be
sent when the *thread* that forked ends, and service threads come and go.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

_duties: dict[Callable[[], object], None] = {}
_is_child = False
_our_own: int | None = None
"""The thread that currently forks a process of the server itself."""


def call_in_child(function: Callable[[], object]) -> None:
    """Call *function* in each child that is forked from now on. Registering it again changes
    nothing.
    """
    global _is_child
    _is_child = False  # a process that registers a function serves
    _duties[function] = None


def forget(function: Callable[[], object]) -> None:
    """Undo :func:`call_in_child`."""
    _duties.pop(function, None)


@contextlib.contextmanager
def of_our_own() -> Iterator[None]:
    """Fork a process of the server inside the block. It stays as it is, without the functions
    registered so far.
    """
    global _our_own
    _our_own = threading.get_ident()
    try:
        yield
    finally:
        _our_own = None


def end_child() -> None:
    """End this process if it is a forked child of one that serves: the app's code has ended, and
    there is no client to answer.

    Flushes the output. The exit code is 0, that of SystemExit, or 1 after another exception, which
    is printed.
    """
    if not _is_child:
        return
    error = sys.exc_info()[1]
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code & 0xFF if isinstance(code, int) else 1)


@contextlib.contextmanager
def in_parent_only() -> Iterator[None]:
    """Run code of the app inside the block. A child that it forks ends at the end of the block."""
    try:
        yield
    finally:
        end_child()


def _after_fork() -> None:
    global _is_child, _our_own
    functions = list(_duties)
    _duties.clear()
    if _our_own == threading.get_ident():
        _our_own = None
        _forget_processes()
        return
    _our_own = None
    if functions:
        _is_child = True
    for function in functions:
        with contextlib.suppress(Exception):  # the others must run as well
            function()


def _forget_processes() -> None:
    """Forget the parent's children, which multiprocessing would end with this process."""
    if (processes := getattr(sys.modules.get("multiprocessing.process"), "_children", None)) is not None:
        processes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
