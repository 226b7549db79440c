"""Raising an exception in another thread, where Python can (CPython)."""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType


class Interruptible:
    """A block in which another thread may raise an exception: in the block, or at its end, and
    never after it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._raised = False

    def __enter__(self) -> Interruptible:
        self._thread = threading.get_ident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """From now on nothing comes any more: what was set in the last moment comes in here, or not
        at all. May be called again.

        To be called before taking any lock that others need: in Python 3.10 an exception may come
        between a ``with`` and its end.
        """
        if not self._raised:
            with self._lock:
                self._thread = None
        if self._raised:
            _set(threading.get_ident(), None)

    def interrupt(self, exception: type[BaseException]) -> None:
        """Raise *exception* in the thread that is in the block, as soon as it runs Python code, if
        it is still there.
        """
        with self._lock:
            if self._thread is not None and not self._raised:
                _set(self._thread, exception)
                self._raised = True  # only now: who sees this does not wait, and clears what is set


def _set(thread: int, exception: type[BaseException] | None) -> None:
    api = getattr(ctypes, "pythonapi", None)
    if api is not None:
        api.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), None if exception is None else ctypes.py_object(exception)
        )
