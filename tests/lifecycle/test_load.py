"""The load itself: a server that does something wrong is found out."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from findings import Death, Failure, Result, unexplained
from load import Load

from serving import wait_until

Behaviour = Callable[[socket.socket, bytes, int], None]
"""What is done with a connection, the number of the request on it, and how many connections there were before."""


def _answer(number: bytes, *fields: bytes, pid: bytes = b"7") -> bytes:
    body = number + b" " + pid + b" 1"
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields, b"", body])


@contextlib.contextmanager
def _server(behave: Behaviour) -> Iterator[tuple[str, int]]:
    """Serves one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def run() -> None:
            served = 0
            while not ended.is_set():
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    while b"\r\n\r\n" in (request := connection.recv(65536)):
                        behave(connection, request.partition(b"/echo/")[2].partition(b" ")[0], served)
                        served += 1

        thread = threading.Thread(target=run)
        thread.start()
        yield listening.getsockname()
        ended.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join()


def _first_failure(behave: Behaviour, *, connecting: int = 1, keeping: int = 0) -> Failure:
    with _server(behave) as address, Load(address, keeping=keeping, connecting=connecting, slow=0) as load:
        wait_until(lambda: load.failures, "a failure")
        return load.result().failures[0]


def test_clean_answers() -> None:
    """Where every request is answered nothing is a failure, and a kept connection is kept."""
    accepted = []

    def behave(connection: socket.socket, number: bytes, served: int) -> None:
        accepted.append(connection)
        connection.sendall(_answer(number))

    with _server(behave) as address, Load(address, keeping=1, connecting=0, slow=0) as load:
        load.wait_for(5)
        result = load.result()
    assert result.problems == []
    assert result.answered == {7: result.answers}
    assert len(set(accepted)) == 1


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    ("kind", "behave"),
    [
        ("ended", lambda connection, number, served: connection.shutdown(socket.SHUT_WR)),
        ("reset", lambda connection, number, served: _reset(connection)),
        ("ended", lambda connection, number, served: (connection.sendall(_answer(number)[:-1]), connection.close())),
        ("status", lambda connection, number, served: connection.sendall(b"HTTP/1.1 503 Busy\r\n\r\n")),
        ("body", lambda connection, number, served: connection.sendall(_answer(b"4" + number))),
        ("framing", lambda connection, number, served: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")),
    ],
)
def test_wrong_answers(kind: str, behave: Behaviour) -> None:
    """An answer that is missing, cut, of another status, of another request, or without a length is a failure."""
    assert _first_failure(behave).kind == kind


def test_refused() -> None:
    """A refused connection is a failure, or the end of a client where that was said to be expected."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    with Load(address, keeping=0, connecting=1, slow=0) as load:
        wait_until(lambda: load.failures, "a failure")
        assert load.failures[0].kind == "refused"
        load.expect_end()
        load.wait_ended()
        assert len(load.refused) == 1


def test_retry() -> None:
    """A kept connection that ends before the answer to its second request is tried again once, and counted."""

    def behave(connection: socket.socket, number: bytes, served: int) -> None:
        if served == 1:
            connection.close()
        else:
            connection.sendall(_answer(number))

    with _server(behave) as address, Load(address, keeping=1, connecting=0, slow=0) as load:
        load.wait_for(3)
        result = load.result()
    assert result.failures == []
    assert [retry.pid for retry in result.retries] == [7]


def test_connection_close_is_obeyed() -> None:
    """After an answer with Connection: close the next request comes on a new connection, and nothing has to be tried again."""
    accepted = []

    def behave(connection: socket.socket, number: bytes, served: int) -> None:
        accepted.append(connection)
        connection.sendall(_answer(number, b"Connection: close"))

    with _server(behave) as address, Load(address, keeping=1, connecting=0, slow=0) as load:
        load.wait_for(3)
        assert load.result().problems == []
    assert len(set(accepted)) == len(accepted)


@pytest.mark.parametrize(
    ("kind", "opened", "at", "pid", "explained"),
    [
        ("reset", 1.0, 10.1, 5, True),  # on a connection of the process that died
        ("reset", 1.0, 10.1, 6, False),  # of another
        ("reset", 1.0, 9.9, 5, False),  # before it died
        ("ended", 9.9, 10.1, None, True),  # not answered on yet, and there when it died
        ("ended", 10.6, 10.7, None, False),  # opened after that
        ("refused", 10.1, 10.1, None, False),
        ("status", 1.0, 10.1, 5, False),
    ],
)
def test_explained_by_death(kind: str, opened: float, at: float, pid: int | None, explained: bool) -> None:
    """The death of a process explains the broken connections that it may have had, and nothing else."""
    failure = Failure(kind, "keeping-0", 1, opened, at, pid)
    result = Result(0, {}, [failure], [])
    assert unexplained(result, [Death(5, told=10.0, gone=10.5)]) == ([] if explained else [failure])


@pytest.mark.parametrize(
    ("kind", "opened", "pid", "is_problem"),
    [
        ("reset", 9.99, None, False),
        ("reset", 9.9, None, True),  # it waited for too long to be accepted
        ("reset", 9.99, 5, True),  # it was accepted
        ("ended", 9.99, None, True),  # so was this
    ],
)
def test_reset_by_closing(kind: str, opened: float, pid: int | None, is_problem: bool) -> None:
    """Only what was never accepted, and was there for a moment only when the listener was closed, may be reset by that."""
    failure = Failure(kind, "keeping-0", 1, opened, 10.0, pid)
    assert Result(0, {}, [failure], [], refused=[10.0], closing_seconds=0.05).problems == (
        [failure] if is_problem else []
    )


def test_retry_after_a_pause() -> None:
    """A retry is the server's fault unless the client had been idle for about a second."""
    retries = [Failure("ended", "keeping-0", 1, 1.0, 10.0, 5, idle=idle) for idle in (0.5, 1.1)]
    assert Result(0, {}, [], retries).problems == retries[:1]
