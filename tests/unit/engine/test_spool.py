"""How much is kept for clients: counted by bodies and outputs, to the byte, whatever becomes of them."""

from __future__ import annotations

import errno
import io
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.engine.connection import output
from flask_prodserve.engine.connection.output import OutputQueue
from flask_prodserve.engine.exchange import body
from flask_prodserve.engine.exchange.body import Body
from flask_prodserve.engine.spool import PRESSURE, RELIEF, Spool, SpoolFull, cannot_be_kept

MOST = 1_000_000


class Told:
    """A spool, and how often it asked for room."""

    def __init__(self, most: int = MOST) -> None:
        self.spool = Spool(most)
        self.count = 0
        self.spool.make_room = self.make_room

    def make_room(self) -> None:
        self.count += 1


@pytest.fixture
def told() -> Told:
    return Told()


# The count.


def test_asks_for_room_before_it_is_full(told: Told) -> None:
    """Up to PRESSURE nobody is asked for anything; beyond it somebody is, while there is room still."""
    told.spool.add(int(PRESSURE * MOST))
    assert told.count == 0
    told.spool.add(1)
    assert told.count == 1
    assert not told.spool.full


def test_full(told: Told) -> None:
    """The bound itself is not full, and a byte more is."""
    told.spool.add(MOST)
    assert not told.spool.full
    told.spool.add(1)
    assert told.spool.full
    told.spool.remove(1)
    assert not told.spool.full


def test_does_not_ask_all_the_time(told: Told) -> None:
    """Thousands of small additions under pressure are no thousands of calls."""
    told.spool.add(int(PRESSURE * MOST) + 1)
    for _ in range(1000):
        told.spool.add(1)
    assert told.count == 1


def test_asks_again(told: Told) -> None:
    """Each time the pressure comes back, somebody is asked again, also where nothing could be done the last time."""
    for times in range(1, 5):
        told.spool.add(MOST - 1)
        assert told.count == times
        told.spool.remove(MOST - 1)


def test_asks_again_when_it_is_full(told: Told) -> None:
    """Where it goes on to be full, that is another occasion."""
    told.spool.add(MOST - 1)
    assert told.count == 1
    told.spool.add(2)
    assert told.count == 2


def test_excess(told: Told) -> None:
    """What has to go is what is above RELIEF."""
    assert told.spool.excess == 0
    told.spool.add(MOST)
    assert told.spool.excess == MOST - int(RELIEF * MOST)
    told.spool.remove(told.spool.excess)
    assert told.spool.excess == 0
    assert RELIEF < PRESSURE < 1


def test_threads(told: Told) -> None:
    """Additions and removals from many threads add up."""

    def work() -> None:
        for _ in range(5000):
            told.spool.add(7)
            told.spool.remove(7)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.spool.size == 0


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "TMPDIR"), (errno.EFBIG, "TMPDIR"), (errno.EMFILE, "ulimit -n")]
)
def test_what_is_said(number: int, hint: str) -> None:
    """The message has the system's words, and what to look at."""
    error = OSError(number, "the system's words")
    assert "the system's words" in cannot_be_kept(error)
    assert hint in cannot_be_kept(error)
    assert cannot_be_kept(OSError("no number")).startswith("cannot be kept: no number")


# Bodies.


@given(
    st.lists(st.integers(min_value=1, max_value=300_000), max_size=8),
    st.sampled_from([0, 100, body.IN_MEMORY, body.IN_MEMORY + 1]),
)
def test_bodies_are_counted(sizes: list[int], expected: int) -> None:
    """What a body holds is counted while it is there, in memory and on disk alike, and comes out as it went in."""
    spool = Spool(10**9)
    held = Body(expected, spool)
    content = b""
    for number, size in enumerate(sizes):
        part = bytes([number]) * size
        content += part
        held.append(part)
        assert spool.size == held.size == len(content)
    held.finish()
    assert held.stream().read() == content
    held.close()
    held.close()
    assert spool.size == 0


def test_no_body_where_it_is_full() -> None:
    """A body is refused before anything of it is there, and in the middle."""
    spool = Spool(MOST)
    first = Body(0, spool)
    first.append(bytes(MOST))
    second = Body(0, spool)
    second.append(b"x")
    with pytest.raises(SpoolFull):
        Body(10, spool)
    with pytest.raises(SpoolFull):
        first.append(b"y")
    first.close()
    second.append(b"z")
    second.close()
    assert spool.size == 0


# Outputs.


