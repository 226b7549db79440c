"""HTTPS as clients see it that are not ours: openssl's own, and Python's."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request, send_file

import internals
from certificates import RSA, Pair, make, openssl
from flask_prodserve.engine.connection.connection import Connection
from flask_prodserve.engine.connection.lingering import LINGER_SECONDS
from flask_prodserve.engine.connection.tls_transport import RECORD_BYTES, TLSTransport
from flask_prodserve.engine.connection.transport import TCPTransport
from flask_prodserve.engine.exchange.request import RECEIVE_BODY_BYTES
from flask_prodserve.net.tls import Certificates
from flask_prodserve.settings.groups.network import TLS
from serving import PATIENCE, ManualClock, Served, in_thread, wait_until
from wire import Wire, get

# Servers and clients speak TLS here where a test says so.
pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.own_tls]

HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Pair:
    return make(folder, "authority")


@pytest.fixture(scope="module")
def client(folder: Path, authority: Pair) -> Pair:
    return make(folder, "client", subject="/C=DE/O=Größe, Inc./OU=a/CN=#1 <me>", by=authority)


def make_app() -> Flask:
    app = Flask("tls")

    @app.get("/")
    def index() -> Any:
        return jsonify({name: value for name, value in request.environ.items() if name.startswith(("SSL_", "HTTP_"))})

    @app.post("/length")
    def length() -> str:
        return str(len(request.get_data()))

    return app


def connect(served: Served, cafile: str | None = None, *, name: str = "localhost", **options: Any) -> ssl.SSLSocket:
    """A connection whose handshake is over. *options* are attributes of its context, and ``certificate``, a Pair."""
    context = ssl.create_default_context(cafile=cafile)
    if cafile is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate: Pair | None = options.pop("certificate", None)
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    for option, value in options.items():
        setattr(context, option, value)
    assert not isinstance(served.address, str)
    return context.wrap_socket(socket.create_connection(served.address, PATIENCE), server_hostname=name)


def ask(connection: ssl.SSLSocket, data: bytes = HEAD) -> dict[str, str]:
    """What the app is told."""
    connection.sendall(data)
    received = b""
    while not received.endswith(b"}\n"):
        part = connection.recv(65536)
        assert part, received
        received += part
    answer: dict[str, str] = json.loads(received.partition(b"\r\n\r\n")[2])
    return answer


def s_client(served: Served, *arguments: str, given: bytes = b"") -> str:
    """What openssl's client has seen."""
    assert not isinstance(served.address, str)
    host, port = served.address
    return openssl("s_client", "-connect", f"{host}:{port}", *arguments, given=given).stdout.decode(errors="replace")


# What is spoken.


def test_versions_and_suites(localhost: Pair) -> None:
    """TLS 1.2 with forward secrecy and authenticated encryption, and 1.3, are spoken, and nothing older or weaker; ALPN is http/1.1."""
    with in_thread(make_app(), **localhost.settings) as served:
        weak = ("-cipher", "ALL:@SECLEVEL=0")
        assert "TLSv1.3, Cipher is TLS_" in s_client(served, "-alpn", "h2,http/1.1")
        assert "ALPN protocol: http/1.1" in s_client(served, "-alpn", "h2,http/1.1")
        assert re.search(r"TLSv1.2, Cipher is ECDHE-ECDSA-(AES|CHACHA)", s_client(served, "-tls1_2", *weak))
        for refused in (
            ("-tls1", *weak),
            ("-tls1_1", *weak),
            ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"),
            ("-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"),
        ):
            assert "Cipher is (NONE)" in s_client(served, *refused), refused


