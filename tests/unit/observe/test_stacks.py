"""Where a thread is, for people who look for what hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask_prodserve.observe.stacks import stack_of
from serving import PATIENCE


def outer(function: Callable[[], object]) -> None:
    inner(function)


def inner(function: Callable[[], object]) -> None:
    function()


@contextmanager
def thread_inside() -> Iterator[int]:
    """A thread that waits inside of inner(), which outer() called."""
    inside, release = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert release.wait(PATIENCE)

    thread = threading.Thread(target=outer, args=[wait])
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert thread.ident is not None
        yield thread.ident
    finally:
        release.set()
        thread.join()


def test_frames_in_order() -> None:
    """The outermost call comes first, with file, line, function and the text of the line, as tracebacks have them."""
    with thread_inside() as thread:
        stack = stack_of(thread)
    assert (
        stack.index("in outer\n    inner(function)") < stack.index("in inner\n    function()") < stack.index("in wait")
    )
    assert f'File "{__file__}"' in stack
    assert not stack.endswith("\n")


def test_without_the_frames_of_threads() -> None:
    """How the thread was started, and how it waits, says nothing."""
    with thread_inside() as thread:
        stack = stack_of(thread)
    assert threading.__file__ not in stack
    assert stack.startswith(f'  File "{__file__}"')


def test_own_stack() -> None:
    """The frames of the server itself are left out, those of whoever called it are not."""
    stack = stack_of(threading.get_ident())
    assert "in test_own_stack" in stack
    assert 'stacks.py", line' not in stack.replace("test_stacks.py", "")


def test_thread_that_has_ended() -> None:
    """A thread that is not there any more has no stack, which is said."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert "ended" in stack_of(thread.ident)
    assert "ended" in stack_of(0)


def test_deep_recursion() -> None:
    """A stack of a thousand frames that are the same is not a thousand lines of log."""
    inside, release = threading.Event(), threading.Event()

    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        else:
            inside.set()
            assert release.wait(PATIENCE)

    thread = threading.Thread(target=recurse, args=[600])
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert thread.ident is not None
        stack = stack_of(thread.ident)
    finally:
        release.set()
        thread.join()
    assert stack.count("\n") < 50
    assert "more times" in stack
