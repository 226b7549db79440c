"""Holds threads up at random, so that tests fail which lean on what mostly comes first: ``PYTHONPATH=tests/delays pytest ...``.

Python imports this by itself when it starts, also in the servers that tests run as processes of their own. By the environment:
TEST_DELAYS is the chance of a hold-up at each call and each return (0.01), TEST_LONGEST_DELAY its longest time in seconds (0.05), and
TEST_DELAYS_IN a folder: ``flask_prodserve`` (this), or ``tests``, where it is the clients that are late.

Use it with TEST_PATIENCE=3. Tests that raise exceptions in other threads (they hit the hold-up), that measure, or whose deadlines are
milliseconds may fail with it, and mean nothing by that.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from types import CodeType, FrameType

CHANCE = float(os.environ.get("TEST_DELAYS", "0.01"))
LONGEST_SECONDS = float(os.environ.get("TEST_LONGEST_DELAY", "0.05"))
FOLDER = f"{os.sep}{os.environ.get('TEST_DELAYS_IN', 'flask_prodserve')}{os.sep}"

_random = random.Random(os.getpid())  # tests seed the module's own
_sleep = time.sleep  # tests replace it
_meant: dict[CodeType, bool] = {}


def hold_up(frame: FrameType, event: str, argument: object) -> None:
    """For :func:`sys.setprofile`."""
    if event not in ("call", "return"):
        return
    code = frame.f_code
    if code not in _meant:
        _meant[code] = FOLDER in code.co_filename
    if _meant[code] and _random.random() < CHANCE:
        _sleep(_random.random() * LONGEST_SECONDS)


threading.setprofile(hold_up)
sys.setprofile(hold_up)