def test_suites_of_an_rsa_key(folder: Path) -> None:
    """An RSA key signs and never decrypts, which would give everything away to who gets it later; nothing but authenticated encryption."""
    pair = make(folder, "rsa", names="DNS:localhost", key=RSA)
    with in_thread(make_app(), **pair.settings) as served:
        assert "TLSv1.3, Cipher is TLS_" in s_client(served)
        for suite in ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"):
            assert f"TLSv1.2, Cipher is {suite}" in s_client(served, "-tls1_2", "-cipher", suite)
        for suite in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "AES128-SHA", "ECDHE-RSA-AES128-SHA256", "CAMELLIA"):
            assert "Cipher is (NONE)" in s_client(served, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0"), suite


def test_minimum_version(localhost: Pair) -> None:
    """With TLS_MIN_VERSION 1.3 nothing else is spoken."""
    with in_thread(make_app(), tls_min_version="1.3", **localhost.settings) as served:
        assert "Cipher is (NONE)" in s_client(served, "-tls1_2")
        assert "TLSv1.3, Cipher is TLS_" in s_client(served)


def test_choice_of_a_cipher(localhost: Pair) -> None:
    """Of the suites that a client offers the server takes the one that comes first in TLS_CIPHERS, whatever the client prefers."""
    suites = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"]
    for ours in (suites, suites[::-1]):
        with in_thread(make_app(), tls_ciphers=":".join(ours), **localhost.settings) as served:
            assert f"Cipher is {ours[0]}" in s_client(served, "-tls1_2", "-cipher", ":".join(ours[::-1]))


def test_ciphers(localhost: Pair) -> None:
    """TLS_CIPHERS says which suites TLS 1.2 has."""
    with in_thread(make_app(), tls_ciphers="ECDHE+CHACHA20", **localhost.settings) as served:
        assert "Cipher is (NONE)" in s_client(served, "-tls1_2", "-cipher", "ECDHE+AESGCM")
        assert "CHACHA20-POLY1305" in s_client(served, "-tls1_2")


@pytest.mark.every_way
def test_renegotiation_and_compression(localhost: Pair) -> None:
    """A client cannot begin another handshake on its connection, and nothing is compressed."""
    with in_thread(make_app(), **localhost.settings) as served:
        seen = s_client(served, "-tls1_2", given=b"R\n")
        assert "Compression: NONE" in seen
        assert "RENEGOTIATING" in seen
        assert "no renegotiation" in seen


@pytest.mark.every_way
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_resumption(localhost: Pair, folder: Path, version: str) -> None:
    """A client that comes back resumes its session."""
    ask_and_leave = HEAD.replace(b"Host: test", b"Host: test\r\nConnection: close")
    session = str(folder / f"session{version}")
    with in_thread(make_app(), **localhost.settings) as served:
        options = (version, "-ign_eof", "-quiet", "-no_ign_eof", "-ign_eof")
        assert "SSL_PROTOCOL" in s_client(served, *options, "-sess_out", session, given=ask_and_leave)
        assert "Reused, TLSv1" in s_client(served, version, "-sess_in", session)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_name_after_resumption(localhost: Pair, version: str) -> None:
    """SSL_TLS_SNI is never the name of an earlier connection: after a session of TLS 1.2 is resumed it is left out."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    session, names = None, []
    with in_thread(make_app(), **localhost.settings) as served:
        assert not isinstance(served.address, str)
        for name in ("first.example", "second.example"):
            with context.wrap_socket(
                socket.create_connection(served.address, PATIENCE), server_hostname=name, session=session
            ) as connection:
                names.append(ask(connection).get("SSL_TLS_SNI"))
                assert connection.session_reused == (session is not None)
                session = connection.session
    # In TLS 1.3 the name belongs to the handshake, and not to the session.
    assert names == ["first.example", None if version == "TLSv1_2" else "second.example"]


# Which certificate.


def test_choice_by_name(folder: Path, localhost: Pair) -> None:
    """Clients get the certificate for the name they ask for, with a wildcard for one label; the first for any other, or none."""
    shop = make(folder, "shop", subject="/CN=unused.example", names="DNS:shop.example,DNS:*.shop.example")
    other = make(folder, "other", names="DNS:Other.Example", days=-1)
    old = make(folder, "old.example")
    pairs = (localhost, shop, other, old)
    settings = {"tls_cert": [pair.cert for pair in pairs], "tls_key": [pair.key for pair in pairs]}
    expected = {
        "localhost": localhost,
        "shop.example": shop,
        "SHOP.example": shop,
        "www.shop.example": shop,
        "a.www.shop.example": localhost,
        "unused.example": localhost,
        "other.example": other,
        "old.example": old,
        "nobody.example": localhost,
    }
    with in_thread(make_app(), **settings) as served:
        for name, pair in expected.items():
            with connect(served, name=name) as connection:
                assert connection.getpeercert(binary_form=True) == _encoded(pair), name
                assert ask(connection)["SSL_TLS_SNI"] == name.lower()
        with connect(served, name=None) as connection:  # type: ignore[arg-type]  # asks for none
            assert connection.getpeercert(binary_form=True) == _encoded(localhost)
            assert "SSL_TLS_SNI" not in ask(connection)
        assert "TLSv1.2, Cipher is ECDHE" in s_client(served, "-tls1_2", "-servername", "shop.example")


def _encoded(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(pair.cert).read_text())


# Client certificates.


@pytest.mark.every_way
def test_required_client_certificate(localhost: Pair, authority: Pair, client: Pair, folder: Path) -> None:
    """With TLS_CLIENT_CA nobody is served without a certificate of that authority, and the app knows whose it is."""
    stranger = make(folder, "stranger", by=make(folder, "strangers"))
    with in_thread(make_app(), tls_client_ca=authority.cert, **localhost.settings) as served:
        for certificate in (None, stranger):
            with connect(served, certificate=certificate) as connection, pytest.raises((ssl.SSLError, ConnectionError)):
                ask(connection)
        assert not served.done
        with connect(served, certificate=client) as connection:
            told = ask(connection)
        assert told["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert told["SSL_CLIENT_S_DN"] == r"CN=\#1 \<me\>,OU=a,O=Gr\C3\B6\C3\9Fe\, Inc.,C=DE"
        assert told["SSL_CLIENT_FINGERPRINT"] == hashlib.sha256(_encoded(client)).hexdigest()
        serial = openssl("x509", "-in", client.cert, "-noout", "-serial").stdout.decode()
        assert serial.strip() == f"serial={told['SSL_CLIENT_M_SERIAL']}"
        assert served.engine.limit_events.counts["TLS"] == 2


def test_client_certificate_that_python_cannot_read(
    localhost: Pair, authority: Pair, client: Pair, folder: Path
) -> None:
    """Who has a certificate of the authority with a name that is no text is served, and known by its fingerprint only."""
    (folder / "odd.ext").write_text(
        "subjectAltName=DER:30:04:82:02:FF:FE\n"
    )  # RFC 5280, section 4.2.1.6: a dNSName, of two bytes
    odd = Pair(str(folder / "odd.pem"), client.key)
    signed = openssl(
        *("x509", "-req", "-in", f"{client.cert}.request", "-CA", authority.cert, "-CAkey", authority.key),
        *("-CAcreateserial", "-days", "2", "-extfile", str(folder / "odd.ext"), "-out", odd.cert),
    )
    assert signed.returncode == 0, signed.stdout
    settings = {"tls_client_ca": authority.cert, **localhost.settings}
    with in_thread(make_app(), **settings) as served, connect(served, certificate=odd) as connection:
        told = ask(connection)
    assert told["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert told["SSL_CLIENT_FINGERPRINT"] == hashlib.sha256(_encoded(odd)).hexdigest()
    assert told.keys().isdisjoint({"SSL_CLIENT_S_DN", "SSL_CLIENT_M_SERIAL"})


def test_optional_client_certificate(localhost: Pair, authority: Pair, client: Pair, folder: Path) -> None:
    """With 'optional' the app learns whether there was one; one of another authority is refused all the same."""
    stranger = make(folder, "stranger", by=make(folder, "strangers"))
    settings = {"tls_client_ca": authority.cert, "tls_client_cert": "optional", **localhost.settings}
    with in_thread(make_app(), **settings) as served:
        with connect(served) as connection:
            assert ask(connection)["SSL_CLIENT_VERIFY"] == "NONE"
        with connect(served, certificate=client) as connection:
            assert ask(connection)["SSL_CLIENT_VERIFY"] == "SUCCESS"
        with connect(served, certificate=stranger) as connection, pytest.raises((ssl.SSLError, ConnectionError)):
            ask(connection)


def test_no_client_certificate(localhost: Pair, authority: Pair, client: Pair) -> None:
    """With 'none' nobody is asked, although there is an authority."""
    settings = {"tls_client_ca": authority.cert, "tls_client_cert": "none", **localhost.settings}
    with in_thread(make_app(), **settings) as served:
        for certificate in (None, client):
            with connect(served, certificate=certificate) as connection:
                assert ask(connection)["SSL_CLIENT_VERIFY"] == "NONE"


def test_client_certificates_are_valid_for_every_name(
    localhost: Pair, authority: Pair, client: Pair, folder: Path
) -> None:
    """The authority of clients is known whichever of several certificates the server shows."""
    shop = make(folder, "shop", names="DNS:shop.example")
    settings = {"tls_cert": [localhost.cert, shop.cert], "tls_key": [localhost.key, shop.key]}
    with in_thread(make_app(), tls_client_ca=authority.cert, **settings) as served:
        for name, pair in (("localhost", localhost), ("shop.example", shop)):
            with connect(served, name=name, certificate=client) as connection:
                assert ask(connection)["SSL_CLIENT_VERIFY"] == "SUCCESS"
                assert connection.getpeercert(binary_form=True) == _encoded(pair)


def test_every_name_asks_for_certificates(folder: Path, localhost: Pair, authority: Pair) -> None:
    """No name gets a client past the certificate that it is to have."""
    shop = make(folder, "shop", names="DNS:shop.example")
    settings = {"tls_cert": [localhost.cert, shop.cert], "tls_key": [localhost.key, shop.key]}
    with in_thread(make_app(), tls_client_ca=authority.cert, **settings) as served:
        for name in ("localhost", "shop.example", "nobody.example"):
            with connect(served, name=name) as connection, pytest.raises((ssl.SSLError, ConnectionError)):
                ask(connection)


def test_what_clients_say_of_themselves(localhost: Pair) -> None:
    """No header field passes for what the server says of a connection, whatever its spelling; over plain HTTP there is nothing of it."""
    forged = b"SSL_CLIENT_VERIFY: SUCCESS\r\nSSL-CLIENT-VERIFY: SUCCESS\r\nSSL-Client-S-DN: CN=admin\r\nHost: test"
    data = HEAD.replace(b"Host: test", forged)
    with in_thread(make_app(), **localhost.settings) as served, connect(served) as connection:
        told = ask(connection, data)
        assert {name: value for name, value in told.items() if name.startswith("SSL_")} == {
            "SSL_PROTOCOL": "TLSv1.3",
            "SSL_CIPHER": connection.cipher()[0],  # type: ignore[index]  # the handshake is over
            "SSL_CLIENT_VERIFY": "NONE",
            "SSL_TLS_SNI": "localhost",
        }
        assert told["HTTP_SSL_CLIENT_VERIFY"] == "SUCCESS"
    with in_thread(make_app()) as served:
        told = json.loads(get(served.address, "/", "SSL-Client-Verify: SUCCESS").body)
        assert not [name for name in told if name.startswith("SSL_")]


# What is no TLS.


@pytest.mark.every_way
@pytest.mark.parametrize("method", ["GET", "DELETE", "CONNECT"])
def test_plain_http(localhost: Pair, method: str) -> None:
    """A plain HTTP request is answered with 400 in words, once its first byte is there, and nothing of it reaches the app."""
    with in_thread(make_app(), **localhost.settings) as served:
        with Wire(served.address) as wire:
            wire.send(f"{method} / HTTP/1.1\r\nHost: test\r\n\r\n".encode() * 3)
            response = wire.response()
            assert response.status == 400
            assert b"This port speaks https" in response.body
            assert response.get("connection") == "close"
            assert wire.closed()
        with Wire(served.address) as wire:
            wire.send(method[:1].encode())
            assert wire.response().status == 400
        assert served.engine.limit_events.counts == {"plain HTTP": 2}
        wait_until(lambda: [done.status for done in served.done] == [400, 400])
        wait_until(lambda: not served.table)


@pytest.mark.every_way
def test_garbage(localhost: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """What is neither is closed, and the log has one line of it, however often it comes."""
    with in_thread(make_app(), **localhost.settings) as served:
        for garbage in (bytes(1000), b"\x16\x03\x01\x00\x05hello", b"\x80\x80\x01\x03\x01" + bytes(200), b"\xff" * 100):
            with Wire(served.address) as wire, contextlib.suppress(OSError):  # the server may have closed at any point
                wire.send(garbage)
                wire.shut_down_sending()
                while data := wire.socket.recv(1000):
                    assert b"HTTP" not in data
        wait_until(lambda: not served.table)
        assert served.engine.limit_events.counts["TLS"] >= 3
    assert len([record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]) == 0
    assert not served.done


# Handshakes that take their time.


@pytest.mark.every_way
@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)])
def test_handshake_that_does_not_end(localhost: Pair, hello: bytes) -> None:
    """A handshake that does not begin, or drips, is cut at HEADER_TIMEOUT, counted from accept."""
    clock = ManualClock()
    with in_thread(make_app(), clock=clock, **localhost.settings) as served, Wire(served.address) as wire:
        wait_until(lambda: len(served.table) == 1)
        for number in range(7):
            wire.send(hello[number * 10 : (number + 1) * 10])
            served.look()
            clock.advance(2)
            served.look()
        assert served.table
        clock.advance(2)
        served.look()
        assert not served.table
        assert served.engine.limit_events.counts == {"HEADER_TIMEOUT": 1}
        with contextlib.suppress(ConnectionResetError):
            assert wire.socket.recv(100) == b""


@pytest.mark.every_way
def test_handshake_whose_client_takes_nothing(folder: Path) -> None:
    """A handshake for which the system has no room goes on when there is."""
    authority = make(folder, "long")
    leaf = make(folder, "leaf", names="DNS:localhost", by=authority)
    chain = folder / "chain.pem"
    # As large as OpenSSL's clients put up with (100 KiB).
    chain.write_text(Path(leaf.cert).read_text() + Path(authority.cert).read_text() * 200)
    with in_thread(make_app(), tls_cert=str(chain), tls_key=leaf.key) as served:
        served.listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert not isinstance(served.address, str)
        with socket.socket() as narrow:
            narrow.settimeout(PATIENCE)
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect(served.address)
            to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.create_default_context(cafile=authority.cert)
            secure = context.wrap_bio(to_client, to_server, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                secure.do_handshake()
            narrow.sendall(to_server.read())
            wait_until(lambda: len(served.table) == 1)
            (channel,) = served.connections
            wait_until(lambda: channel.transport.waits, "the handshake to wait for room")
            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    to_client.write(narrow.recv(2048))
            secure.write(HEAD)
            narrow.sendall(to_server.read())
            answer = b""
            while not answer.endswith(b"}\n"):
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += secure.read(65536)
                    continue
                to_client.write(narrow.recv(2048))
            assert answer.startswith(b"HTTP/1.1 200")


# Records.


class Records:
    """A client whose records go out when it is told to, after a handshake whose end has not gone out either."""

    def __init__(self, wire: Wire, pair: Pair, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.socket = wire.socket
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=pair.cert)
        context.maximum_version = version
        self.secure = context.wrap_bio(self.to_client, self.to_server, server_hostname="localhost")
        while True:
            try:
                self.secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.send()
                self.to_client.write(self.socket.recv(65536))

    def send(self) -> None:
        self.socket.sendall(self.to_server.read())

    def read(self) -> bytes:
        """What comes next; nothing after close_notify."""
        while True:
            try:
                return self.secure.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                part = self.socket.recv(65536)
                assert part, "an end without close_notify"
                self.to_client.write(part)


@pytest.mark.every_way
def test_body_in_records_of_a_byte(localhost: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little is in the records, no more of them is read in one turn of the loop than of full ones."""
    asked: list[int] = []

    def noted_turn(channel: Connection, read: Callable[[Connection], bool] = Connection.read) -> bool:
        asked.append(0)
        return read(channel)

    def noted(
        tcp: TCPTransport, size: int, receive: Callable[[TCPTransport, int], bytes | None] = TCPTransport.receive
    ) -> object:
        asked[-1] += size
        return receive(tcp, size)

    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(PATIENCE)

    with in_thread(make_app(), **localhost.settings) as served, Wire(served.address) as wire:
        records = Records(wire, localhost)
        records.secure.write(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
        records.send()
        served.settle()
        monkeypatch.setattr(Connection, "read", noted_turn)
        monkeypatch.setattr(TCPTransport, "receive", noted)
        served.soon(hold)
        assert held.wait(PATIENCE)
        for _ in range(20_000):  # 23 bytes each
            records.secure.write(b"x")
        records.send()
        go.set()
        records.secure.write(bytes(980_000))
        records.send()
        answer = b""
        while not answer.endswith(b"1000000"):
            answer += records.read()
    assert max(asked) == RECEIVE_BODY_BYTES


@pytest.mark.every_way
def test_nothing_is_read_while_an_answer_waits(localhost: Pair) -> None:
    """In a body no more is read while the client does not take what OpenSSL answers: each further record could ask for more."""
    with in_thread(make_app(), **localhost.settings) as served, connect(served) as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(10))
        wait_until(lambda: internals.books(served.engine).open == {"spool": 10}, "the beginning of the body")
        reads: list[int] = []

        def read() -> None:
            (channel,) = internals.channels(served.engine)
            connection.sendall(bytes(10_000))
            select.select([channel.descriptor], [], [], PATIENCE)
            reads.append(internals.reads_before_an_answer(channel))

        served.call(read)
        assert reads == [1]


@pytest.mark.every_way
def test_requests_in_records_of_any_size(localhost: Pair) -> None:
    """Nothing that came along in one packet is forgotten: neither pipelined requests nor the tail of a body, however it is cut."""
    body = bytes(50_000)
    upload = b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 50000\r\n\r\n" + body
    with in_thread(make_app(), **localhost.settings) as served:
        for size in (1, 7, 1000, 16384, 16385, 1 << 20):
            data = (HEAD * 3 if size == 1 else upload * 3 + HEAD) * 2
            with Wire(served.address) as wire:
                records = Records(wire, localhost)
                for start in range(0, len(data), size):
                    records.secure.write(data[start : start + size])
                records.send()  # the end of the handshake as well
                received = b""
                expected = 6 if size == 1 else 8
                while received.count(b"HTTP/1.1 200 OK") < expected or not received.endswith(b"}\n"):
                    received += records.read()


@pytest.mark.every_way
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "rest", [b"", b"\r\n", HEAD[:9], b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n1"]
)
@pytest.mark.parametrize("requests", [0, 1, 2])
def test_end_in_one_packet_with_data(localhost: Pair, version: ssl.TLSVersion, rest: bytes, requests: int) -> None:
    """What is complete is answered, and then there is nothing to wait for, though TCP's connection is open; that is not kept for long."""
    clock = ManualClock()  # no deadline passes before the client has seen the end
    with in_thread(make_app(), clock=clock, **localhost.settings) as served, Wire(served.address) as wire:
        records = Records(wire, localhost, version)
        if requests or rest:
            records.secure.write(HEAD * requests + rest)
        with contextlib.suppress(ssl.SSLWantReadError):
            records.secure.unwrap()
        records.send()
        received = b""
        while part := records.read():
            received += part
        assert received.count(b"HTTP/1.1 200 OK") == received.count(b"HTTP/1.1") == requests
        assert wire.socket.recv(1) == b""
        served.settle()
        clock.advance(LINGER_SECONDS + 1)
        wait_until(lambda: served.look() or not served.table, "the connection to be given up")


@pytest.mark.every_way
def test_body_that_is_cut(localhost: Pair) -> None:
    """A body that ends early, with close_notify or without, never reaches the app."""
    with in_thread(make_app(), **localhost.settings) as served:
        for politely in (True, False):
            connection = connect(served, localhost.cert)
            connection.sendall(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
            if politely:
                with contextlib.suppress(ssl.SSLError):
                    connection.unwrap()
            connection.close()
            wait_until(lambda: not served.table)
        assert not served.done


@pytest.mark.every_way
def test_half_closed(localhost: Pair) -> None:
    """A client that says close_notify after its request still gets the response, and a close_notify after that (RFC 8446, section 6.1)."""
    with in_thread(make_app(), **localhost.settings) as served:
        assert "SSL_PROTOCOL" in s_client(
            served, "-quiet", "-no_ign_eof", "-ign_eof", given=HEAD.replace(b"1.1", b"1.0")
        )


@pytest.mark.every_way
def test_cut_response_has_no_end(localhost: Pair) -> None:
    """A connection that is closed in the middle of a response ends without close_notify, so that the client can tell that it was cut."""
    app = Flask("cut")
    app.add_url_rule("/", view_func=lambda: bytes(12_000_000))
    with in_thread(app, **localhost.settings) as served, Wire(served.address) as wire:
        records = Records(wire, localhost)
        records.secure.write(HEAD)
        records.send()
        wait_until(lambda: set(internals.books(served.engine).open) == {"spool"}, "a part to be kept")

        def cut() -> None:
            """Close when the client has taken what the system had for it, so that there is room. The event loop sends nothing meanwhile."""
            (channel,) = internals.channels(served.engine)
            wire.socket.settimeout(0.01)
            waits = True
            while waits:
                waits = bool(
                    channel.transport.unacknowledged
                )  # asked first: what is acknowledged is there to be received
                waits = received_some(wire.socket) or waits
            wire.socket.settimeout(PATIENCE)
            internals.close_in_loop(channel)

        served.call(cut)
        with contextlib.suppress(ConnectionResetError):
            assert wire.socket.recv(1) == b""


def received_some(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1 << 20))
    except TimeoutError:
        return False


@pytest.mark.every_way
def test_end_for_which_there_is_no_room(localhost: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of a response waits for its client, close_notify comes after it: an end is never taken for a cut."""
    app = Flask("ends")
    refused: list[TLSTransport] = []
    send_sealed = TLSTransport._send_sealed

    def send_later(tls: TLSTransport) -> bool:
        """As a system that has no room for the end of each connection at first."""
        if tls._said_end and tls not in refused:
            refused.append(tls)
            return False
        return send_sealed(tls)

    @app.get("/<int:size>")
    def sized(size: int) -> bytes:
        return bytes(size)

    monkeypatch.setattr(TLSTransport, "_send_sealed", send_later)
    context = ssl.create_default_context(cafile=localhost.cert)
    with in_thread(app, **localhost.settings) as served:
        served.listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert not isinstance(served.address, str)
        for size in range(10_000, 60_000, 1_000):
            with socket.socket() as narrow:
                narrow.settimeout(PATIENCE)
                narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                narrow.connect(served.address)
                with context.wrap_socket(narrow, server_hostname="localhost", suppress_ragged_eofs=False) as client:
                    client.sendall(f"GET /{size} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
                    received = b""
                    while data := client.recv(65536):
                        received += data
                    assert len(received.partition(b"\r\n\r\n")[2]) == size
    assert len(refused) == 50


# Sealing: of a response much is sealed at a time.


@pytest.fixture(scope="module")
def content() -> bytes:
    """3 MB, in which no piece is like another."""
    return b"".join(number.to_bytes(4, "big") for number in range(750_000))


def make_much(content: bytes, path: Path) -> Flask:
    app = Flask("much")
    path.write_bytes(content)

    @app.get("/")
    def in_memory() -> bytes:
        return content

    @app.get("/parts")
    def parts() -> Iterator[bytes]:
        begin = 0
        for size in itertools.cycle((1, 100, 16_384, 100_000, 1 << 20, 1_500_000)):
            if begin >= len(content):
                return
            yield content[begin : begin + size]
            begin += size

    @app.get("/file")
    def file() -> Response:
        return send_file(path)

    return app


def take(
    connection: ssl.SSLSocket, path: str, *, size: int = 1 << 20, then: Callable[[int], None] = lambda count: None
) -> bytes:
    """The body of a response without chunks, read *size* bytes at a time; *then* is told of how much has been read."""
    connection.sendall(f"GET {path} HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n".encode())
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += connection.recv(size)
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    parts = [body]
    count = len(body)
    while (length is None or count < int(length[1])) and (part := connection.recv(size)):
        parts.append(part)
        count += len(part)
        then(len(head) + 4 + count)
    return b"".join(parts)


@pytest.mark.every_way
def test_much_arrives_in_order(localhost: Pair, content: bytes, tmp_path: Path) -> None:
    """From memory, from a file, and in parts; to a client that takes all there is, and to one that takes it slowly."""
    with in_thread(make_much(content, tmp_path / "file"), **localhost.settings) as served:
        with connect(served, localhost.cert) as fast:
            for path in ("/", "/file", "/", "/file", "/parts"):
                assert take(fast, path) == content, path
        served.listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        with connect(served, localhost.cert) as slow:
            for path in ("/", "/file", "/parts"):
                assert take(slow, path, size=10_000) == content, path


@pytest.mark.every_way
def test_what_a_slow_client_takes_counts(localhost: Pair, content: bytes, tmp_path: Path) -> None:
    """However much is sealed at a time, what the client takes of it is seen as it is taken."""
    context = ssl.create_default_context(cafile=localhost.cert)
    with in_thread(make_much(content, tmp_path / "file"), **localhost.settings) as served, socket.socket() as narrow:
        assert not isinstance(served.address, str)
        narrow.settimeout(PATIENCE)
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        narrow.connect(served.address)
        with context.wrap_socket(narrow, server_hostname="localhost") as client:
            wait_until(lambda: len(served.table) == 1)
            (channel,) = served.connections
            before = 0

            def counted() -> int:
                with channel.output_lock:
                    return channel.sender.taken_by_system - channel.transport.unacknowledged

            def check(count: int) -> None:
                # A hundredth is more than what records have besides their content.
                expected = (before + count) * 0.99 - RECORD_BYTES
                wait_until(lambda: counted() > expected, f"{count} bytes to count")

            for path in ("/", "/", "/file"):  # from the second on it is known as one that takes much at a time
                assert take(client, path, size=50_000, then=check) == content
                before += len(content)


@pytest.mark.every_way
def test_few_are_sealed_wide(localhost: Pair, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sealed waits in memory if the client stops taking it, so only some have much; a place is free when its connection ends."""
    monkeypatch.setattr("flask_prodserve.engine.acceptor.WIDE_CONNECTIONS", 2)
    with in_thread(make_much(content, tmp_path / "file"), **localhost.settings) as served:
        for _ in range(2):
            with contextlib.ExitStack() as open_ones:
                for number in range(4):
                    assert take(open_ones.enter_context(connect(served, localhost.cert)), "/") == content, number
                channels = served.connections
                assert sum(channel.transport._is_wide for channel in channels) == 2  # type: ignore[attr-defined]
            wait_until(lambda: not served.table)
        (places,) = {channel.transport._wide for channel in channels}  # type: ignore[attr-defined]
        assert [places.acquire(blocking=False) for _ in range(3)] == [True, True, False]


# New files.


@pytest.mark.every_way
def test_new_certificates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """New files are for new connections, once certificate and key fit, and old connections go on."""
    caplog.set_level("INFO", "flask_prodserve.tls")
    before, after = make(tmp_path / "1", "it", names="DNS:localhost"), make(tmp_path / "2", "it", names="DNS:localhost")
    cert, key = tmp_path / "live.pem", tmp_path / "live.key"
    cert.symlink_to(before.cert)
    key.symlink_to(before.key)
    certificates = Certificates(TLS((str(cert),), (str(key),)))
    first = certificates.context
    certificates.check()
    assert certificates.context is first

    def replace(link: Path, target: str) -> None:
        link.with_suffix(".new").symlink_to(target)
        link.with_suffix(".new").replace(link)
        certificates.check()
        certificates.check()

    replace(cert, after.cert)
    assert certificates.context is first
    for _ in range(3):
        certificates.check()
    (record,) = caplog.records
    assert "is not the key of the certificate" in record.getMessage()
    replace(key, after.key)
    assert certificates.context is not first
    assert caplog.records[-1].getMessage() == "loaded new certificates for new connections"
    key.unlink()
    certificates.check()
    certificates.check()
    assert "No such file" in caplog.records[-1].getMessage()


def test_dates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with dates at first is asked for; what comes then, by the time or with new files, is logged once each."""
    usual, over = make(tmp_path, "usual", days=90), make(tmp_path, "over", days=-1)
    clock = ManualClock()
    clock.now = began = time.time()  # they hold by now
    live = Pair(str(tmp_path / "live.pem"), str(tmp_path / "live.key"))

    def install(pair: Pair) -> None:
        for source, target in ((pair.cert, live.cert), (pair.key, live.key)):
            Path(f"{target}.new").write_bytes(Path(source).read_bytes())
            Path(f"{target}.new").replace(target)

    def said(at: float) -> list[str]:
        clock.now = at
        caplog.clear()
        for _ in range(3):
            certificates.check()
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    install(usual)
    certificates = Certificates(TLS((live.cert,), (live.key,)), now=clock)
    assert certificates.remarks() == []
    assert said(began + 82 * 86400) == []
    (late,) = said(began + 84 * 86400)
    assert late.startswith(f"TLS_CERT: {live.cert} expires on ")
    assert certificates.remarks() == [late]
    assert said(began + 85 * 86400) == []
    (end,) = said(began + 91 * 86400)
    assert end.startswith(f"TLS_CERT: {live.cert} expired on ")
    assert said(began + 92 * 86400) == []
    assert said(began) == []
    before = certificates.context
    install(over)
    (taken_over,) = said(began)
    assert taken_over.startswith(f"TLS_CERT: {live.cert} expired on ")
    assert certificates.context is not before
    (early,) = said(began - 10 * 86400)
    assert " is not valid before " in early


def test_expired_certificate_is_served(folder: Path) -> None:
    """A wrong clock stops no server: what has expired is served, to clients that take it."""
    over = make(folder / "over", "over", names="DNS:localhost", days=-1)
    with in_thread(make_app(), **over.settings) as served, connect(served) as connection:
        assert connection.getpeercert(binary_form=True) == _encoded(over)


def test_new_certificate_of_a_name_and_new_authority(folder: Path, localhost: Pair, tmp_path: Path) -> None:
    """Every file is watched: the second pair, the authority of the clients. Others stay what they are, and open connections go on."""
    shops = [make(folder / f"shop-{number}", "shop", names="DNS:shop.example") for number in (1, 2)]
    authorities = [make(folder / f"authority-{number}", "ca", subject=f"/CN={number}") for number in (1, 2)]
    clients = [make(folder / f"client-{number}", "client", by=by) for number, by in enumerate(authorities)]
    live = Pair(str(tmp_path / "shop.pem"), str(tmp_path / "shop.key"))
    live_authority = str(tmp_path / "ca.pem")

    def install(*files: tuple[str, str]) -> None:
        for source, target in files:
            Path(f"{target}.new").write_bytes(Path(source).read_bytes())
            Path(f"{target}.new").replace(target)

    def refused(certificate: Pair) -> bool:
        with connect(served, certificate=certificate) as connection:
            try:
                ask(connection)
            except (ssl.SSLError, ConnectionError):
                return True
            return False

    def shown(name: str, certificate: Pair) -> bytes | None:
        with connect(served, name=name, certificate=certificate) as connection:
            return connection.getpeercert(binary_form=True)

    install((shops[0].cert, live.cert), (shops[0].key, live.key), (authorities[0].cert, live_authority))
    settings = {"tls_cert": [localhost.cert, live.cert], "tls_key": [localhost.key, live.key]}
    with in_thread(make_app(), tls_client_ca=live_authority, **settings) as served:
        certificates = internals.certificates(served.engine)
        with connect(served, certificate=clients[0]) as open_one:
            ask(open_one)
            assert shown("shop.example", clients[0]) == _encoded(shops[0])
            install((shops[1].cert, live.cert), (shops[1].key, live.key))
            certificates.check()
            certificates.check()
            assert shown("shop.example", clients[0]) == _encoded(shops[1])
            assert shown("localhost", clients[0]) == _encoded(localhost)
            assert [refused(client) for client in clients] == [False, True]
            install((authorities[1].cert, live_authority))
            certificates.check()
            certificates.check()
            assert [refused(client) for client in clients] == [True, False]
            assert ask(open_one)["SSL_CLIENT_VERIFY"] == "SUCCESS"


# The redirect.


@contextlib.contextmanager
def redirecting(localhost: Pair, **settings: Any) -> Iterator[tuple[Served, tuple[str, int] | str, int]]:
    """A server, the address where it redirects, and the port that it redirects to."""
    bind = {"bind": "127.0.0.1:0", "tls_redirect_bind": "localhost:0", **localhost.settings, **settings}
    with in_thread(make_app(), **bind) as served:
        assert not isinstance(served.address, str)
        yield served, served.addresses[-1], served.address[1]


@pytest.mark.every_way
def test_redirect(localhost: Pair) -> None:
    """Plain HTTP is redirected to the same URL in https with 308, whatever is asked for, and never reaches the app."""
    with redirecting(localhost) as (served, plain, port):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            response = get(plain, "//a%2Fb/../c?x=%20&y", method=method, body=b"body" if method == "POST" else b"")
            assert response.status == 308
            assert response.get("location") == f"https://test:{port}//a%2Fb/../c?x=%20&y"
            assert response.get("connection") == "close"
        for host, expected in (("a.b:80", "a.b"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]")):
            with Wire(plain) as wire:
                wire.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert wire.response().get("location") == f"https://{expected}:{port}/x"
        for target, path in (("http://test/x?y", "/x?y"), ("HTTP://test", "/"), ("http://test?y", "/?y")):
            assert get(plain, target).get("location") == f"https://test:{port}{path}"
        assert get(plain, "/livez").status == 200
        assert get(plain, "/readyz").status == 200
        assert {done.status for done in served.done} == {308, 200}
        with connect(served, localhost.cert) as connection:
            assert ask(connection)["SSL_PROTOCOL"] == "TLSv1.3"


@pytest.mark.every_way
def test_requests_that_cannot_be_redirected(localhost: Pair) -> None:
    """Who does not say which host is meant, or means none, is told in words; what is malformed is refused as anywhere."""
    with redirecting(localhost) as (_, plain, _):
        for sent, status in (
            (b"GET / HTTP/1.0\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ):
            with Wire(plain) as wire:
                wire.send(sent)
                response = wire.response()
                assert (response.status, response.get("location")) == (status, None)


@pytest.mark.every_way
def test_redirect_before_the_body(localhost: Pair) -> None:
    """Nobody sends a body to be redirected."""
    with redirecting(localhost) as (_, plain, port), Wire(plain) as wire:
        wire.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        response = wire.response("POST")
        assert (response.status, response.get("location")) == (308, f"https://test:{port}/x")


def test_redirecting_server_without_room(localhost: Pair) -> None:
    """Where there is no room for a connection, its client gets 503 instead of a redirect, unless it asks for the server's health."""
    with redirecting(localhost, max_connections=1) as (served, plain, _), Wire(plain) as holder:
        holder.send(HEAD[:10])
        wait_until(lambda: sum(connection.pending() for connection in served.connections) == 1)
        for method, target, status in (("GET", "/x", 503), ("POST", "/x", 503), ("GET", "/livez", 200)):
            response = get(plain, target, method=method)
            assert (response.status, response.get("connection")) == (status, "close")


@pytest.mark.every_way
def test_redirect_from_a_unix_socket(localhost: Pair, tmp_path: Path) -> None:
    """The redirect may listen on a Unix socket; what is served only on one is at https' own port for everybody else."""
    path, served_at = str(tmp_path / "plain"), str(tmp_path / "served")
    with in_thread(
        make_app(), bind=f"unix:{served_at}", tls_redirect_bind=f"unix:{path}", **localhost.settings
    ) as served:
        assert served.addresses == [served_at, path]
        assert get(path, "/x").get("location") == "https://test/x"
