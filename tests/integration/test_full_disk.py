"""What cannot be kept for clients: a disk that is full, a folder that is gone, and MAX_SPOOL; and that nothing else fails then."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request, send_file

import internals
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.guard import clients
from flask_prodserve.engine.spool import MEMORY_SHARE, PRESSURE, Spool
from serving import PATIENCE, ManualClock, Served, defaults, flask, in_thread, run, wait_until
from wire import RESETS, Wire, get, is_reset

resource = pytest.importorskip("resource")

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.every_way]

ROOM = 300_000
"""Bytes that fit into a file while the disk is full."""

MIB = 2**20

RECORD = 2**14
"""Bytes that the server gets at once, also over TLS."""


def make_app() -> Flask:
    app = Flask("full")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.post("/count")
    def count() -> str:
        return str(len(request.get_data()))

    @app.get("/large/<int:size>")
    def large(size: int) -> Response:
        return Response(bytes(size))

    @app.get("/stream/<int:count>")
    def stream(count: int) -> Response:
        return Response(bytes(MIB) for _ in range(count))

    return app


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond ROOM: what a full disk does to a write, and a part of it succeeds."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def spool(served: Served) -> Spool:
    return internals.spool(served.engine)


def post(length: int, *fields: str) -> bytes:
    return "\r\n".join(["POST /count HTTP/1.1", "Host: test", f"Content-Length: {length}", *fields, "", ""]).encode()


def chunks(size: int) -> bytes:
    head = b"POST /count HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"10000\r\n%b\r\n" % bytes(65536) for _ in range(size // 65536)) + b"0\r\n\r\n"


def messages(caplog: pytest.LogCaptureFixture, reason: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"{reason}: ")]


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("sent", [post(MIB) + bytes(MIB), chunks(MIB)], ids=["length", "chunked"])
def test_bodies_that_do_not_fit(caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    """A body that cannot be kept is 507, and one error line says what and where; smaller ones are served, and nothing is left over."""
    with in_thread(make_app()) as served:
        for _ in range(3):
            with Wire(served.address) as wire:
                wire.send(sent)
                response = wire.response("POST")
                assert (response.status, response.get("connection")) == (507, "close")
                assert wire.closed()
        (message,) = messages(caplog, "disk")
        assert "File too large" in message
        assert tempfile.gettempdir() in message
        assert served.engine.limit_events.counts == {"disk": 3}
        with Wire(served.address) as wire:
            wire.send(post(200_000) + bytes(200_000))
            assert wire.response("POST").body == b"200000"
        wait_until(lambda: spool(served).size == 0, "all to be given back")
        assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == [
            "flask_prodserve.limits"
        ]


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("target", ["/large/12000000", "/stream/12"])
def test_responses_that_do_not_fit(caplog: pytest.LogCaptureFixture, target: str) -> None:
    """A response that cannot be kept for a slow reader is cut; the reader can tell, others are served, and nothing is left over."""
    with in_thread(make_app(), threads=2, clock=ManualClock()) as served:
        for count in range(1, 4):
            with Wire(served.address) as slow:
                slow.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                wait_until(lambda count=count: served.engine.limit_events.counts["disk"] == count)
                wait_until(lambda: not served.table, "it to be cut")
                assert get(served.address).body == b"hello"
                received = 0
                with contextlib.suppress(*RESETS):
                    while data := slow.socket.recv(MIB):
                        received += len(data)
                assert received < 12_000_000
        assert len(messages(caplog, "disk")) == 1
        assert served.engine.limit_events.counts == {"disk": 3}
        wait_until(lambda: spool(served).size == 0, "all to be given back")
        wait_until(lambda: len(served.done) == 6)


def test_no_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no temporary file can be made at all, large bodies get 503 with Retry-After, and small ones are served."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with in_thread(make_app()) as served:
        with Wire(served.address) as wire:
            wire.send(post(MIB))
            response = wire.response("POST")
            assert response.status == 503
            assert int(response.get("retry-after") or 0) > 0
        assert len(messages(caplog, "disk")) == 1
        with Wire(served.address) as wire:
            wire.send(post(1000) + bytes(1000))
            assert wire.response("POST").body == b"1000"
        wait_until(lambda: spool(served).size == 0, "all to be given back")


APP = """
from flask import Flask, Response, request
app = Flask(__name__)

@app.post("/count")
def count():
    return str(len(request.get_data()))

@app.get("/large")
def large():
    return Response(bytes(12_000_000))
