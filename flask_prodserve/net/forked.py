"""Children that the app forks from a process of this server, and what they must give up.

``os.fork``, ``pty.fork``, multiprocessing and ProcessPoolExecutor copy every descriptor and every signal handler. A child would keep the
port, the connections of clients and the link to the supervisor open, and take no notice of SIGTERM.

Rules:

- Each part of the server that holds descriptors registers a function here for as long as it holds them. In a child all of these
  functions run once, in the thread that has forked: the only one that a child has.
- Such a function takes no lock, since the thread that holds it does not exist in the child. It closes descriptors through the objects
  that own them, so that no number is closed twice. It does nothing that reaches the parent: no shutdown, no epoll_ctl, no unlink.
- Processes that the server itself forks (workers) keep what they need: :func:`of_our_own`.
- A child never goes on as a part of the server: :func:`end_child` ends it where it comes back out of the app's code.

The parent-death signal of a worker (prctl(2)) is cleared by the fork, which is right: it would be sent when the *thread* that has
forked ends, and service threads come and go.
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
"""The thread that is forking a process of the server itself."""


def call_in_child(function: Callable[[], object]) -> None:
    """Call *function* in each child that is forked from now on. Registering it again changes nothing."""
    global _is_child
    _is_child = False  # what registers something serves
    _duties[function] = None


def forget(function: Callable[[], object]) -> None:
    """Undo :func:`call_in_child`."""
    _duties.pop(function, None)


@contextlib.contextmanager
def of_our_own() -> Iterator[None]:
    """Fork a process of the server inside the block: it is left as it is, but for what is registered, which it inherits nothing of."""
    global _our_own
    _our_own = threading.get_ident()
    try:
        yield
    finally:
        _our_own = None


def end_child() -> None:
    """End this process if it is a child of one that serves: the app's code has returned, or raised, and there is no client to answer.

    Output is flushed. The exit code is 0, that of SystemExit, or 1 after another exception, which is shown.
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
    """Run code of the app inside the block. A child that is forked there does not leave it."""
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
        with contextlib.suppress(Exception):  # the others are no less important
            function()


def _forget_processes() -> None:
    """Forget the parent's children: multiprocessing would end them with this process."""
    if (processes := getattr(sys.modules.get("multiprocessing.process"), "_children", None)) is not None:
        processes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
