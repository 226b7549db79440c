"""An alarm that one thread waits for and other threads put off without waking it.

Made of timerfd_create(2). Calls the C library: ``os`` has these calls from Python 3.13 on only.
"""

from __future__ import annotations

import errno
import os
import select
import time
import weakref
from functools import lru_cache
from typing import Any

_NANOSECONDS = 1_000_000_000

_SOON, _ENOUGH = 1e-6, 0.1
"""Seconds, to try an alarm: when it is set to ring, and when it must have rung."""

_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Alarm:
    """Rings once after :meth:`set`, which any thread and any signal handler may call.

    Raises OSError if no more files can be opened.
    """

    def __init__(self) -> None:
        import ctypes

        library = _library()
        descriptor: int = library.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._settime: Any = library.timerfd_settime
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @staticmethod
    def available() -> bool:
        """Tell whether alarms work here. Tries one: a sandbox may forbid the calls."""
        try:
            alarm = Alarm()
        except (ImportError, AttributeError):  # a Python without ctypes, or another system
            return False
        except OSError as error:  # also from a Python that cannot load libraries
            if error.errno in _NO_MORE_FILES:
                raise
            return False
        alarm.set(_SOON)
        rings = alarm.wait(_ENOUGH)
        alarm.close()
        return rings

    def set(self, seconds: float) -> None:
        """Ring *seconds* from now, more than 0, instead of at the time that was set before."""
        self._settime(self._descriptor, 0, _once(seconds), None)

    def wait(self, seconds: float) -> bool:
        """Wait until it rings, for *seconds* at most.

        Returns whether it has rung since it was set.
        """
        self._poll.poll(seconds * 1000)
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the descriptor. :meth:`set` may still be called and has no effect."""
        self._descriptor = -1
        self._close()


@lru_cache(maxsize=1)
def _library() -> Any:
    """Return the C library. Calls keep the GIL: to release it would take longer than they do."""
    import ctypes

    return ctypes.PyDLL(None, use_errno=True)


@lru_cache(maxsize=8)
def _once(seconds: float) -> Any:
    """Return a ``struct itimerspec`` (timerfd_settime(2)).

    It has seconds and nanoseconds, first those of the interval, which is 0.
    """
    import ctypes

    whole, part = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return (ctypes.c_long * 4)(0, 0, whole, part)
