"""Hooks: what is refused, in which order they run, what becomes of exceptions, and how what one process only does starts and stops."""

from __future__ import annotations

import contextvars
import functools
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_prodserve.apps.hooks import Hook, Hooks, OnceRunning
from flask_prodserve.clock import Deadline
from serving import PATIENCE, wait_until

PROCESS_HOOKS = ["before_fork", "worker_started", "worker_stopping"]
HOOKS = [*PROCESS_HOOKS, "once"]


class App:
    """What hooks know of an app."""

    def __init__(self) -> None:
        self.extensions: dict[str, Any] = {}
        self.logger = logging.getLogger("an_app")


APP = App()


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of logging configuration switch off every logger that there is."""
    monkeypatch.setattr(APP.logger, "disabled", False)


def register(hooks: Hooks, hook: str, function: Any) -> None:
    getattr(hooks, hook)(function)


def run(hooks: Hooks, hook: str) -> None:
    getattr(hooks, f"run_{hook}")(APP)


def start(*functions: Hook) -> OnceRunning:
    hooks = Hooks()
    for function in functions:
        hooks.once(function)
    return hooks.start_once(APP)


def stop(running: OnceRunning) -> bool:
    return running.stop(Deadline(PATIENCE))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prodserve-once-")]


@pytest.fixture(autouse=True)
def _all_threads_end() -> Iterator[None]:
    yield
    wait_until(lambda: not threads(), "the threads of this test")


# What is refused.


async def _async(app: object) -> None: ...


async def _async_generator(app: object) -> Any:
    yield


class _Callable:
    def __init__(self) -> None:
        self.called_with: list[object] = []

    def __call__(self, app: object) -> None:
        self.called_with.append(app)


class _AsyncCallable:
    async def __call__(self, app: object) -> None: ...


def _generator(app: object) -> Iterator[None]:
    yield


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("thing", [None, "name", 5], ids=repr)
def test_no_function(hook: str, thing: object) -> None:
    """What cannot be called is refused, and the message says by which hook and what it is."""
    with pytest.raises(TypeError, match=f"^{hook} takes a function of the app, not {thing!r}$"):
        register(Hooks(), hook, thing)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "function",
    [_async, _async_generator, functools.partial(_async), _AsyncCallable()],
    ids=["function", "generator", "partial", "object"],
)
def test_async_functions(hook: str, function: object) -> None:
    """Async functions are refused, however they are wrapped."""
    with pytest.raises(TypeError, match=f"^{hook} takes no async functions"):
        register(Hooks(), hook, function)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("function", [lambda: None, lambda app, other: None, lambda *, app: None])
def test_other_arguments(hook: str, function: object) -> None:
    """A function that cannot be called with the app alone is refused at once, and not when the process stops."""
    with pytest.raises(TypeError, match=f"^{hook} calls <lambda> with the app as its only argument: "):
        register(Hooks(), hook, function)


@pytest.mark.parametrize("hook", PROCESS_HOOKS)
def test_generators_are_for_once(hook: str) -> None:
    """Generator functions, of which nothing would run, are refused by all hooks but once."""
    with pytest.raises(
        TypeError, match=rf"^{hook} takes no generator functions \(only once does\), but _generator is one$"
    ):
        register(Hooks(), hook, _generator)


@pytest.mark.parametrize("hook", PROCESS_HOOKS)
def test_what_else_is_callable(hook: str) -> None:
    """Objects with __call__, bound methods, partials and functions with defaults will do as functions."""
    hooks, one, seen = Hooks(), _Callable(), list[object]()
    for function in (
        one,
        seen.append,
        functools.partial(lambda key, app: seen.append(app), 1),
        lambda app, more=1: None,
    ):
        register(hooks, hook, function)
    run(hooks, hook)
    assert one.called_with == [APP]
    assert seen == [APP, APP]


# In each process.


@pytest.mark.parametrize(
    ("hook", "order"), [*((hook, [1, 2, 3]) for hook in PROCESS_HOOKS[:2]), ("worker_stopping", [3, 2, 1])]
)
def test_order(hook: str, order: list[int]) -> None:
    """Functions run as they were registered, those of worker_stopping the other way round, each with the app, in the caller's thread."""
    hooks, seen = Hooks(), list[tuple[int, object, int]]()
    for number in (1, 2, 3):
        register(hooks, hook, lambda app, number=number: seen.append((number, app, threading.get_ident())))
    run(hooks, hook)
    assert seen == [(number, APP, threading.get_ident()) for number in order]


@pytest.mark.parametrize("hook", HOOKS)
def test_without_functions(hook: str) -> None:
    """Hooks that nobody has registered anything for do nothing."""
    hooks = Hooks()
    register(hooks, next(other for other in HOOKS if other != hook), _never)
    if hook == "once":
        assert not hooks.has_once
        assert stop(hooks.start_once(APP))
    else:
        run(hooks, hook)


