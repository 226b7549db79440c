"""What goes over the wire for requests that are fine: bodies, keep-alive, pipelining, streams, responses without a body."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import random
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response, request, send_file, stream_with_context

from serving import PATIENCE, Served, in_thread
from wire import Wire, get

pytestmark = pytest.mark.usefixtures("way")

LIMIT = 200_000


def make_app() -> Flask:
    app = Flask("served")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.route("/echo", methods=["POST", "PUT"])
    def echo() -> bytes:
        return request.get_data()

    @app.post("/digest/<int:number>")
    def digest(number: int) -> dict[str, object]:
        return {"number": number, "sha256": hashlib.sha256(request.get_data()).hexdigest()}

    @app.get("/stream/<int:count>")
    def stream(count: int) -> Response:
        @stream_with_context
        def chunks() -> Iterator[bytes]:
            for number in range(count):
                yield f"{number}\n".encode()

        return Response(chunks(), mimetype="text/plain")

    @app.get("/status/<int:status>")
    def status(status: int) -> Response:
        return Response("" if status != 200 else "ok", status)

    @app.get("/file/<int:size>")
    def file(size: int) -> Response:
        path = app.config["FOLDER"] / str(size)
        path.write_bytes(random.Random(size).randbytes(size))
        return send_file(path, mimetype="application/octet-stream")

    @app.get("/memory/<int:size>")
    def memory(size: int) -> bytes:
        return random.Random(size).randbytes(size)

    @app.get("/buffer/<int:size>")
    def buffer(size: int) -> Response:
        return send_file(io.BytesIO(random.Random(size).randbytes(size)), mimetype="application/octet-stream")

    @app.get("/parts/<int:size>")
    def parts(size: int) -> Response:
        whole = io.BytesIO(random.Random(size).randbytes(size))
        sizes = itertools.cycle([1, 5000, 16384, 16385, 65536, 65537, 300_000, 2_000_000])
        return Response(iter(lambda: whole.read(next(sizes)), b""), mimetype="application/octet-stream")

    @app.get("/fields")
    def fields() -> Response:
        response = Response("ok")
        response.headers["X-mIxEd-CaSe"] = "kept"
        response.headers["Connection"] = "keep-alive"
        return response

    return app


@pytest.fixture(scope="module")
def served(way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    app = make_app()
    app.config["FOLDER"] = tmp_path_factory.mktemp("files")
    # Nobody asks for more than it can, however slow the machine.
    with in_thread(app, max_body_size=LIMIT, queue_timeout=10 * PATIENCE) as served:
        yield served


@pytest.mark.every_way
def test_many_requests_from_many_threads(served: Served) -> None:
    """500 requests from 20 threads over keep-alive connections get the answers to their own bodies."""
    failures: list[object] = []
    numbers = iter(range(500))
    lock = threading.Lock()

    def client() -> None:
        with Wire(served.address) as wire:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                body = random.Random(number).randbytes(number * 37)
                wire.send(
                    f"POST /digest/{number} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                response = wire.response("POST")
                expected = {"number": number, "sha256": hashlib.sha256(body).hexdigest()}
                if response.status != 200 or json.loads(response.body) != expected:
                    failures.append((number, response))

    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert next(numbers, None) is None


@pytest.mark.every_way
def test_keep_alive(served: Served) -> None:
    """One connection serves several requests, whatever kind of response they get."""
    with Wire(served.address) as wire:
        for target, method, status, body in [
            ("/", "GET", 200, b"hello"),
            ("/", "HEAD", 200, b""),
            ("/status/204", "GET", 204, b""),
            ("/status/304", "GET", 304, b""),
            ("/stream/3", "GET", 200, b"0\n1\n2\n"),
            ("/stream/3", "HEAD", 200, b""),
            ("/missing", "HEAD", 404, b""),
            ("/file/100", "HEAD", 200, b""),
            ("/", "GET", 200, b"hello"),
        ]:
            wire.send(f"{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            response = wire.response(method)
            assert (response.status, response.body) == (status, body), (method, target)
            assert response.get("connection") is None


@pytest.mark.every_way
@pytest.mark.parametrize("field", ["close", "Close", "x, close", "x,close , y"])
def test_connection_close(served: Served, field: str) -> None:
    """``close`` anywhere in the Connection field closes after the response, which says so."""
    with Wire(served.address) as wire:
        wire.send(f"GET / HTTP/1.1\r\nHost: test\r\nConnection: {field}\r\n\r\n".encode())
        response = wire.response()
        assert response.body == b"hello"
        assert response.get("connection") == "close"
        assert wire.closed()


@pytest.mark.every_way
def test_http_1_0(served: Served) -> None:
    """An HTTP/1.0 client is closed after the response, unless it asks for keep-alive and the length is known."""
    with Wire(served.address) as wire:
        wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = wire.response()
        assert response.body == b"hello"
        assert response.get("connection") == "keep-alive"
        wire.send(b"GET /stream/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = wire.response()
        assert response.body == b"0\n1\n2\n"
        assert response.get("transfer-encoding") is None
        assert wire.closed()


@pytest.mark.every_way
def test_pipelining_order(served: Served) -> None:
    """Pipelined requests are answered in order, with nothing lost between them."""
    with Wire(served.address) as wire:
        bodies = [random.Random(number).randbytes(number) for number in range(40)]
        wire.send(
            b"".join(
                f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                for body in bodies
            )
            + b"GET /stream/5 HTTP/1.1\r\nHost: test\r\n\r\nGET /status/204 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        )
        for body in bodies:
            assert wire.response("POST").body == body
        assert wire.response().body == b"0\n1\n2\n3\n4\n"
        assert wire.response().status == 204
        assert wire.closed()


@pytest.mark.every_way
@pytest.mark.parametrize("size", [1, 1000, 65536, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_upload_up_to_the_limit(served: Served, size: int, chunked: bool) -> None:
    """A body of up to MAX_BODY_SIZE bytes reaches the app byte by byte as it was sent."""
    body = random.Random(size).randbytes(size)
    with Wire(served.address) as wire:
        wire.send(_post(body, chunked))
        response = wire.response("POST")
        assert response.status == 200
        assert response.body == body
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.response().body == b"hello"


@pytest.mark.every_way
@pytest.mark.parametrize("chunked", [False, True])
def test_upload_one_byte_beyond_the_limit(served: Served, chunked: bool) -> None:
    """One byte more than MAX_BODY_SIZE is 413, although the client is still sending, and the connection closes."""
    with Wire(served.address) as wire:
        wire.send(_post(bytes(LIMIT + 1), chunked))
        response = wire.response("POST")
        assert response.status == 413
        assert response.get("connection") == "close"
        assert wire.closed()


@pytest.mark.parametrize(
    ("sent", "status", "line"),
    [
        (b"Content-Length: 11\r\n\r\n", 413, "MAX_BODY_SIZE: rejected request bodies over 10 with 413"),
        (
            b"Transfer-Encoding: chunked\r\n\r\nB\r\n",
            413,
            "MAX_BODY_SIZE: rejected request bodies over 10 with 413",
        ),
        (b"A: a\r\n" * 5 + b"\r\n", 431, "MAX_HEADER_COUNT: rejected requests with more than 5 header fields with 431"),
        (b"A: " + b"a" * 1024, 431, "MAX_HEADER_SIZE: rejected request heads over 1KiB with 431"),
    ],
    ids=["body", "chunks", "fields", "head"],
)
def test_what_is_too_large_names_its_setting(
    sent: bytes, status: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which setting has refused a request, and its value: once, however many they are."""
    limits = {"max_body_size": 10, "max_request_line": 90, "max_header_size": "1KiB", "max_header_count": 5}
    with in_thread(make_app(), **limits) as served:
        for _ in range(3):
            with Wire(served.address) as wire:
                wire.send(b"POST /echo HTTP/1.1\r\nHost: test\r\n" + sent)
                assert wire.response("POST").status == status
        with Wire(served.address) as wire:
            wire.send(b"GET /" + b"a" * 100)
            assert wire.response().status == 414
        assert served.engine.limit_events.counts == {line.partition(":")[0]: 3, "MAX_REQUEST_LINE": 1}
    assert [record.getMessage() for record in caplog.records if record.name == "flask_prodserve.limits"] == [
        line,
        "MAX_REQUEST_LINE: rejected request lines over 90 bytes with 414",
    ]