class Client:
    """Takes as much as it is told."""

    at_a_time = 65_536

    def __init__(self) -> None:
        self.room = 0
        self.received = b""

    def send_bytes(self, data: bytes | bytearray, total: int) -> int:
        count = min(self.room, len(data))
        self.received += data[:count]
        self.room -= count
        return count

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        import os

        return self.send_bytes(os.pread(descriptor, min(count, self.room), offset), 0)


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(min_value=1, max_value=700_000)),
    st.tuples(st.just("file"), st.integers(min_value=1, max_value=200_000)),
    st.tuples(st.just("take"), st.integers(min_value=1, max_value=2_500_000)),
)


@given(st.lists(steps, max_size=14), st.booleans())
def test_outputs_are_counted(plan: list[tuple[str, int]], all_taken: bool) -> None:
    """What is kept is counted until it is taken or given up; files of the app are none of it; the client gets all in order."""
    spool, client = Spool(10**9), Client()
    kept = OutputQueue(spool)
    expected = b""
    for number, (what, size) in enumerate(plan):
        content = bytes([number + 1]) * size
        if what == "take":
            client.room = size
            kept.send(client)
        elif what == "append":
            kept.append(content)
            expected += content
        else:
            kept.append_file(io.BytesIO(content), size)
            expected += content
        assert expected.startswith(client.received)
        assert kept.size == len(expected) - len(client.received)
        assert kept.sent == len(client.received)
        assert spool.size == kept.kept
    if all_taken:
        client.room = len(expected)
        while kept.size:
            kept.send(client)
        assert client.received == expected
        assert spool.size == 0
    kept.close()
    assert spool.size == 0
    assert kept.size == 0


class FullFile(io.FileIO):
    """A file on a disk that has room for *room* bytes."""

    room = 0

    def write(self, data: Any, /) -> int:
        count = min(self.room, len(data))
        if not count:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= count
        return super().write(bytes(data[:count]))


@pytest.fixture(params=[0, 1, 100_000, 2_000_000])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files of both modules hold this many bytes."""
    real = tempfile.TemporaryFile
    files: list[Any] = []

    def temporary_file(*arguments: object, **named: object) -> FullFile:
        with real(buffering=0) as other:
            import os

            file = FullFile(os.dup(other.fileno()), "r+b")
        file.room = request.param
        files.append(file)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    yield
    assert all(file.closed for file in files), "files are left open"


class Taker:
    """A client that takes what it may, and keeps nothing."""

    at_a_time = 65_536

    def __init__(self) -> None:
        self.room = 0

    def send_bytes(self, data: bytes | bytearray, total: int) -> int:
        count = min(self.room, len(data))
        self.room -= count
        return count

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        return self.send_bytes(bytes(min(count, self.room)), 0)


def test_kept_is_bounded_for_a_steady_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes as much as comes, and never all of it, does not make its temporary file grow for ever."""
    monkeypatch.setattr(output, "SPOOL_BYTES", 2 * output.IN_MEMORY)
    kept, client, chunk = OutputQueue(Spool(10**9)), Taker(), bytes(100_000)
    for _ in range(2 * output.IN_MEMORY // len(chunk)):
        kept.append(chunk)
    backlog = kept.backlog
    most = 0
    for _ in range(200):
        kept.append(chunk)
        client.room = len(chunk)
        kept.send(client)
        most = max(most, kept.kept)
    assert kept.backlog == backlog
    # The file that is sent, of which a part may be sent already, and those behind it.
    assert most <= backlog + 2 * output.IN_MEMORY + 2 * len(chunk)
    kept.close()
    assert kept.kept == 0


@pytest.mark.usefixtures("full_disk")
def test_full_disk_of_an_output() -> None:
    """Where a part of what is to be kept finds room, and the rest does not, the count is what it was when all is given up."""
    spool = Spool(10**9)
    kept = OutputQueue(spool)

    def fill() -> None:
        for _ in range(20):
            kept.append(bytes(200_000))

    with pytest.raises(OSError, match="No space"):
        fill()
    kept.close()
    assert spool.size == 0


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("expected", [0, 10_000_000])
def test_full_disk_of_a_body(expected: int) -> None:
    """The same for a request body."""
    spool = Spool(10**9)
    held = Body(expected, spool)

    def fill() -> None:
        for _ in range(20):
            held.append(bytes(200_000))
        held.finish()

    with pytest.raises(OSError, match="No space"):
        fill()
    held.close()
    assert spool.size == 0


def test_modules_under_test() -> None:
    """What is kept in memory is less than what tests here append, or they would never touch a file."""
    assert body.IN_MEMORY < 700_000
    assert output.IN_MEMORY < 2 * 700_000
