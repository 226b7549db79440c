"""Fork a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..clock import monotonic
from ..errors import ProdServeError
from ..net import forked
from ..observe import line_writer
from .crash_dump import open_dump
from .handle import Handle
from .link import Link
from .signals import blocked
from .worker import WorkerInit, begin


class ForkError(ProdServeError):
    """The system has no process for a worker."""


def fork_worker(
    number: int,
    generation: int,
    slot: int,
    *,
    first_of_generation: bool,
    others_ready: bool,
    abandon: Callable[[], None],
) -> Handle | WorkerInit:
    """Fork worker *number*. Returns its handle, or, in the worker, what the worker must know.

    *abandon* closes what belongs to the supervisor; it is called in the worker. For the others see
    :class:`Handle` and :class:`WorkerInit`. Raises ForkError.
    """
    ours, theirs = Link.pair()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or the worker would write it again
    line_writer.pause()
    supervisor = os.getpid()
    dump = open_dump()
    with blocked(), forked.of_our_own():
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            if dump is not None:
                os.close(dump)
            raise ForkError(
                f"cannot start a process: {error.strerror} (see ulimit -u, or the container's pids limit)"
            ) from error
        if pid == 0:
            ours.close()
            abandon()
            begin()
            return WorkerInit(number, generation, first_of_generation, theirs, supervisor, others_ready, dump)
    theirs.close()
    return Handle(number, generation, pid, ours, slot, monotonic(), dump=dump)