def _never(app: object) -> None:
    raise AssertionError("this was not to be run")


@pytest.mark.parametrize("hook", ["before_fork", "worker_started"])
def test_exceptions_of_a_start(hook: str) -> None:
    """An exception at the start is the caller's, and nothing is run after it."""
    hooks = Hooks()
    register(hooks, hook, lambda app: 1 / 0)
    register(hooks, hook, _never)
    with pytest.raises(ZeroDivisionError):
        run(hooks, hook)


def test_exceptions_of_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    """An exception at the stop is logged with its traceback by the app's logger, and the other functions run."""
    hooks, seen = Hooks(), list[object]()
    hooks.worker_stopping(seen.append)
    hooks.worker_stopping(lambda app: 1 / 0)
    hooks.worker_stopping(seen.append)
    hooks.run_worker_stopping(APP)
    assert seen == [APP, APP]
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("an_app", "ERROR", "worker_stopping: <lambda> failed")
    ]
    assert "ZeroDivisionError" in caplog.text


def test_a_second_interrupt_at_the_stop() -> None:
    """KeyboardInterrupt in worker_stopping is not taken for a mistake of the app: who waits for it may end it."""
    hooks = Hooks()

    def interrupted(app: object) -> None:
        raise KeyboardInterrupt

    hooks.worker_stopping(interrupted)
    with pytest.raises(KeyboardInterrupt):
        hooks.run_worker_stopping(APP)


# In one process.


def test_a_plain_function_that_returns() -> None:
    """A plain function is called with the app in a thread of its own, and when it has returned nothing runs any more."""
    seen = list[tuple[object, str, bool]]()

    def scheduler(app: object) -> object:
        thread = threading.current_thread()
        seen.append((app, thread.name, thread.daemon))
        return scheduler

    hooks = Hooks()
    hooks.once(scheduler)
    assert hooks.has_once
    running = hooks.start_once(APP)
    wait_until(lambda: seen and not threads())
    assert seen == [(APP, "prodserve-once-scheduler", True)]
    assert stop(running)


