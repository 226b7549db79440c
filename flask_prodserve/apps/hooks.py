"""Functions that an app registers for its processes, and the code that runs them.

Rules: a function is called with the app as its only argument. Registration only stores a function,
so that the app can be forked; threads start in :meth:`Hooks.start_once`. If a function fails, the
app's logger logs it, unless it must stop the start.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING

from ..clock import Deadline
from ..net.forked import in_parent_only

if TYPE_CHECKING:
    from flask import Flask

Hook = Callable[["Flask"], object]
"""A function of the app, with the app as its only argument."""

EXTENSION = "prodserve"
"""The key of the extension's state in ``app.extensions``."""

logger = logging.getLogger("flask_prodserve")


class Hooks:
    """The hooks of one app, or of several that share a ``ProdServe``.
    :class:`flask_prodserve.ProdServe` says when they run.
    """

    def __init__(self) -> None:
        self._before_fork: list[Hook] = []
        self._worker_started: list[Hook] = []
        self._worker_stopping: list[Hook] = []
        self._once: list[Hook] = []

    # Registration. Each method raises TypeError if the function cannot be called with the app.

    def before_fork(self, function: Hook) -> None:
        self._before_fork.append(_runs_to_its_end(function, "before_fork"))

    def worker_started(self, function: Hook) -> None:
        self._worker_started.append(_runs_to_its_end(function, "worker_started"))

    def worker_stopping(self, function: Hook) -> None:
        self._worker_stopping.append(_runs_to_its_end(function, "worker_stopping"))

    def once(self, function: Hook) -> None:
        self._once.append(_takes_the_app(function, "once"))

    # Running.

    def run_before_fork(self, app: Flask) -> None:
        """Call in the process that forks, after the app is loaded and before the first fork. Raises
        what a function raises.
        """
        for function in self._before_fork:
            function(app)

    def run_worker_started(self, app: Flask) -> None:
        """Call in each process before it serves. Raises what a function raises; later functions do
        not run.
        """
        for function in self._worker_started:
            function(app)

    def run_worker_stopping(self, app: Flask) -> None:
        """Call in each process after it served; runs the functions in reverse order. Raises no
        Exception.
        """
        for function in reversed(self._worker_stopping):
            try:
                function(app)
            except Exception:
                app.logger.exception("worker_stopping: %s failed", _name(function))

    @property
    def has_once(self) -> bool:
        """Whether there are functions that only one process runs."""
        return bool(self._once)

    def start_once(self, app: Flask) -> OnceRunning:
        """Start each ``once`` function in its own thread, and return at once."""
        running = []
        for function in self._once:
            one = _Once(function, app)
            try:
                one.start()
            except RuntimeError:  # a limit of the system on threads
                app.logger.exception("once: could not start a thread for %s", _name(function))
            else:
                running.append(one)
        return OnceRunning(running)


def hooks_of(app: Flask) -> Hooks:
    """Return the hooks of *app*."""
    state = app.extensions.get(EXTENSION)
    return Hooks() if state is None else state.hooks


class AppsHooks:
    """The hooks of all *apps* of one server, each called with its own app, in the order of the
    apps.
    """

    def __init__(self, apps: Iterable[Flask]) -> None:
        self._apps = [(app, hooks_of(app)) for app in apps]

    def run_before_fork(self) -> None:
        for app, hooks in self._apps:
            hooks.run_before_fork(app)

    def run_worker_started(self) -> None:
        for app, hooks in self._apps:
            hooks.run_worker_started(app)

    def run_worker_stopping(self) -> None:
        for app, hooks in reversed(self._apps):
            hooks.run_worker_stopping(app)

    @property
    def has_once(self) -> bool:
        return any(hooks.has_once for _, hooks in self._apps)

    def start_once(self) -> OnceRunning:
        return OnceRunning([one for app, hooks in self._apps for one in hooks.start_once(app).running])


