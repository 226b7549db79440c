"""What an app wants to be told of its processes: functions that are registered while it is set up, and when they are run.

Rules: a function is called with the app and nothing else. What an app registers is only kept here, so that it can be forked; threads
begin in :meth:`Hooks.start_once`. What goes wrong in a function is the app's, and logged by the app's logger, unless it must stop the boot.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol

from ..clock import Deadline
from ..net.forked import in_parent_only

Hook = Callable[[Any], object]
"""A function of the app, with the app as its only argument."""

EXTENSION = "prodserve"
"""Under which ``app.extensions`` has what the extension knows of the app."""

logger = logging.getLogger("flask_prodserve")


class App(Protocol):
    """What is known here of an app."""

    extensions: dict[str, Any]

    @property
    def logger(self) -> logging.Logger: ...


class Hooks:
    """The functions of one app, or of several that share a ``ProdServe``; see :class:`flask_prodserve.ProdServe` for when they run."""

    def __init__(self) -> None:
        self._before_fork: list[Hook] = []
        self._worker_started: list[Hook] = []
        self._worker_stopping: list[Hook] = []
        self._once: list[Hook] = []

    # Registration. Each raises TypeError for what cannot be called so.

    def before_fork(self, function: Hook) -> None:
        self._before_fork.append(_runs_to_its_end(function, "before_fork"))

    def worker_started(self, function: Hook) -> None:
        self._worker_started.append(_runs_to_its_end(function, "worker_started"))

    def worker_stopping(self, function: Hook) -> None:
        self._worker_stopping.append(_runs_to_its_end(function, "worker_stopping"))

    def once(self, function: Hook) -> None:
        self._once.append(_takes_the_app(function, "once"))

    # Running.

    def run_before_fork(self, app: App) -> None:
        """In the process that forks, with the app loaded and before the first fork. Raises what a function raises."""
        for function in self._before_fork:
            function(app)

    def run_worker_started(self, app: App) -> None:
        """In each process that serves, before it does. Raises what a function raises; those after it are not run."""
        for function in self._worker_started:
            function(app)

    def run_worker_stopping(self, app: App) -> None:
        """In each process that has served, before it ends; the last one registered first. Raises no Exception."""
        for function in reversed(self._worker_stopping):
            try:
                function(app)
            except Exception:
                app.logger.exception("worker_stopping: %s failed", _name(function))

    @property
    def has_once(self) -> bool:
        """Whether there is something that one process only is to do."""
        return bool(self._once)

    def start_once(self, app: App) -> OnceRunning:
        """Start what one process only does, each function in a thread of its own. Returns at once."""
        running = []
        for function in self._once:
            one = _Once(function, app)
            try:
                one.start()
            except RuntimeError:  # of threading, where a limit of the system is reached
                app.logger.exception("once: %s gets no thread", _name(function))
            else:
                running.append(one)
        return OnceRunning(running)


def hooks_of(app: App) -> Hooks:
    """What is to be run in the processes of *app*."""
    state = app.extensions.get(EXTENSION)
    return Hooks() if state is None else state.hooks


class AppsHooks:
    """The functions of all *apps* that one server has in its processes, each called with its own app; those of the first app first."""

    def __init__(self, apps: Iterable[App]) -> None:
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
    """What :meth:`Hooks.start_once` has started."""

    def __init__(self, running: Sequence[_Once]) -> None:
        self.running = running

    def stop(self, deadline: Deadline) -> bool:
        """Run what follows the ``yield`` of generators, and wait for its end until *deadline*; functions without one are not waited for.

        Returns whether nothing of all that runs any more, which is when another process may begin. May be called again.
        """
        for one in self.running:  # all at the same time, so that the deadline is for each of them
            one.begin_to_stop()
        for one in self.running:
            one.wait(deadline)
        return not any(one.is_running() for one in self.running)


class _Once:
    """One function, in its thread. A daemon: what cannot be stopped does not keep the process."""

    def __init__(self, function: Hook, app: App) -> None:
        self._function = function
        self._app = app
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._can_stop = inspect.isgeneratorfunction(function)
        # An empty context: where threads inherit one, it would be that of whatever has started the server.
        self._thread = threading.Thread(
            target=contextvars.Context().run,
            args=(self._run,),
            name=f"prodserve-once-{_name(function)}",
            daemon=True,
        )

    def start(self) -> None:
        """Raises RuntimeError where there can be no thread."""
        self._thread.start()

    def begin_to_stop(self) -> None:
        self._stopping.set()

    def wait(self, deadline: Deadline) -> None:
        """Wait for the end, if it can be expected."""
        if not self._can_stop:
            return
        self._thread.join(deadline.remaining())
        if self.is_running():
            logger.warning(
                "once: %s has not stopped in time (GRACEFUL_TIMEOUT), and goes on until its process ends",
                _name(self._function),
            )

    def is_running(self) -> bool:
        return not self._ended.is_set()

    def _run(self) -> None:
        try:
            with in_parent_only():
                result = self._function(self._app)
                if isinstance(result, Generator):
                    self._can_stop = (
                        True  # known before it begins: a decorated generator function does not look like one
                    )
                    self._drive(result)
        except BaseException:  # a thread would end without a word on SystemExit
            self._app.logger.exception("once: %s failed, and is not run again by this process", _name(self._function))
        finally:
            self._ended.set()

    def _drive(self, generator: Generator[object, None, object]) -> None:
        if self._stopping.is_set() or _has_ended(generator):  # stopped before it began, or there is nothing to stop
            return
        self._stopping.wait()
        if not _has_ended(generator):
            self._app.logger.error("once: %s yields more than once; what follows is not run", _name(self._function))
            generator.close()


def _has_ended(generator: Generator[object, None, object]) -> bool:
    """Run *generator* to its next ``yield``, or to its end."""
    end = object()
    return next(generator, end) is end


def _runs_to_its_end(function: Hook, hook: str) -> Hook:
    if _is(inspect.isgeneratorfunction, _takes_the_app(function, hook)):
        raise TypeError(f"{hook} takes no generator functions, only once does; {_name(function)} is one")
    return function


def _takes_the_app(function: Hook, hook: str) -> Hook:
    """*function*, if it is callable with one argument. Found here, a mistake does not wait until the process stops."""
    if not callable(function):
        raise TypeError(f"{hook} takes a function of the app, not {function!r}")
    if _is(inspect.iscoroutinefunction, function) or _is(inspect.isasyncgenfunction, function):
        raise TypeError(
            f"{hook} takes no async functions, since no event loop would run them; {_name(function)} is one"
        )
    try:
        inspect.signature(function).bind(None)
    except ValueError:
        pass  # written in C, and says nothing of its arguments
    except TypeError as error:
        raise TypeError(f"{hook} calls {_name(function)} with the app as its only argument: {error}") from None
    return function


def _is(kind: Callable[[object], bool], function: Hook) -> bool:
    """Whether *function* is of a kind, or is an object whose call is."""
    return kind(function) or kind(type(function).__call__)


def _name(function: Hook) -> str:
    return getattr(function, "__name__", type(function).__name__)