@pytest.mark.every_way
def test_upload_byte_by_byte(served: Served) -> None:
    """How the bytes of a request are cut into packets makes no difference."""
    request = _post(b"some body", chunked=True)
    with Wire(served.address) as wire:
        for byte in request:
            wire.send(bytes([byte]))
        assert wire.response("POST").body == b"some body"


@pytest.mark.every_way
def test_expect_continue(served: Served) -> None:
    """100 is sent to a client that waits for it, and never for a body that will be refused or that is not there."""
    with Wire(served.address) as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"bodyGET / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\r\n")
        assert wire.response("POST").body == b"body"
        assert wire.response().body == b"hello"
        wire.send(
            f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {LIMIT + 1}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert wire.socket.recv(12) == b"HTTP/1.1 413"


@pytest.mark.every_way
def test_half_closed_client(served: Served) -> None:
    """A client that shuts down its sending side after the request still gets its response."""
    with Wire(served.address) as wire:
        wire.send(b"GET /stream/10000 HTTP/1.1\r\nHost: test\r\n\r\n")
        wire.shut_down_sending()
        assert wire.response().body == b"".join(b"%d\n" % number for number in range(10000))


@pytest.mark.every_way
@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_files(served: Served, size: int) -> None:
    """send_file arrives whole, also in ranges and with HEAD."""
    content = random.Random(size).randbytes(size)
    response = get(served.address, f"/file/{size}")
    assert response.body == content
    assert response.get("content-length") == str(size)
    if size > 1:
        part = get(served.address, f"/file/{size}", "Range: bytes=1-100")
        assert (part.status, part.body) == (206, content[1:101])
    head = get(served.address, f"/file/{size}", method="HEAD")
    assert (head.body, head.get("content-length")) == (b"", str(size))


def test_files_look_streamed(tmp_path: Path) -> None:
    """An extension that works on streams, as those that compress do, gets a file in small pieces and never as a whole."""
    content = random.Random(1).randbytes(3_000_000)
    (tmp_path / "file").write_bytes(content)
    app = Flask("files")
    sizes: list[int] = []

    @app.get("/")
    def file() -> Response:
        return send_file(tmp_path / "file", mimetype="application/octet-stream")

    @app.after_request
    def rework(response: Response) -> Response:
        assert response.is_streamed
        if "X-Rework" in request.headers:
            pieces = response.iter_encoded()
            response.call_on_close(response.response.close)
            response.direct_passthrough = False
            response.response = (sizes.append(len(piece)) or piece[::-1] for piece in pieces)
        return response

    with in_thread(app) as served:
        whole = get(served.address)
        assert whole.body == content
        assert get(served.address, "/", "Range: bytes=1-100").body == content[1:101]
        assert get(served.address, "/", f"If-None-Match: {whole.get('etag')}").status == 304
        reworked = get(served.address, "/", "X-Rework: 1").body
    assert len(reworked) == len(content)
    assert reworked != content
    assert max(sizes) <= 1 << 16


class Remote(io.BytesIO):
    """A file that asks somebody for its bytes, who does not answer before *answers* is set, but for the first time."""

    answers = threading.Event()
    asked = threading.Event()
    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > 1:
            self.asked.set()
            assert self.answers.wait(PATIENCE)
        return super().read(size)


@pytest.mark.every_way
@pytest.mark.parametrize("fields", [[], ["Range: bytes=1000-2999999"]], ids=["whole", "range"])
def test_a_file_that_takes_its_time(fields: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a file only to the app is read by the thread that has its request, and holds up nobody else."""
    monkeypatch.setattr(Remote, "answers", threading.Event())
    monkeypatch.setattr(Remote, "asked", threading.Event())
    content = random.Random(1).randbytes(3_000_000)
    files: list[Remote] = []
    app = Flask("remote")

    @app.get("/")
    def index() -> str:
        return "hello"

    @app.get("/remote")
    def remote() -> Response:
        files.append(Remote(content))
        return send_file(files[-1], mimetype="application/octet-stream", conditional=True)

    with in_thread(app, threads=2) as served, Wire(served.address) as wire:
        wire.send("\r\n".join(["GET /remote HTTP/1.1", "Host: test", *fields, "", ""]).encode())
        assert Remote.asked.wait(PATIENCE)
        try:
            for _ in range(5):
                assert get(served.address).body == b"hello"
        finally:
            Remote.answers.set()
        assert wire.response().body == (content[1000:] if fields else content)
        served.wait_until(lambda: files[0].closed)


@pytest.mark.every_way
def test_a_file_that_is_made_of_another(tmp_path: Path) -> None:
    """A file that unpacks another one arrives unpacked, in ranges as well, and is closed."""
    content = random.Random(1).randbytes(100_000) + bytes(3_000_000)
    (tmp_path / "log.gz").write_bytes(gzip.compress(content, 1))
    files: list[gzip.GzipFile] = []
    app = Flask("unpacking")

    @app.get("/log")
    def log() -> Response:
        files.append(gzip.open(tmp_path / "log.gz"))  # noqa: SIM115  # whoever serves it closes it
        response = send_file(files[-1], mimetype="application/octet-stream")
        return response.make_conditional(request, accept_ranges=True, complete_length=len(content))

    with in_thread(app) as served:
        assert get(served.address, "/log").body == content
        part = get(served.address, "/log", "Range: bytes=90000-2000000")
        assert (part.status, part.body) == (206, content[90_000:2_000_001])
        assert get(served.address, "/log", method="HEAD").body == b""
        served.wait_until(lambda: len(served.done) == 3)
    assert [file.closed for file in files] == [True] * 3


@pytest.mark.every_way
@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts segments, and has MSG_MORE")
def test_head_and_file_in_one_segment(served: Served) -> None:
    """A head does not go by itself, and wake the client, where its body comes at once."""
    with Wire(served.address) as wire:
        received = []
        for _ in range(3):
            wire.send(b"GET /file/10000 HTTP/1.1\r\nHost: test\r\n\r\n")
            assert len(wire.response().body) == 10_000
            received.append(segments_received(wire.socket))
        assert received[2] - received[1] == received[1] - received[0] == 1


def segments_received(sock: socket.socket) -> int:
    """How many segments with data have come (tcp_info's tcpi_data_segs_in, in linux/tcp.h)."""
    (count,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 156), 152)
    return int(count)


@pytest.mark.every_way
@pytest.mark.parametrize("kind", ["file", "memory", "buffer", "parts"])
def test_large_response_to_a_slow_reader(served: Served, kind: str) -> None:
    """A response much larger than the socket's buffers arrives whole at a client that begins to read late, whatever it is made of."""
    size = 20_000_000
    with Wire(served.address) as slow:
        slow.send(f"GET /{kind}/{size} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        for _ in range(20):  # meanwhile others are served
            assert get(served.address).body == b"hello"
        assert (
            hashlib.sha256(slow.response().body).digest()
            == hashlib.sha256(random.Random(size).randbytes(size)).digest()
        )


def test_fields_are_kept(served: Served) -> None:
    """The app's spelling of response fields is kept; no Server field gives the server away; Connection is the server's business."""
    response = get(served.address, "/fields")
    assert ("X-mIxEd-CaSe", "kept") in response.fields
    assert response.get("server") is None
    assert response.get("connection") is None
    assert response.get("date") is not None


def test_every_method(served: Served) -> None:
    """Methods reach the app; it is the app that says which it allows."""
    for method, status in [("OPTIONS", 200), ("DELETE", 405), ("PATCH", 405), ("PURGE", 405)]:
        assert get(served.address, method=method).status == status


@pytest.mark.every_way
def test_ordinary_clients_come_and_go(served: Served) -> None:
    """Clients that leave in the middle of a head, a body or a response do not disturb others."""
    for prefix in itertools.chain(
        [b"GET / HTT", b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc"] * 20
    ):
        with Wire(served.address) as wire:
            wire.send(prefix)
    for _ in range(10):
        with Wire(served.address) as wire:
            wire.send(b"GET /file/3000000 HTTP/1.1\r\nHost: test\r\n\r\n")
            wire.socket.recv(1000)
    assert get(served.address).body == b"hello"


def _post(body: bytes, chunked: bool) -> bytes:
    if not chunked:
        return b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    parts = [body[start : start + 7000] for start in range(0, len(body), 7000)]
    chunks = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
