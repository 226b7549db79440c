"""An alarm that one thread waits for, and that others put off without waking it: timerfd_create(2).

``os`` has that from Python 3.13 on; here it is the C library's.
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
"""Seconds after which an alarm is set to ring, and after which it has, to try it out."""

_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Alarm:
    """Rings once, when :meth:`set` says so, which any thread and signal handler may. Raises OSError where no more files can be open."""

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
        """Whether this system and this Python have what it takes. Tried out: a sandbox may forbid the calls."""
        try:
            alarm = Alarm()
        except (ImportError, AttributeError):  # a Python that was built without ctypes, another system
            return False
        except OSError as error:  # also of a Python that cannot load libraries
            if error.errno in _NO_MORE_FILES:
                raise
            return False
        alarm.set(_SOON)
        rings = alarm.wait(_ENOUGH)
        alarm.close()
        return rings

    def set(self, seconds: float) -> None:
        """Ring *seconds* from now, which must be more than none, and not when it was to ring before."""
        self._settime(self._descriptor, 0, _once(seconds), None)

    def wait(self, seconds: float) -> bool:
        """Wait until it rings, but no longer than *seconds*. Returns whether it has rung since it was set."""
        self._poll.poll(seconds * 1000)
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Nobody waits for it any more. It may still be set, and does not ring."""
        self._descriptor = -1
        self._close()


@lru_cache(maxsize=1)
def _library() -> Any:
    """The C library, which is called without letting go of the GIL: the calls take less time than that."""
    import ctypes

    return ctypes.PyDLL(None, use_errno=True)


@lru_cache(maxsize=8)
def _once(seconds: float) -> Any:
    """``struct itimerspec`` (timerfd_settime(2)): seconds and nanoseconds, first of the interval, of which there is none."""
    import ctypes

    whole, part = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return (ctypes.c_long * 4)(0, 0, whole, part)
