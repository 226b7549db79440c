"""Exceptions in another thread: inside the block or at its end, and never after it."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from flask_prodserve.engine.exchange import interrupt
from flask_prodserve.engine.exchange.interrupt import Interruptible
from serving import PATIENCE

TRIES = 20_000
HITS = 200
"""Blocks that have to be hit for a test to say anything; it goes on until they are."""


class Stop(BaseException):
    """What is raised."""


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """So that threads meet at every step; and no garbage collection, where an exception would come in somebody else's callback."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    gc.disable()
    yield
    gc.enable()
    sys.setswitchinterval(before)


# What an exception is to hit loops in a function of its own: in CPython 3.13 one that comes at the end of a loop escapes the handlers of
# the function that the loop is in (python/cpython#130279).


def spin(count: int) -> int:
    total = 0
    for number in range(count):
        total += number
    return total


def spin_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        spin(10)


def test_inside_the_block() -> None:
    """The exception comes in Python code of the block, and is caught outside of it like any other."""
    inside = threading.Event()
    outcomes: list[str] = []
    block = Interruptible()

    def run() -> None:
        try:
            with block:
                inside.set()
                spin_until(lambda: False)
                outcomes.append("not raised")
        except Stop:
            outcomes.append("raised")
        spin(10_000)
        outcomes.append("went on")

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(PATIENCE)
    block.interrupt(Stop)
    thread.join()
    assert outcomes == ["raised", "went on"]


def test_before_and_after() -> None:
    """Interrupting a block that has not begun, or that is over, does nothing."""
    block = Interruptible()
    block.interrupt(Stop)
    with block:
        spin(1000)
    block.interrupt(Stop)
    spin(1000)


def test_only_once() -> None:
    """A block is interrupted once; code that catches the exception inside goes on undisturbed."""
    caught: list[str] = []
    inside, again, done = threading.Event(), threading.Event(), threading.Event()
    block = Interruptible()

    def run() -> None:
        try:
            with block:
                try:
                    inside.set()
                    spin_until(again.is_set)
                except Stop:
                    caught.append("inside")
                assert again.wait(PATIENCE)
                spin(20_000)
        except Stop:
            caught.append("outside")
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(PATIENCE)
    for _ in range(10):
        block.interrupt(Stop)
    spin_until(lambda: caught)
    for _ in range(10):
        block.interrupt(Stop)
    again.set()
    thread.join()
    assert caught == ["inside"]
    assert done.is_set()


def test_other_exceptions_pass() -> None:
    """What the block itself raises comes out of it."""
    with pytest.raises(KeyError), Interruptible():
        raise KeyError


@pytest.mark.parametrize("longest", [0, 30, 300])
def test_never_after_the_block(longest: int) -> None:
    """Over thousands of blocks that are interrupted at random moments, also their last, nothing is ever raised after one."""
    current: list[Interruptible | None] = [None]
    finished = threading.Event()
    raised, late = [0], [0]
    choices = random.Random(longest)
    until = time.monotonic() + PATIENCE

    def run() -> None:
        tries = 0
        try:
            while (tries < TRIES or raised[0] < HITS) and time.monotonic() < until:
                tries += 1
                try:
                    with Interruptible() as block:
                        current[0] = block
                        spin(choices.randrange(longest + 1))
                except Stop:
                    raised[0] += 1
                try:
                    spin(5)
                except Stop:
                    late[0] += 1
        except Stop:
            late[0] += 1
        finally:
            finished.set()

    thread = threading.Thread(target=run)
    thread.start()
    own = random.Random(longest + 1)
    while not finished.is_set():
        block = current[0]
        if block is not None:
            spin(own.randrange(longest + 1))
            block.interrupt(Stop)
        time.sleep(0)
    thread.join()
    assert late == [0]
    assert raised[0] >= HITS


def test_end_in_the_moment_of_the_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that ends while its exception is about to be set waits for that, and the exception comes inside it."""
    block = Interruptible()
    inside, about_to_set, waits_or_over = threading.Event(), threading.Event(), threading.Event()
    outcomes: list[str] = []
    lock, set_exception = block._lock, interrupt._set

    class Watched:
        """The block's lock, which tells when the block wants it."""

        def __enter__(self) -> None:
            if threading.current_thread() is thread:
                waits_or_over.set()
            lock.acquire()

        def __exit__(self, *exception: object) -> None:
            lock.release()

    def set_late(ident: int, exception: type[BaseException] | None) -> None:
        if exception is not None:
            about_to_set.set()
            assert waits_or_over.wait(PATIENCE)
        set_exception(ident, exception)

    def run() -> None:
        try:
            try:
                with block:
                    inside.set()
                    assert about_to_set.wait(PATIENCE)
            except Stop:
                outcomes.append("inside")
            waits_or_over.set()
            interrupting.join()
            spin(10_000)
        except Stop:
            outcomes.append("late")

    block._lock = Watched()  # type: ignore[assignment]  # as much of a lock as a block needs
    monkeypatch.setattr(interrupt, "_set", set_late)
    thread = threading.Thread(target=run)
    interrupting = threading.Thread(target=block.interrupt, args=[Stop])
    thread.start()
    assert inside.wait(PATIENCE)
    interrupting.start()
    thread.join()
    assert outcomes == ["inside"]


def test_several_threads() -> None:
    """Each thread gets the exception of its own block only."""
    threads = 4
    hits = [0] * threads
    wrong: list[str] = []
    blocks: list[Interruptible | None] = [None] * threads
    kinds = [type(f"Stop{number}", (Stop,), {}) for number in range(threads)]
    finished = threading.Event()
    running = [threads]
    lock = threading.Lock()
    until = time.monotonic() + PATIENCE

    def run(number: int) -> None:
        while sum(hits) < HITS and time.monotonic() < until:
            try:
                with Interruptible() as block:
                    blocks[number] = block
                    spin(50)
            except kinds[number]:
                hits[number] += 1
            except Stop as error:
                wrong.append(f"{error!r} in {number}")
        with lock:
            running[0] -= 1
            if not running[0]:
                finished.set()

    workers = [threading.Thread(target=run, args=[number]) for number in range(threads)]
    for worker in workers:
        worker.start()
    while not finished.is_set():
        for number, block in enumerate(blocks):
            if block is not None:
                block.interrupt(kinds[number])
        time.sleep(0)
    for worker in workers:
        worker.join()
    assert wrong == []
    assert sum(hits) >= HITS