class OnceRunning:
    """The functions that :meth:`Hooks.start_once` started."""

    def __init__(self, running: Sequence[_Once]) -> None:
        self.running = running

    def stop(self, deadline: Deadline) -> bool:
        """Resume the generators behind their ``yield``, and wait for their end until *deadline*.
        Other functions are not waited for.

        Returns whether all have ended, so that another process may start them. May be called again.
        """
        for one in self.running:  # all at once, so that each has the whole time
            one.begin_to_stop()
        for one in self.running:
            one.wait(deadline)
        return not any(one.is_running() for one in self.running)


class _Once:
    """One function in its thread, a daemon thread: a function that cannot be stopped must not keep
    the process alive.
    """

    def __init__(self, function: Hook, app: Flask) -> None:
        self._function = function
        self._app = app
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._can_stop = inspect.isgeneratorfunction(function)
        # In an empty context: some Pythons pass the caller's context to a new thread.
        self._thread = threading.Thread(
            target=contextvars.Context().run,
            args=(self._run,),
            name=f"prodserve-once-{_name(function)}",
            daemon=True,
        )

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system allows no more threads."""
        self._thread.start()

    def begin_to_stop(self) -> None:
        self._stopping.set()

    def wait(self, deadline: Deadline) -> None:
        """Wait for the end of a generator until *deadline*."""
        if not self._can_stop:
            return
        self._thread.join(deadline.remaining())
        if self.is_running():
            logger.warning(
                "once: %s did not stop within GRACEFUL_TIMEOUT and runs until its process ends",
                _name(self._function),
            )

    def is_running(self) -> bool:
        return not self._ended.is_set()

    def _run(self) -> None:
        try:
            with in_parent_only():
                result = self._function(self._app)
                if isinstance(result, Generator):
                    self._can_stop = True  # a decorated generator function is recognized only here
                    self._drive(result)
        except BaseException:  # SystemExit would end a thread without a trace
            self._app.logger.exception("once: %s failed; this process does not run it again", _name(self._function))
        finally:
            self._ended.set()

    def _drive(self, generator: Generator[object, None, object]) -> None:
        if self._stopping.is_set() or _has_ended(generator):  # stopped before it started, or it has no yield left
            return
        self._stopping.wait()
        if not _has_ended(generator):
            self._app.logger.error("once: %s yields more than once; the rest of it does not run", _name(self._function))
            generator.close()


def _has_ended(generator: Generator[object, None, object]) -> bool:
    """Run *generator* to its next ``yield`` or its end. Return whether it ended."""
    end = object()
    return next(generator, end) is end


def _runs_to_its_end(function: Hook, hook: str) -> Hook:
    if _is(inspect.isgeneratorfunction, _takes_the_app(function, hook)):
        raise TypeError(f"{hook} takes no generator functions (only once does), but {_name(function)} is one")
    return function


def _takes_the_app(function: Hook, hook: str) -> Hook:
    """Return *function* if one argument can be passed to it. A mistake is reported here, not when
    the process stops.
    """
    if not callable(function):
        raise TypeError(f"{hook} takes a function of the app, not {function!r}")
    if _is(inspect.iscoroutinefunction, function) or _is(inspect.isasyncgenfunction, function):
        raise TypeError(
            f"{hook} takes no async functions, because no event loop would run them, but {_name(function)} is one"
        )
    try:
        inspect.signature(function).bind(None)
    except ValueError:
        pass  # written in C, without a signature
    except TypeError as error:
        raise TypeError(f"{hook} calls {_name(function)} with the app as its only argument: {error}") from None
    return function


def _is(kind: Callable[[object], bool], function: Hook) -> bool:
    """Return whether *function*, or its ``__call__``, is of a *kind*."""
    return kind(function) or kind(type(function).__call__)


def _name(function: Hook) -> str:
    return getattr(function, "__name__", type(function).__name__)