"""
WITHOUT_EPOLL = "import select\nvars(select).pop('epoll', None)\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted: {made.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_full_file_system(tmp_path: Path, small_disk: Path, way: str) -> None:
    """On a real file system that fills up, bodies get 507, and the space is there again when they have gone."""
    (tmp_path / "app.py").write_text((WITHOUT_EPOLL if way == "portable" else "") + APP)
    with run(flask("serve", "--port", "0", *defaults()), cwd=tmp_path, env={"TMPDIR": str(small_disk)}) as server:
        address = server.address
        for _ in range(2):
            wait_until(lambda: _free(small_disk) == 2 * MIB, "the space to be there")
            with Wire(address) as holder:
                holder.send(post(3 * MIB) + bytes(int(1.5 * MIB)))
                wait_until(lambda: _free(small_disk) < MIB, "the holder to be kept")
                with Wire(address) as wire:
                    wire.send(post(MIB) + bytes(MIB))
                    assert wire.response("POST").status == 507
                with Wire(address) as slow:
                    slow.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
                    received = 0
                    ends = select.poll()
                    ends.register(slow.socket, 0)  # its errors, and nothing else
                    assert ends.poll(1000 * PATIENCE), "it is not cut"
                    with contextlib.suppress(*RESETS):
                        while data := slow.socket.recv(MIB):
                            received += len(data)
                    assert received < 12_000_000
            wait_until(lambda: _free(small_disk) == 2 * MIB, "the space to be given back")
            with Wire(address) as wire:
                wire.send(post(MIB) + bytes(MIB))
                assert wire.response("POST").body == b"1048576"
        assert server.output.count("disk: ") == 1
        assert "Traceback" not in server.output
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_bsize


# MAX_SPOOL


def test_bodies_beyond_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    """At the bound the largest of several uploads that are as fast gets 503, a smaller one goes on, and what has no body is served."""
    with (
        in_thread(make_app(), clock=ManualClock(), max_spool="2MiB") as served,
        contextlib.ExitStack() as stack,
    ):
        large, small = (stack.enter_context(Wire(served.address)) for _ in range(2))
        large.send(post(3 * MIB) + bytes(2 * MIB - 10_000))
        small.send(post(100_000) + bytes(5_000))
        wait_until(lambda: spool(served).size == 2 * MIB - 5_000)
        large.send(bytes(6_000))
        response = large.response("POST")
        assert response.status == 503
        assert int(response.get("retry-after") or 0) > 0
        assert get(served.address).body == b"hello"
        small.send(bytes(95_000))
        assert small.response("POST").body == b"100000"
        assert len(messages(caplog, "MAX_SPOOL")) == 1
        wait_until(lambda: spool(served).size == 0, "all to be given back")
        with Wire(served.address) as wire:
            wire.send(post(MIB) + bytes(MIB))
            assert wire.response("POST").body == b"1048576"
        wait_until(lambda: spool(served).size == 0, "all to be given back")


def test_uploads_that_almost_end() -> None:
    """Of uploads that stop before their end, and fill MAX_SPOOL, as many get 503 as others need room for."""
    clock = ManualClock()
    size = 1_900_000
    with in_thread(make_app(), clock=clock, max_spool="8MiB") as served, contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(Wire(served.address)) for _ in range(4)]
        for wire in uploads:
            wire.send(post(size + 10_000) + bytes(size))
        wait_until(lambda: spool(served).size == 4 * size)
        served.look()
        assert served.engine.limit_events.counts == {}
        clock.advance(2)
        served.look()
        assert served.engine.limit_events.counts == {"MAX_SPOOL": 1}
        for _ in range(5):
            with Wire(served.address) as other:
                other.send(post(200_000) + bytes(200_000))
                assert other.response("POST").body == b"200000"
        statuses = []
        for wire in uploads:
            wire.socket.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                statuses.append(wire.response("POST").status)
        assert statuses == [503]


def test_bodies_in_memory() -> None:
    """All bodies together take no more than their share of memory; those beyond are on disk, and no less right."""
    with in_thread(make_app(), clock=ManualClock(), max_spool="64MiB") as served, contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(Wire(served.address)) for _ in range(10)]
        for wire in uploads:
            wire.send(post(500_000) + bytes(490_000))
        wait_until(lambda: spool(served).size == 4_900_000)
        assert 0 < spool(served).in_memory <= spool(served).most // MEMORY_SHARE
        for wire in uploads:
            wire.send(bytes(10_000))
        for wire in uploads:
            assert wire.response("POST").body == b"500000"
        wait_until(lambda: spool(served).size == spool(served).in_memory == 0, "all to be given back")


def test_a_body_that_reaches_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    """A body that goes beyond the bound while it is received gets its 503 then."""
    with in_thread(make_app(), max_spool="2MiB") as served, Wire(served.address) as wire:
        wire.send(post(10 * MIB) + bytes(3 * MIB))
        assert wire.response("POST").status == 503
        wait_until(lambda: spool(served).size == 0)
        assert served.engine.limit_events.counts["MAX_SPOOL"] == 1


class Reader(Wire):
    """A client that asks for a response and takes it when it is told to."""

    def __init__(self, served: Served, size: int) -> None:
        super().__init__(served.address)
        self.received = 0
        self.send(f"GET /large/{size} HTTP/1.1\r\nHost: test\r\n\r\n".encode())

    def take(self, count: int) -> None:
        """At least *count* bytes, or all that comes until a reset."""
        until = self.received + count
        while self.received < until:
            data = self.socket.recv(MIB)
            assert data
            self.received += len(data)


def wait_for_answer(served: Served, count: int) -> None:
    wait_until(lambda: len(served.done) == count)
    served.settle()


def test_slowest_readers_go_first(caplog: pytest.LogCaptureFixture) -> None:
    """At the bound those are reset who take their responses most slowly, no more than needed, and service threads do not wait."""
    clock = ManualClock()
    size = 12_500_000
    with (
        in_thread(make_app(), clock=clock, max_spool="48MiB", min_send_rate=0, send_timeout="1h") as served,
        Reader(served, size + 2_500_000) as slowest,
    ):
        wait_for_answer(served, 1)
        with Reader(served, size) as faster:
            wait_for_answer(served, 2)
            served.look()
            clock.advance(2)
            faster.take(4 * MIB)
            served.look()
            assert served.engine.limit_events.counts == {}
            with contextlib.ExitStack() as stack:
                others = []
                for number in range(3, 10):
                    others.append(stack.enter_context(Reader(served, size)))
                    wait_for_answer(served, number)
                    if served.engine.limit_events.counts:
                        break
                served.settle()
                assert served.engine.limit_events.counts == {"MAX_SPOOL": 1}
                assert spool(served).size < PRESSURE * spool(served).most
                assert is_reset(slowest.socket)
                for reader in [faster, *others]:
                    reader.take(size - reader.received)
    assert len(messages(caplog, "MAX_SPOOL")) == 1


def test_readers_are_not_cut_once_there_is_room() -> None:
    """Those that are about to be reset at the bound are left alone where others have made room before it is their turn."""
    size = 12_500_000
    with in_thread(make_app(), max_spool="48MiB") as served, Reader(served, size) as one, Reader(served, size) as other:
        wait_for_answer(served, 2)
        assert spool(served).size > MIB
        served.call(lambda: internals.fill_spool_for_a_moment(served.engine))
        served.look()
        assert served.engine.limit_events.counts == {}
        for reader in (one, other):
            reader.take(size - reader.received)


def test_many_slow_readers(caplog: pytest.LogCaptureFixture) -> None:
    """However many do not read, no more than the bound is kept, others are served, and all is given back in the end."""
    with in_thread(make_app(), max_spool="16MiB", threads=4) as served, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Reader(served, 12_000_000))
        most = 0

        def all_answered() -> bool:
            nonlocal most
            most = max(most, spool(served).size)
            return len(served.done) >= 20

        wait_until(all_answered)
        served.settle()
        assert most < 2 * 16 * MIB
        assert spool(served).size <= spool(served).most
        assert served.engine.limit_events.counts["MAX_SPOOL"] >= 5
        for _ in range(10):
            assert get(served.address).body == b"hello"
        with Wire(served.address) as wire:
            wire.send(post(MIB) + bytes(MIB))
            assert wire.response("POST").body == b"1048576"
        stack.close()
        wait_until(lambda: spool(served).size == 0, "all to be given back")


def test_readers_are_cut_after_bodies_have_filled_it() -> None:
    """That nothing could be done once, when it was full of bodies, does not mean that nothing is done later."""
    with in_thread(make_app(), max_spool="8MiB") as served:
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(Wire(served.address)).send(post(2 * MIB) + bytes(MIB))
            wait_until(lambda: spool(served).size > PRESSURE * spool(served).most)
            served.settle()
        wait_until(lambda: spool(served).size == 0)
        with contextlib.ExitStack() as stack:
            for number in range(1, 5):
                stack.enter_context(Reader(served, 12_000_000))
                wait_until(lambda number=number: sum(done.method == "GET" for done in served.done) == number)
            served.settle()
            assert spool(served).size <= spool(served).most


def test_long_responses_hold_no_thread(tmp_path: Path) -> None:
    """Clients that do not read files, or responses in one piece, of any size hold no thread, or not for long: others are served."""
    size = 60_000_000
    app = make_app()
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("r+b") as file:
        file.truncate(size)

    @app.get("/file")
    def send() -> Response:
        return send_file(tmp_path / "file", mimetype="text/plain")

    clock = ManualClock()
    settings: dict[str, Any] = {"threads": 2, "min_send_rate": 0, "send_timeout": "1h", "queue_timeout": "1h"}
    for target in ("/file", f"/large/{size}", f"/stream/{size // MIB}"):
        with in_thread(app, clock=clock, **settings) as served, contextlib.ExitStack() as stack:
            for _ in range(4):
                wire = stack.enter_context(Wire(served.address))
                wire.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            wait_until(lambda: sum(channel.output.size > 0 for channel in _channels(served)) >= 2)
            waiting = stack.enter_context(Wire(served.address))
            waiting.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            began = clock.now

            def is_answered() -> bool:
                if not any(is_at_work(channel) for channel in _channels(served)):
                    clock.advance(0.5)
                served.look()
                return any(done.target == "/" for done in served.done)

            wait_until(is_answered, f"an answer beside {target}")
            assert clock.now - began < 60
            assert waiting.response().body == b"hello"


def is_at_work(channel: Connection) -> bool:
    """Whether a thread runs its request, and does not wait for its client."""
    return channel.running and channel.queued_at is None and not clients.holds_thread(channel)


def _channels(served: Served) -> list[Connection]:
    return served.connections