def test_a_plain_function_that_runs_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A plain function that still runs is not waited for; that it runs is the answer, as long as it does."""
    begun, end = threading.Event(), threading.Event()

    def loop(app: object) -> None:
        begun.set()
        end.wait(PATIENCE)

    running = start(loop)
    try:
        assert begun.wait(PATIENCE)
        assert not running.stop(Deadline(float("inf")))  # would never return if it waited
        assert not running.stop(Deadline(0))
    finally:
        end.set()
    wait_until(lambda: not threads())
    assert stop(running)
    assert not caplog.records


def test_a_generator_function() -> None:
    """What is before the yield runs at the start, what is after it at the stop, in one thread, and the stop has waited for it."""
    seen = list[tuple[str, object, int]]()
    begun = threading.Event()

    def scheduler(app: object) -> Iterator[None]:
        seen.append(("start", app, threading.get_ident()))
        begun.set()
        yield
        seen.append(("stop", app, threading.get_ident()))

    running = start(scheduler)
    assert begun.wait(PATIENCE)
    assert threads() == ["prodserve-once-scheduler"]
    assert len(seen) == 1
    assert stop(running)
    (first, _, thread), (second, _, same) = seen
    assert (first, second) == ("start", "stop")
    assert thread == same != threading.get_ident()
    assert stop(running)
    assert len(seen) == 2


def test_a_stop_during_the_start() -> None:
    """A generator that is asked to stop before it has yielded stops as soon as it has."""
    begun, go_on, seen = threading.Event(), threading.Event(), list[str]()

    def scheduler(app: object) -> Iterator[None]:
        begun.set()
        go_on.wait(PATIENCE)
        yield
        seen.append("stop")

    running = start(scheduler)
    assert begun.wait(PATIENCE)
    assert not running.stop(Deadline(0))
    go_on.set()
    assert stop(running)
    assert seen == ["stop"]


def test_a_stop_before_the_start() -> None:
    """A generator that is asked to stop before its thread has begun does not run at all."""
    held, begun, seen = threading.Event(), threading.Event(), list[str]()

    class Late:
        """Is called when the thread begins, and returns the generator then."""

        def __call__(self, app: object) -> Iterator[None]:
            begun.set()
            assert held.wait(PATIENCE)
            return self.scheduler()

        def scheduler(self) -> Iterator[None]:
            seen.append("started")
            yield

    running = start(Late())
    assert begun.wait(PATIENCE)
    stop(running)
    held.set()
    wait_until(lambda: not threads(), "the thread to end")
    assert seen == []


def test_a_generator_that_has_nothing_to_stop() -> None:
    """A generator function may return before its yield."""

    def scheduler(app: object) -> Iterator[None]:
        if app is APP:
            return
        yield

    running = start(scheduler)
    wait_until(lambda: not threads())
    assert stop(running)


@pytest.mark.parametrize("wrap", [functools.partial, lambda function: lambda app: function(app)])
def test_wrapped_generator_functions(wrap: Callable[[Hook], Hook]) -> None:
    """What returns a generator is a generator function, whatever it looks like."""
    begun, seen = threading.Event(), list[str]()

    def scheduler(app: object) -> Iterator[None]:
        begun.set()
        yield
        seen.append("stop")

    running = start(wrap(scheduler))
    assert begun.wait(PATIENCE)
    assert stop(running)
    assert seen == ["stop"]


def test_a_generator_that_does_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    """The stop waits until the deadline and not longer, and says which function it has left behind."""
    begun, stopping, end = threading.Event(), threading.Event(), threading.Event()

    def scheduler(app: object) -> Iterator[None]:
        begun.set()
        yield
        stopping.set()
        end.wait(PATIENCE)

    running = start(scheduler)
    try:
        assert begun.wait(PATIENCE)
        assert not running.stop(Deadline(0.05))
        assert stopping.wait(PATIENCE)
    finally:
        end.set()
    assert caplog.messages == ["once: scheduler did not stop within GRACEFUL_TIMEOUT and runs until its process ends"]
    assert stop(running)


def test_several_stop_at_the_same_time() -> None:
    """Functions run beside each other: two that wait for one another at the start and at the stop come to their ends."""
    at_start, at_stop = threading.Barrier(3), threading.Barrier(2)

    def one(app: object) -> Iterator[None]:
        at_start.wait(PATIENCE)
        yield
        at_stop.wait(PATIENCE)

    def other(app: object) -> Iterator[None]:
        yield from one(app)

    running = start(one, other)
    at_start.wait(PATIENCE)
    assert sorted(threads()) == ["prodserve-once-one", "prodserve-once-other"]
    assert stop(running)
    assert not at_start.broken
    assert not at_stop.broken


def test_a_generator_that_yields_twice(caplog: pytest.LogCaptureFixture) -> None:
    """A second yield is an error that is logged, and the generator is closed at it."""
    begun, seen = threading.Event(), list[str]()

    def scheduler(app: object) -> Iterator[None]:
        begun.set()
        try:
            yield
            yield
            seen.append("unreachable")
        finally:
            seen.append("closed")

    running = start(scheduler)
    assert begun.wait(PATIENCE)
    assert stop(running)
    assert seen == ["closed"]
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("an_app", "ERROR", "once: scheduler yields more than once; the rest of it does not run")
    ]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
@pytest.mark.parametrize("where", ["plain", "start", "stop"])
def test_exceptions_of_once(where: str, error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """An exception, even one that would end a thread without a word, is logged with its traceback; other functions are none the wiser."""
    begun, other_begun, seen = threading.Event(), threading.Event(), list[str]()

    def plain(app: object) -> None:
        begun.set()
        raise error("no")

    def generator(app: object) -> Iterator[None]:
        begun.set()
        if where == "start":
            raise error("no")
        yield
        raise error("no")

    def other(app: object) -> Iterator[None]:
        other_begun.set()
        yield
        seen.append("stop")

    running = start(plain if where == "plain" else generator, other)
    assert begun.wait(PATIENCE)
    assert other_begun.wait(PATIENCE)
    wait_until(lambda: len(threads()) == (2 if where == "stop" else 1))
    assert stop(running)
    assert seen == ["stop"]
    [record] = caplog.records
    name = "plain" if where == "plain" else "generator"
    assert (record.name, record.getMessage()) == (
        "an_app",
        f"once: {name} failed; this process does not run it again",
    )
    assert f"{error.__name__}: no" in caplog.text


def test_an_empty_context() -> None:
    """The threads do not inherit the context that the server was started in."""
    variable = contextvars.ContextVar("variable", default="none")
    token = variable.set("of the caller")
    seen = list[str]()
    try:
        running = start(lambda app: seen.append(variable.get()))
        wait_until(lambda: seen)
    finally:
        variable.reset(token)
    assert seen == ["none"]
    wait_until(lambda: stop(running))


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the system allows no further thread, that is logged, and there is nothing to stop."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    running = start(_never)
    assert caplog.messages == ["once: could not start a thread for _never"]
    assert stop(running)


def test_the_process_may_end() -> None:
    """Neither a function that runs for ever nor a generator that nobody stops keeps the process from its end."""
    code = """if True:
        import threading
        from flask_prodserve.apps.hooks import Hooks

        hooks, begun = Hooks(), threading.Barrier(3)

        @hooks.once
        def plain(app):
            begun.wait()
            threading.Event().wait()

        @hooks.once
        def generator(app):
            begun.wait()
            yield

        hooks.start_once(None)
        begun.wait()
        print("begun")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (done.stdout, done.stderr) == ("begun\n", "")
