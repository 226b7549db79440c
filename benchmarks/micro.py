"""Time the pieces of a request's way through the server, one by one and without sockets: ``python micro.py``.

Each line is the best of several repeats, in microseconds a call: what the code costs when nothing disturbs it. The pieces do not add up to
a request, which also has system calls and hand-overs; ``compare.py`` measures that. The parsers do not do the same: how much each checks
differs, and each call makes a new parser, as it must where a head has been refused.
"""

from __future__ import annotations

import logging
import time
import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import h11
from apps import call
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from flask_prodserve.engine.context import EngineContext
from flask_prodserve.engine.exchange.peer import Peer
from flask_prodserve.engine.exchange.request import Request
from flask_prodserve.engine.exchange.task import Task
from flask_prodserve.protocol.request_head import HeadLimits, HeadReader
from flask_prodserve.protocol.response_head import compose, http_date
from flask_prodserve.settings import Settings

REPEATS = 9
REPEAT_SECONDS = 0.1

HEAD = "\r\n".join(
    [
        "GET /items?page=2&sort=name HTTP/1.1",
        "Host: shop.example.com",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-GB,en;q=0.5",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Referer: https://shop.example.com/items?page=1&sort=name",
        "Connection: keep-alive",
        "Cookie: session=eyJ1c2VyIjo0Mn0.aGVsbG8.d29ybGQtd29ybGQtd29ybGQ; theme=dark",
        "Upgrade-Insecure-Requests: 1",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin",
        "\r\n",
    ]
).encode()
"""What a browser sends, with 12 fields."""

FIELDS = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "13"), ("Vary", "Cookie")]


def read_head() -> None:
    reader = HeadReader(HeadLimits())
    reader.feed(HEAD)
    assert reader.head is not None


def waitress_reads_head(adjustments: Adjustments) -> None:
    parser = HTTPRequestParser(adjustments)
    parser.received(HEAD)
    assert parser.completed


def h11_reads_head() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD)
    assert isinstance(connection.next_event(), h11.Request)


def compose_head() -> None:
    compose(
        "200 OK",
        FIELDS,
        method="GET",
        version="1.1",
        keep_alive=True,
        body_length=13,
        date=http_date(time.time()),
        server=None,
    )


def task() -> Task:
    """Return a task whose request has been read. Its client has only what the WSGI environment takes from it.

    If it is asked several times, it makes the body's stream, which is empty, only the first time.
    """
    context = EngineContext.of(lambda environ, start_response: [], Settings(), error_logger=logging.getLogger("micro"))
    request = Request(context)
    request.received(HEAD)
    client: Any = SimpleNamespace(
        context=context,
        peer=Peer("192.0.2.1", 50000, "192.0.2.2", 8000, "http"),
        environ={},
        check_client_disconnected=bool,
    )
    return Task(client, request)


def best(piece: Callable[[], object]) -> float:
    """Seconds that one call of *piece* takes, at best."""
    timer = timeit.Timer(piece)
    number, seconds = timer.autorange()
    number = max(1, round(number * REPEAT_SECONDS / seconds))
    return min(timer.repeat(REPEATS, number)) / number


def main() -> None:
    adjustments = Adjustments()
    pieces: list[tuple[str, Callable[[], object]]] = [
        ("read a head of 12 fields (HeadReader)", read_head),
        ("  the same, waitress's HTTPRequestParser", lambda: waitress_reads_head(adjustments)),
        ("  the same, h11", h11_reads_head),
        ("the WSGI environment of it (Task)", task()._environ),
        ("compose a response head of 3 fields (compose)", compose_head),
        ('the app without a server, "Hello, World!"', call("/")),
        ("  JSON", call("/json")),
        ("  the template of 5 kB", call("/template")),
    ]
    width = max(len(name) for name, _ in pieces)
    print(f"{'piece'.ljust(width)}  microseconds (best of {REPEATS})")
    for name, piece in pieces:
        print(f"{name.ljust(width)}  {best(piece) * 1e6:12.2f}", flush=True)


if __name__ == "__main__":
    main()
