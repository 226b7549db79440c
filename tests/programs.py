"""Programs that tests run, and ports for them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip, but not where everything that can be installed has to be there."""
    assert "TESTS_MAY_NOT_SKIP" not in os.environ, f"{what} is missing"
    pytest.skip(f"{what} is not installed")


def program(name: str) -> str:
    """The path of the program *name*, also where only root looks for it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    return found if found is not None else missing(name)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 for programs that must be told theirs: below those that systems hand out by themselves, as to clients."""
    ports: list[int] = []
    while len(ports) < count:
        port = 12000 + secrets.randbelow(20000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports
